"""Exemplar: recognise an image patch under every change of place, size, angle, contrast and colour.

Each of N seed patches, drawn where images have strong gradients, is a class of its own (a surrogate class), and its
transformed copies are the examples. A network that tells N patches apart whatever was done to them must describe what
is in them, and ignore what was done.

Paper: Dosovitskiy, Springenberg, Riedmiller, Brox, "Discriminative Unsupervised Feature Learning with Convolutional
Neural Networks", NIPS 2014, sections 2 and 3 (extended: "... with Exemplar Convolutional Neural Networks", TPAMI
2016). Option ``loss="triplet"`` needs no classes, so nothing limits their number: every image of a batch is one, and
copies of an image shall lie nearer to each other than to those of other images, by the semi-hard triplet loss of
Schroff et al. 2015 as in google/revisiting-self-supervised ``exemplar.py``.

Shapes: images (B, 3, H, H), H = 256/224 of the backbone's crop S; K copies of each seed (B * K, 3, P, P), P = S / 3 (32
of 96 pixels in the paper); logits (B * K, N), or embeddings (B * K, D) of unit length. The network sees patches at
the scale at which it will see images.

Transformations, each drawn uniformly, factors and powers log-uniformly (ranges unconfirmed):

- translation by up to 0.2 of the patch along each axis; scale 0.7 to 1.4; rotation by up to 20 degrees;
- contrast 1: the projections of all pixels on the principal components of the data's colours, times 0.5 to 2, one
  factor a component;
- contrast 2: saturation and value to the power 0.25 to 4, times 0.7 to 1.4, plus -0.1 to 0.1;
- colour: hue plus -0.1 to 0.1 (of a full turn).

Pretext metric: ``retrieval``, because held-out images have no surrogate class: of a second copy of a seed, how often
the nearest (cosine, on the fully connected layer or the embedding) among first copies of 16 seeds, its own and the
next 15 of the batch, is its own; chance is 1/16. An untrained network is above chance: compare with it. Training also
logs ``accuracy`` over the N classes (chance 1 / N), or ``ordered``, the share of triplets with d(anchor, positive) <
d(anchor, negative) (chance 1/2).

Deviations from the paper:
- N is 8,000, or a twentieth of the number of images if that is less, so that small suites see each class often; one
  seed an image, as in the paper. Seeds lie in the central square of an image and are 1/3 to 1/2 of it wide ("varying
  scales"; the range is unconfirmed). Positions are drawn in proportion to the patch's mean squared gradient, but that
  patches at the border are moved inside.
- Copies are drawn anew each time (8 an image and update), where the paper fixes 100-150 a class (unconfirmed). What a
  copy takes from outside the image is mirrored. Copies are sampled at twice their size and averaged, lest they alias.
- The backbone's normalisation stands in for subtracting the training set's mean at each pixel (unconfirmed).
- The network is the suite's backbone with one fully connected layer, twice as wide as its last stage (64 and 128, 256
  and 512, 512 and 1024 in the paper's networks), with BatchNorm, and dropout 0.5 before the output. On ResNets and NINs
  it takes the average over all places.
- 20 epochs over ImageNet are as many copies as the largest network's 1.5 million updates (unconfirmed) of 128
  (unconfirmed). The rate falls at 2/3 and 5/6: the paper lowers it late (unconfirmed).
- ``triplet``: copies come from the transformations above, not from Inception crops turned grey with probability 0.66.
  Embeddings are as wide as the fully connected layer (there 1,000), and of unit length over their features; that file
  normalises over axis 0, which is the batch. Its optimiser (35 epochs, 0.1 an update of 256) is not taken over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data import draws, transforms
from bench.data.hsv import hsv_to_rgb, rgb_to_hsv
from bench.errors import BenchError, did_you_mean
from bench.methods.base import SGD, Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Dataset, Sample

LOSSES = ("softmax", "triplet")
CLASSES = 8000
PATCH = 1 / 3
"""Side of a patch as the network sees it, of the backbone's crop."""
SEEDS = (1 / 3, 1 / 2)
"""Side of a seed, of the image."""
MARGIN = 0.5
"""Of the triplet loss."""
WAYS = 16
"""Seeds among which a copy is looked for."""


class Exemplar(PretextTask):
    """Options: ``loss``, ``softmax`` or ``triplet``; ``classes``, how many seeds ``softmax`` tells apart (8,000, or
    a twentieth of the images if that is less); ``copies`` of each seed in a batch."""

    title, citation, version = "Exemplar", "dosovitskiy2014discriminative", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=20,
        batch=64,
        optimiser=SGD(lr=0.01, momentum=0.9, schedule=MultiStep(at=(2 / 3, 5 / 6))),
        source="Dosovitskiy et al. 2014, section 3",
    )
    metric, chance = "retrieval", 0.0625

    seeds: Tensor
    class_of: Tensor
    mean: Tensor
    components: Tensor

    def __init__(self, backbone: Backbone, loss: str = "softmax", classes: int | None = None, copies: int = 8) -> None:
        super().__init__(backbone)
        if loss not in LOSSES:
            raise did_you_mean("loss of exemplar", loss, list(LOSSES))
        if copies < 2 or (classes is not None and classes < 2):
            raise BenchError("exemplar compares at least 2 copies of at least 2 classes")
        self.loss, self.classes, self.copies = loss, classes, copies
        self.patch = round(PATCH * backbone.input_side)
        last = backbone.shapes(self.patch)[backbone.stages[-1]]
        self.width = 2 * last.channels
        average = [nn.AdaptiveAvgPool2d(1)] if backbone.global_pool else []
        linear = nn.Linear(last.channels if average else math.prod(last), self.width, bias=False)
        self.fc = nn.Sequential(*average, nn.Flatten(), linear, nn.BatchNorm1d(self.width), nn.ReLU())
        if loss == "triplet":
            self.fc.append(nn.Linear(self.width, self.width))

    def setup(self, dataset: Dataset) -> None:
        """The seeds, the class of each image (-1: none), the colours' principal components, the output layer."""
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("components", torch.eye(3))
        if self.loss == "triplet":
            return
        count = self.classes or min(CLASSES, max(2, len(dataset) // 20))
        if count > len(dataset):
            raise BenchError(
                f"{count} classes need as many images, one seed each; there are {len(dataset)}",
                where=dataset.name,
                mend="lower the option classes, or use loss triplet",
            )
        self.register_buffer("seeds", torch.zeros(count, 3))
        self.register_buffer("class_of", torch.full((len(dataset),), -1))
        self.output = nn.Sequential(nn.Dropout(0.5), nn.Linear(self.width, count))

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """Principal components from 100 images; N seeds, one from each of N random images."""
        (images,) = draws.batches(dataset, self.backbone.input_side, count=1, size=100, generator=generator)
        pixels = images.transpose(0, 1).flatten(1).double() / 255
        self.mean.copy_(pixels.mean(1))
        self.components.copy_(torch.linalg.eigh(pixels.cov()).eigenvectors.T)
        if self.loss == "triplet":
            return
        chosen = torch.randperm(len(dataset), generator=generator)[: len(self.seeds)]
        self.class_of[chosen] = torch.arange(len(chosen), device=self.class_of.device)
        drawn = [
            draw_seeds(torch.stack([self._square(dataset[i].image) for i in part.tolist()]), generator)
            for part in chosen.split(256)
        ]
        self.seeds.copy_(torch.cat(drawn))

    def order(self, epoch: int, size: int, generator: torch.Generator) -> Tensor:
        """As many draws as there are images; with ``softmax`` all of images that have a class, equally often."""
        if self.loss == "triplet":
            return super().order(epoch, size, generator)
        images = (self.class_of >= 0).nonzero()[:, 0].cpu()
        rounds = -(-size // len(images))
        return torch.cat([images[torch.randperm(len(images), generator=generator)] for _ in range(rounds)])[:size]

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, H, H): the central square; the same each time, for seeds are places in it."""
        return self._square(sample.image)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over the surrogate classes, or the semi-hard triplet loss within the batch."""
        if self.loss == "triplet":
            features = self._describe(batch.views, draw_seeds(batch.views, generator), generator)
            positive, negative = distances(features)
            metrics = {"retrieval": retrieval(features), "ordered": ordered(positive, negative)}
            yield "main", Loss(semi_hard(positive, negative), metrics)
            return
        label = self.class_of[batch.index]
        features = self._describe(batch.views, self.seeds[label], generator)
        logits, labels = self.output(features.flatten(0, 1)), label.repeat_interleave(self.copies)
        metrics = {"retrieval": retrieval(features), "accuracy": (logits.argmax(1) == labels).float().mean()}
        yield "main", Loss(F.cross_entropy(logits, labels), metrics)

    def heldout(self, batch: Batch, step: Step, generator: torch.Generator) -> dict[str, Tensor]:
        """Retrieval and ordered triplets, with a seed drawn from each image: no class is asked for."""
        features = self._describe(batch.views, draw_seeds(batch.views, generator), generator)
        return {"retrieval": retrieval(features), "ordered": ordered(*distances(features))}

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image with its seed in a frame, then copies of the seed."""
        from torchvision.utils import draw_bounding_boxes

        seeds, side = draw_seeds(batch.views, generator), batch.views.shape[-1]
        x, y, half = ((seeds + torch.tensor([1, 1, 0], device=seeds.device)) * side / 2).unbind(1)
        boxes = torch.stack([x - half, y - half, x + half - 1, y + half - 1], 1).round()
        framed = [
            draw_bounding_boxes(image, box[None], colors="white")
            for image, box in zip(batch.views.cpu(), boxes.cpu(), strict=True)
        ]
        copies = (self._copies(batch.views, seeds, generator) * 255).round().byte()
        large = F.interpolate(copies, (side, side), mode="nearest").unflatten(0, (len(batch), self.copies))
        return torch.cat([torch.stack(framed)[:, None].to(large.device), large], 1)

    def _square(self, image: Tensor) -> Tensor:
        side = transforms.short_side(self.backbone.input_side)
        return transforms.center_crop(transforms.resize_short(image, side), side)

    def _describe(self, images: Tensor, seeds: Tensor, generator: torch.Generator) -> Tensor:
        """The network's description of K copies of each seed: (B, K, D)."""
        features = self.backbone(self._copies(images, seeds, generator), self.backbone.stages[-1:])
        return self.fc(features[self.backbone.stages[-1]]).float().unflatten(0, (-1, self.copies))

    def _copies(self, images: Tensor, seeds: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 images (B, 3, H, H), seeds (B, 3) -> copies in [0, 1], (B * K, 3, P, P), those of a seed together."""
        moved = cut(images.float() / 255, seeds, self.copies, self.patch, generator)
        return recolour(moved, self.mean, self.components, generator)


def draw_seeds(images: Tensor, generator: torch.Generator) -> Tensor:
    """A seed patch of each uint8 image (B, 3, H, H): (B, 3), its centre (x, y) and half side; the image is [-1, 1]^2.

    A pixel is drawn in proportion to its squared gradient, then one of the patches that contain it: so patches come
    in proportion to their mean squared gradient. A patch that would leave the image is moved inside.
    """
    grey = images.float().mean(1) / 255
    down, right = torch.gradient(grey, dim=(1, 2))
    energy = (down**2 + right**2 + 1e-12).flatten(1).to(generator.device)
    pixel = torch.multinomial(energy, 1, generator=generator)[:, 0]
    side = images.shape[-1]
    centre = torch.stack([pixel % side, pixel // side], 1).add(0.5) * 2 / side - 1
    half = _uniform(*SEEDS, (len(images), 1), generator)
    centre = centre + half * _uniform(-1, 1, (len(images), 2), generator)
    return torch.cat([torch.clamp(centre, half - 1, 1 - half), half], 1)


def cut(images: Tensor, seeds: Tensor, copies: int, side: int, generator: torch.Generator) -> Tensor:
    """Translated, scaled and rotated copies (B * copies, 3, side, side) of the seeds (B, 3) of images (B, 3, H, H)."""
    x, y, half = seeds.repeat_interleave(copies, 0).unbind(1)
    count = len(x)
    angle = _uniform(-20, 20, count, generator).deg2rad()
    extent = half / _log_uniform(0.7, 1.4, count, generator)
    shift_x, shift_y = 2 * half * _uniform(-0.2, 0.2, (2, count), generator)
    cos, sin = extent * angle.cos(), extent * angle.sin()
    theta = torch.stack([cos, -sin, x + shift_x, sin, cos, y + shift_y], 1).view(count, 2, 3)
    grid = F.affine_grid(theta, [count, 1, 2 * side, 2 * side], align_corners=False)
    rows = grid.view(len(images), copies * 2 * side, 2 * side, 2)  # all copies of an image in one sampling of it
    sampled = F.grid_sample(images, rows, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(sampled, 2).unflatten(2, (copies, side)).transpose(1, 2).flatten(0, 1)


def recolour(patches: Tensor, mean: Tensor, components: Tensor, generator: torch.Generator) -> Tensor:
    """RGB patches (B, 3, P, P) in [0, 1] with contrast and colour changed, one draw a patch.

    ``mean`` (3,) and ``components`` (3, 3), one a row, are those of the data's colours.
    """
    count = len(patches)
    factors = _log_uniform(0.5, 2, (count, 3, 1), generator)
    centred = patches.flatten(2) - mean[:, None]
    with torch.autocast(patches.device.type, enabled=False):  # bfloat16 is too coarse for colours
        changed = mean[:, None] + components.T @ (factors * (components @ centred))
    hue, *others = rgb_to_hsv(changed.clamp(0, 1).view_as(patches)).unbind(1)
    powers = _log_uniform(0.25, 4, (2, count, 1, 1), generator)
    factors = _log_uniform(0.7, 1.4, (2, count, 1, 1), generator)
    added = _uniform(-0.1, 0.1, (3, count, 1, 1), generator)
    saturation, value = ((x**p * f + a).clamp(0, 1) for x, p, f, a in zip(others, powers, factors, added, strict=False))
    return hsv_to_rgb(torch.stack([hue + added[2], saturation, value], 1))


def distances(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (B, K, D) of K copies of B seeds -> squared distances on the unit sphere from each of the B * K
    anchors to its positives, (B * K, K - 1), and to its negatives, (B * K, (B - 1) * K).

    Raises:
        BenchError: one seed only, which leaves no negative.
    """
    seeds, copies = embeddings.shape[:2]
    if seeds < 2:
        raise BenchError("triplets need a batch of at least 2 images")
    unit = F.normalize(embeddings.flatten(0, 1), dim=1)
    with torch.autocast(unit.device.type, enabled=False):  # small differences of distances count
        squared = 2 - 2 * unit @ unit.T
    seed = torch.arange(seeds, device=unit.device).repeat_interleave(copies)
    same = seed[:, None] == seed
    positive = same & ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return squared[positive].view(len(unit), -1), squared[~same].view(len(unit), -1)


def semi_hard(positive: Tensor, negative: Tensor) -> Tensor:
    """The mean over all (anchor, positive) of max(0, margin + d(positive) - d(negative)); the negative is the nearest
    that is farther than the positive, or the farthest of all where none is (Schroff et al. 2015)."""
    farther = torch.where(negative[:, None] > positive[:, :, None], negative[:, None], torch.inf).amin(2)
    chosen = torch.where(farther.isinf(), negative.amax(1, keepdim=True), farther)
    return (MARGIN + positive - chosen).relu().mean()


def ordered(positive: Tensor, negative: Tensor) -> Tensor:
    """The share of triplets whose positive is nearer than their negative."""
    return (positive[:, :, None] < negative[:, None]).float().mean()


def retrieval(features: Tensor) -> Tensor:
    """The share of second copies (B, K, D) whose nearest first copy, among 16 seeds (all, if fewer), is their own."""
    unit = F.normalize(features, dim=2)
    seed = torch.arange(len(unit), device=unit.device)
    others = (seed[:, None] + torch.arange(1, max(2, min(WAYS, len(unit))), device=unit.device)) % len(unit)
    own = (unit[:, 1] * unit[:, 0]).sum(1)
    nearest_other = (unit[:, 1, None] * unit[:, 0][others]).sum(2).amax(1)
    return (own > nearest_other).float().mean()


def _uniform(low: float, high: float, size: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator, device=generator.device)


def _log_uniform(low: float, high: float, size: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return _uniform(math.log(low), math.log(high), size, generator).exp()
