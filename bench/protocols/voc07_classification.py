"""VOC2007 classification: how well the weights serve when the net is fine-tuned to say which of 20 classes are there.

An AlexNet's weights are prepared (:mod:`bench.protocols.transfer`: BatchNorm absorbed, fc6 and fc7 put on, all layers
scaled to learn at one pace), 20 sigmoids are put on top, and the net is trained on trainval by the cross-entropy summed
over classes: only fc6 to fc8 (column group ``fc6-8``), or everything (``all``). The score of a test image is the sum of
its scores in ten random crops. The number is the mean over classes of the average precision on test. An image in which
a class is there only as a difficult object counts for nothing in that class, neither in training nor in testing. The
settings train side by side, each on its own copy of the net and on the same crops. Nothing is chosen: one rate, all of
trainval, last iteration.

ResNets keep their BatchNorm and are fine-tuned as a whole, as in Goyal et al. 2019 (their "legacy task").

Papers: Kraehenbuehl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural Networks" (ICLR
2016), section 5, and philkr/voc-classification, whose protocol the tables up to 2018 share; Caron et al., "Deep
Clustering" (ECCV 2018), whose port to PyTorch, facebookresearch/deepcluster ``eval_voc_classif.py``, gives ``standard``
its crops.

Evidence: ``scores`` float32 (settings, N, 20), ``truth`` int8 (N, 20) with 1 there, 0 not there, -1 not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data import transforms
from bench.data.annotation import AnnotatedDataset, presence
from bench.data.base import Sample
from bench.metrics.average_precision import mean_ap, rank_images
from bench.metrics.intervals import column
from bench.protocols.base import Column, Evidence, Measured, text
from bench.protocols.finetune import Downstream, Evaluation, Nets
from bench.protocols.multilabel import AreaCrops, CentreCrop, FineTuning, NormalOutput
from bench.protocols.transfer import freeze_
from bench.training import optim
from bench.training.recipe import Optimiser
from bench.training.task import Batch, Loss, Step

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from bench.backbones.base import Backbone


class Voc07Classification(Downstream):
    """Columns ``map@<setting>`` and ``ap_<class>@<setting>``."""

    title, citation, version = "VOC2007 classification", "krahenbuhl2016data", 1
    role = "voc07"
    schema = "bench.protocols.multilabel:FineTuning"
    statistic = "bench.protocols.statistics:of_scores"

    spec: FineTuning

    def measure(self, run: Evaluation) -> Measured:
        """Fine-tune every setting, score ``test``."""
        spec, ready = self.spec, run.prepared()
        run.note(ready.told())
        task = FineTuned(ready.backbone, spec, torch.from_numpy(_labels(run.train)))
        training = run.fit(task)
        scores = run.over_test(task, task.scores, max(1, (run.how.micro_batch or 160) // task.test_crops))
        evidence: Evidence = {
            "scores": np.ascontiguousarray(scores.astype(np.float32).transpose(1, 0, 2)),
            "truth": _labels(run.test),
            **self.names(run.test),
            "ap": text(spec.ap),
            "tie_break": np.array(spec.tie_break),
        }
        return self.measured(evidence, run.test, {**training, "transfer": ready.record})

    @staticmethod
    def columns(evidence: Evidence) -> dict[str, Column]:
        """Of every setting the mean average precision, and that of each class; chance is to score all images alike."""
        truth, kind = evidence["truth"], str(evidence["ap"])
        share = (truth == 1).sum(0) / np.maximum(1, (truth >= 0).sum(0))
        found: dict[str, Column] = {}
        for setting, scores in zip(evidence["settings"].tolist(), evidence["scores"], strict=True):
            ranked = rank_images(scores, truth, tie_break=bool(evidence["tie_break"]))
            found[f"map@{setting}"] = column(mean_ap([ranked], kind), len(truth), share[share > 0].mean())
            for name, one, chance in zip(evidence["classes"].tolist(), ranked.classes, share, strict=True):
                if chance:  # otherwise no image of the test set shows it
                    alone = mean_ap([replace(ranked, classes=(one,))], kind)
                    found[f"ap_{name}@{setting}"] = column(alone, len(truth), chance)
        return found

    @staticmethod
    def contradicted(evidence: Evidence, test: AnnotatedDataset) -> list[str]:
        """Which of the classes each image shows."""
        wrong = int((evidence["truth"] != _labels(test)).any(1).sum())
        return [f"the evidence contradicts the annotations of {wrong} images"] if wrong else []


class Classifier(nn.Module):
    """A prepared backbone, its fc6 and fc7 or else the average over all places, and one output a class."""

    def __init__(self, backbone: Backbone, spec: FineTuning, classes: int) -> None:
        super().__init__()
        self.backbone, self.stage = backbone, backbone.stages[-1]
        device = next(backbone.parameters()).device
        blank = torch.zeros(1, 3, backbone.input_side, backbone.input_side, device=device)
        with torch.no_grad():
            features = self.features(blank).shape[1]
        self.output = nn.Linear(features, classes, device=device)
        if isinstance(spec.output, NormalOutput):
            nn.init.normal_(self.output.weight, std=spec.output.std)
        nn.init.constant_(self.output.bias, spec.output.bias)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D)."""
        last = self.backbone(images, (self.stage,))[self.stage]
        return last.mean((2, 3)) if self.backbone.fc is None else self.backbone.fc(last)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, classes), ahead of the sigmoid."""
        return self.output(self.features(images)).float()


class FineTuned(Nets):
    """Every setting's classifier.

    ``labels`` is int8 (N, classes), one row an image of the training set.
    """

    labels: Tensor

    def __init__(self, backbone: Backbone, spec: FineTuning, labels: Tensor) -> None:
        super().__init__(
            Classifier(backbone, spec, labels.shape[1]),
            spec.settings,
            lambda net, frozen: freeze_(net.backbone, frozen, affine=not spec.frozen_affine),
            fixed=spec.statistics == "fixed",
        )
        self.spec, self.side = spec, backbone.input_side
        self.register_buffer("labels", labels, persistent=False)

    @property
    def test_crops(self) -> int:
        """Crops of a test image."""
        return 1 if isinstance(self.spec.test, CentreCrop) else self.spec.test.crops

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a random crop of the image, perhaps mirrored."""
        crop = random_crop(sample.image, self.side, self.spec, generator)
        return transforms.flip(crop, generator) if self.spec.flip else crop

    def test_view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (crops, 3, S, S)."""
        how = self.spec.test
        if isinstance(how, CentreCrop):
            short = round(self.side * how.short)
            image = transforms.resize_short(sample.image, short, self.spec.kernel, self.spec.antialias)
            return transforms.center_crop(image, self.side)[None]
        return torch.stack([self.view(sample, generator) for _ in range(how.crops)])

    def scores(self, batch: Batch) -> Tensor:
        """Of every setting, summed over an image's crops: (B, settings, classes)."""
        views = batch.views.flatten(0, 1)
        each = [net(views).unflatten(0, (-1, self.test_crops)).sum(1) for net in self.nets.values()]
        return torch.stack(each, 1)

    def optimiser_of(self, name: str, spec: Optimiser, parameters: Iterable[Parameter]) -> Optimizer:
        """SGD; the biases as the variant says."""
        groups = optim.with_biases(self.nets[name], spec, self.spec.bias_rate, self.spec.bias_decay)
        return optim.build(spec, groups)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """The cross-entropy of every setting."""
        labels = self.labels[batch.index]
        for name, net in self.nets.items():
            yield name, Loss(cross_entropy(net(batch.views), labels, self.spec.loss))


def cross_entropy(scores: Tensor, labels: Tensor, over_classes: str) -> Tensor:
    """Of sigmoids, the ``sum`` or ``mean`` over classes and then the mean over images; labels of -1 count for nothing.

    (B, classes) and int8 (B, classes) -> ().
    """
    each = F.binary_cross_entropy_with_logits(scores, labels.clamp(min=0).to(scores), reduction="none")
    of_images = each.masked_fill(labels < 0, 0.0).sum(1).mean()
    return of_images / labels.shape[1] if over_classes == "mean" else of_images


def random_crop(image: Tensor, side: int, spec: FineTuning, generator: np.random.Generator) -> Tensor:
    """uint8 (3, H, W) -> (3, side, side), as the variant draws it."""
    how = spec.train
    if isinstance(how, AreaCrops):
        return transforms.random_resized_crop(image, side, generator, how.area, how.ratio, spec.kernel, spec.antialias)
    largest = min(how.scale[1], min(image.shape[1:]) / side)
    smallest = min(how.scale[0], largest)
    window = round(side * (smallest + (largest - smallest) * generator.random()))
    crop = transforms.random_crop(image, window, generator)
    return transforms.resize(crop, (side, side), spec.kernel, spec.antialias)


def _labels(dataset: AnnotatedDataset) -> NDArray[np.int8]:
    """(N, classes): which classes each image shows."""
    return presence(dataset.annotations, len(dataset.classes))
