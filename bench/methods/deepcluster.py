"""DeepCluster: cluster the network's features by k-means, learn to tell the clusters, and begin again.

Even an untrained convolutional network says something of its input. Take its clusters for classes, train on them, and
the features and so the next clusters get better. Each epoch begins with new clusters.

Paper: Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018,
sections 3 and 4; figures from the authors' release (deepcluster ``main.py``, ``clustering.py``, ``util.py``).

Shapes: crops (B, 3, S, S) -> Sobel edges (B, 2, S, S) -> trunk -> fc6, fc7 (B, 4,096) -> logits (B, K), K = 10,000.

Before each epoch:

1. Features: fc7 before its ReLU, in eval mode, of every image's central crop.
2. PCA to 256 dimensions, whitening, unit length.
3. k-means: 20 iterations over all images from K random ones (``bench.methods._clusters``, in batched torch; empty
   clusters are filled by halves of large ones, as faiss does).
4. The classifier on top starts afresh, with weights N(0, 0.01) and bias 0: clusters have no order, so the old one means
   nothing.

Then an epoch of as many draws as there are images, uniform over the clusters that have any, lest a few large ones rule:
of a cluster with enough images each at most once, of a smaller one with replacement. The classifier is trained by SGD
without momentum, and the rest with 0.9: so the release, whose new optimiser for each new classifier has none. There is
hence no momentum to reset.

Memory, for 1.28 million images: their features would take 21 GB. So the PCA is fitted to 32,768 random images: 268 MB
of float16, a covariance of 67 MB and four times that to solve it, freed again: 0.6 GB. In a second pass features are
reduced within the batch, to 256 numbers of float16: 512 bytes an image, 656 MB on the CPU while clusters are made.
k-means takes them through the device in chunks (64 MB of distances each); centroids are 10 MB. What stays is the number
of each image's cluster, 4 bytes in a buffer and in checkpoints (5 MB), and an epoch's order with what it takes to draw
it, 40 (51 MB). So less than 0.8 GB beside the model at any time. Sets of at most 32,768 images take one pass.

Several processes: each embeds its share; all rows are gathered, and the first process's clusters hold in all.

Options: ``clusters``, K: 10,000, or one for 128 images (as in ImageNet) if that is less. At most as many as images.

Pretext metric: ``nmi``, the normalised mutual information between the clusters that the classifier names for two
random crops of each of up to 1,000 held-out images, taken together. (The nearest centroids would not do: at the end
they are an epoch old, and features that have moved on fall to few of them.) That is above 0 by chance, and near 1
where there are many clusters for few images: two random labellings of n images with K >= n labels hardly repeat a
label. Chance is therefore measured, not stated: the mean over 20 shuffles of the second crops, which keeps the sizes of
clusters; it is in the card, beside the value. ``adjusted`` is (nmi - chance) / (1 - chance), 0 whatever K and n are;
``agreement`` is the share of images whose crops get one name. A network that names one cluster for all tells nothing:
nmi and chance are then both 1. An untrained network is a little above chance, for crops of an image share edges.

Deviations from the paper:
- PCA on a sample where there are more than 32,768 images, features in float16, and splitting the largest clusters
  where faiss draws which to split, are our own.
- fc6 and fc7 have BatchNorm (release: only the convolutions have), and are narrower on narrower backbones; the PCA
  keeps as many dimensions as there are, if fewer than 256. Directions without variance are dropped. On trunks that end
  in a global average, that is what is clustered and classified.
- Weight decay 1e-5 and the rate 0.05 are constant, as released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.heads import Top
from bench.data import transforms
from bench.errors import BenchError
from bench.methods import _sobel
from bench.methods._clusters import kmeans, whitened, whitening
from bench.methods.base import SGD, Backbone, Batch, Loss, PretextTask, Recipe, Step
from bench.training.device import as_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from bench.data.base import Dataset, Sample
    from bench.training.recipe import Optimiser

CLUSTERS, IMAGES_A_CLUSTER = 10_000, 128
DIMS = 256
"""Of the features that are clustered."""
SAMPLE = 32_768
"""Images to which the PCA is fitted, at most."""
SHUFFLES = 20
"""From which the metric's chance is estimated."""


class DeepCluster(PretextTask):
    """Options: ``clusters``, 2 or more (10,000, or one for 128 images if that is less)."""

    title, citation, version = "DeepCluster", "caron2018deep", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=200,
        batch=256,
        optimiser=SGD(lr=0.05, momentum=0.9, weight_decay=1e-5),
        source="Caron et al. 2018; facebookresearch/deepcluster main.py, main.sh",
    )
    metric = "nmi"
    heldout_batch = 1000

    cluster_of: Tensor

    def __init__(self, backbone: Backbone, clusters: int | None = None) -> None:
        super().__init__(_sobel.on_edges(backbone))
        if clusters is not None and clusters < 2:
            raise BenchError(f"deepcluster cannot make {clusters!r} clusters", mend="choose a whole number from 2 on")
        self.clusters = clusters
        self.top = Top(self.backbone, dropout=0.5)
        self.top.layers = self.top.layers[:-1]  # features are clustered before the last ReLU

    def setup(self, dataset: Dataset) -> None:
        """The classifier, and the cluster of each image."""
        images = len(dataset)
        clusters = self.clusters or min(CLUSTERS, max(2, images // IMAGES_A_CLUSTER))
        if clusters > images:
            raise BenchError(
                f"{clusters} clusters need as many images; there are {images}",
                where=dataset.name,
                mend="lower the option clusters",
            )
        self.classifier = nn.Linear(self.top.width, clusters)
        self.register_buffer("cluster_of", torch.zeros(images, dtype=torch.int32))

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """Random clusters, until the first epoch makes the first ones."""
        clusters = self.classifier.out_features
        self.cluster_of.copy_(torch.randint(clusters, self.cluster_of.shape, generator=generator))

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a random resized crop, perhaps mirrored."""
        crop = transforms.random_resized_crop(sample.image, self.backbone.input_side, generator)
        return transforms.flip(crop, generator)

    def heldout_view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (2, 3, S, S): two of them."""
        return torch.stack([self.view(sample, generator), self.view(sample, generator)])

    def central(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S), what is clustered: short side to 256/224 of S, central crop."""
        side = self.backbone.input_side
        return transforms.center_crop(transforms.resize_short(sample.image, transforms.short_side(side)), side)

    def optimiser_of(self, name: str, spec: Optimiser, parameters: Iterable[Parameter]) -> Optimizer:
        """The recipe's; without momentum for the classifier."""
        own = list(self.classifier.parameters())
        rest = [p for p in parameters if not any(p is mine for mine in own)]
        made = super().optimiser_of(name, spec, rest)
        made.add_param_group({"params": own, "momentum": 0.0})
        return made

    def on_epoch_start(self, epoch: int, embed: Callable[..., Tensor]) -> None:
        """New clusters from the features as they are now, and a fresh classifier for them."""
        images, device = len(self.cluster_of), self.cluster_of.device
        only = None if images <= SAMPLE else torch.randperm(images)[:SAMPLE]
        found = embed(lambda batch: self.features(batch.views).half(), self.central, only)
        pca = [as_first(part) for part in whitening(found, min(DIMS, self.top.width), device)]
        if only is None:
            rows = torch.cat([whitened(part.to(device), *pca).half().cpu() for part in found.split(4096)])
        else:
            del found
            rows = embed(lambda batch: whitened(self.features(batch.views), *pca).half(), self.central)
        _, cluster_of = kmeans(rows, self.classifier.out_features, device)
        self.cluster_of.copy_(as_first(cluster_of.to(device)))
        with torch.no_grad():
            self.classifier.weight.copy_(torch.randn(self.classifier.weight.shape) * 0.01)
            self.classifier.bias.zero_()

    def order(self, epoch: int, size: int, generator: torch.Generator) -> Tensor:
        """``size`` draws, equally many (but for rounding) from every cluster that has images."""
        cluster_of = self.cluster_of.cpu()
        counts = cluster_of.bincount(minlength=self.classifier.out_features)
        share = size // int((counts > 0).sum()) + 1
        groups = cluster_of.argsort(stable=True).split(counts.tolist())
        drawn = torch.cat([_draw(group, share, generator) for group in groups if len(group)])
        return drawn[torch.randperm(len(drawn), generator=generator)[:size]]

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over the clusters."""
        logits = self.logits(batch.views)
        label = self.cluster_of[batch.index].long()
        yield "main", Loss(F.cross_entropy(logits, label), {"accuracy": (logits.argmax(1) == label).float().mean()})

    def heldout(self, batch: Batch, step: Step, generator: torch.Generator) -> dict[str, Tensor]:
        """How far the clusters of two crops agree; sets ``chance``, which depends on the images."""
        first, second = (
            torch.cat([self.logits(part).argmax(1) for part in crops.split(64)]) for crops in batch.views.unbind(1)
        )
        found = compared(first, second, generator)
        self.chance = found.pop("chance")
        return {name: torch.tensor(value) for name, value in found.items()}

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Two crops of each image, and the first one's edges as the network sees them."""
        return torch.cat([batch.views, _sobel.drawn(self.backbone, batch.views[:, 0])], 1)

    def features(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> (B, D): fc7 before its ReLU."""
        return self.top(self.backbone(images, self.backbone.stages[-1:]))

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> (B, K)."""
        return self.classifier(self.features(images).relu())


def compared(first: Tensor, second: Tensor, generator: torch.Generator) -> dict[str, float]:
    """How far two clusterings of the same images, int64 (n,) each, agree: ``nmi``, by ``chance``, ``adjusted`` for it,
    and ``agreement``."""
    orders = [torch.randperm(len(first), generator=generator, device=generator.device) for _ in range(SHUFFLES)]
    nmi, chance = _nmi(first, second), sum(_nmi(first, second[order.to(second.device)]) for order in orders) / SHUFFLES
    adjusted = (nmi - chance) / max(1 - chance, 1e-6)
    agreement = float((first == second).float().mean())
    return {"nmi": nmi, "chance": chance, "adjusted": adjusted, "agreement": agreement}


def _draw(group: Tensor, share: int, generator: torch.Generator) -> Tensor:
    """``share`` of the images of a cluster: each at most once if there are more, else with replacement."""
    if len(group) > share:
        return group[torch.randperm(len(group), generator=generator)[:share]]
    return group[torch.randint(len(group), (share,), generator=generator)]


def _nmi(first: Tensor, second: Tensor) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(first.cpu().numpy(), second.cpu().numpy()))
