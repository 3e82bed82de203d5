"""VOC2007 detection: how well the weights serve in a detector that is trained to find the objects of 20 classes.

An AlexNet's weights are prepared (:mod:`bench.protocols.transfer`: BatchNorm absorbed, fc6 and fc7 put on, all layers
scaled to learn at one pace) and become a Fast R-CNN: conv5 of the whole image, RoIPool over Selective Search proposals,
fc6, fc7, a class and a box for each; conv1 stays as it is. It is trained at five image sizes and tested at one. ResNets
become a Faster R-CNN on res4 (C4), as in MoCo. The detectors are detectron2's (:mod:`bench.engines.detectron2`), the
training is ours. The number is the mean over classes of the average precision on test, where a hit overlaps its object
by more than 0.5. Nothing is chosen: one rate, all of trainval, last iteration.

Chance is the trivial predictor, which scores every proposal (a detector with proposals of its own: the whole image)
for every class alike, by the class's share of the objects.

Papers: Girshick, "Fast R-CNN" (ICCV 2015), and rbgirshick/fast-rcnn; Kraehenbuehl, Doersch, Donahue, Darrell,
"Data-dependent Initializations of Convolutional Neural Networks" (ICLR 2016), section 5, whose training at several
sizes the tables up to 2018 share; He, Fan, Wu, Xie, Girshick, "Momentum Contrast" (CVPR 2020), appendix, for ResNets.

Evidence: of every setting at most 100 detections an image, as :mod:`bench.metrics.detection_evidence` keeps them, and
the objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.data.annotation import AnnotatedDataset
from bench.data.base import Dataset, Sample
from bench.data.loader import Loader
from bench.data.proposals import Proposals, SelectiveSearch, compute, load
from bench.metrics.average_precision import (
    COCO_THRESHOLDS,
    Detections,
    Objects,
    mean_ap,
    objects,
    rank_detections_at,
)
from bench.metrics.detection_evidence import MOST, by_setting, compact, compact_objects, restore_objects
from bench.metrics.intervals import column
from bench.paths import cache_root
from bench.protocols.base import Column, Evidence, Measured, text
from bench.protocols.detection import Detection, FastRcnn
from bench.protocols.finetune import Downstream, Evaluation, Nets
from bench.protocols.transfer import freeze_
from bench.training import optim
from bench.training.device import derive
from bench.training.recipe import Optimiser
from bench.training.task import Batch, Loss, Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from bench.backbones.base import Backbone
    from bench.engines.detectron2 import GeneralizedRCNN, Scaled
    from bench.metrics.average_precision import Ranked
    from bench.runfolder import Attempt
    from bench.training.loop import Execution

_SOON = 100e6
"""Pixels that are searched for proposals within some minutes, when a run first needs them."""


class Voc07Detection(Downstream):
    """Columns ``map@<setting>``, ``ap_<class>@<setting>`` and, of ResNets, ``ap``, ``ap50`` and ``ap75``."""

    title, citation, version = "VOC2007 detection", "girshick2015fast", 1
    role = "voc07"
    schema = "bench.protocols.detection:Detection"
    statistic = "bench.protocols.statistics:of_detections"
    engine = "detectron2"

    spec: Detection

    def measure(self, run: Evaluation) -> Measured:
        """Train every setting's detector, run it over ``test``.

        Raises:
            BenchError: many images lack proposals.
        """
        from bench.engines import detectron2 as engine

        spec, train, test = self.spec, run.train, run.test
        proposals = [self._proposals(data, i, run.fabric, run.attempt, run.how) for i, data in enumerate((train, test))]
        ready = run.prepared()
        detector, config = engine.detector(ready.backbone, spec, len(train.classes))
        run.note(f"{ready.told()}; all of them are in the detector")
        run.write("detectron2.yaml", engine.text(config))
        if spec.statistics == "batch":
            detector = run.over_processes(detector)
        task = Detectors(detector, ready.backbone, spec, (train, proposals[0]), (test, proposals[1]))
        training = run.fit(task)
        task.average_statistics_(train, seed=run.seed, fabric=run.fabric, how=run.how)
        evidence = {
            **_packed(run.over_test(task, task.detections, 1), len(test)),
            **compact_objects(objects(test.annotations)),
            "chance": chance(proposals[1], test, self.thresholds, spec.ap),
            **self.names(test),
            "thresholds": np.array(self.thresholds),
            "ap": text(spec.ap),
        }
        told = {"engine": f"detectron2 {engine.VERSION}", "transfer": ready.record}
        if proposals[0] is not None and proposals[1] is not None:
            told["proposals"] = {"train": proposals[0].digest, "test": proposals[1].digest}
        return self.measured(evidence, test, {**training, **told})

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of the overlaps at which hits are counted."""
        return COCO_THRESHOLDS if self.spec.coco else COCO_THRESHOLDS[:1]

    def _proposals(
        self, dataset: AnnotatedDataset, which: int, fabric: Fabric, attempt: Attempt, how: Execution
    ) -> Proposals | None:
        """Those of a data set, ``which`` is 0 for training and 1 for test; None: the detector has its own.

        A few that are missing are found here, by the first process; many would keep a GPU waiting for hours.
        """
        net = self.spec.net
        if not isinstance(net, FastRcnn):
            return None
        if net.published:
            from bench.data.published_proposals import read

            return read(Path(net.published[which]), dataset)
        search = SelectiveSearch(net.search, net.search_short or None, net.proposals)
        cache = cache_root(attempt.folder.path.parent)
        if _pixels(dataset, net.search_short) <= _SOON:
            if fabric.is_global_zero:
                attempt.folder.note(
                    f"{dataset.name}: proposals by Selective Search ({search}), found where they are missing"
                )
            with fabric.rank_zero_first():
                return compute(dataset, search, cache, workers=how.workers)
        return load(dataset, search, cache)

    @staticmethod
    def columns(evidence: Evidence) -> dict[str, Column]:
        """Of every setting the mean average precision, that of each class, and COCO's numbers where there are any."""
        truth, kind, thresholds = restore_objects(evidence), str(evidence["ap"]), evidence["thresholds"].tolist()
        classes, by_chance = evidence["classes"].tolist(), evidence["chance"]
        found: dict[str, Column] = {}

        def add(name: str, ranked: Sequence[Ranked], chances: NDArray[np.float64]) -> None:
            found[name] = column(mean_ap(ranked, kind), truth.images, float(np.nanmean(chances)))

        for setting, detections in by_setting(evidence).items():
            every = rank_detections_at(detections, truth, len(classes), thresholds)
            add(f"map@{setting}", every[:1], by_chance[:1])
            if len(every) > 1:
                add(f"ap@{setting}", every, by_chance)
                for percent in (50, 75):
                    at = [thresholds.index(percent / 100)]
                    add(f"ap{percent}@{setting}", [every[at[0]]], by_chance[at])
            for k, name in enumerate(classes):
                if not np.isnan(by_chance[0, k]):  # otherwise no image of the test set shows it
                    alone = replace(every[0], classes=(every[0].classes[k],))
                    add(f"ap_{name}@{setting}", [alone], by_chance[:1, k])
        return found

    @staticmethod
    def contradicted(evidence: Evidence, test: AnnotatedDataset) -> list[str]:
        """The objects of each image."""
        truth = compact_objects(objects(test.annotations))
        wrong = [key for key, value in truth.items() if not np.array_equal(evidence[key], value)]
        return [f"the evidence contradicts the annotations ({', '.join(wrong)})"] if wrong else []


class Detectors(Nets):
    """Every setting's detector.

    Args:
        detector: as :func:`bench.engines.detectron2.detector` builds it on ``backbone``.
        train, test: a data set and its proposals, which are looked up by a sample's position.
    """

    def __init__(
        self,
        detector: nn.Module,
        backbone: Backbone,
        spec: Detection,
        train: tuple[AnnotatedDataset, Proposals | None],
        test: tuple[AnnotatedDataset, Proposals | None],
    ) -> None:
        from bench.engines import detectron2

        def freeze(net: GeneralizedRCNN, frozen: tuple[str, ...]) -> None:
            freeze_(backbone, frozen)
            if spec.statistics == "frozen":
                for norm in _norms(backbone):
                    norm.requires_grad_(False)
            detectron2.freeze_(net, backbone)

        super().__init__(detector, spec.settings, freeze, fixed=spec.statistics != "batch")
        self.spec, self.engine = spec, detectron2
        self._train, self._test = _Known(*train), _Known(*test)

    def view(self, sample: Sample, generator: np.random.Generator) -> dict[str, Any]:
        """The image at one of the training sizes, perhaps mirrored, with what is there to be learned.

        Of fixed size, so that it can be stacked with others: see :meth:`_Known.padded`.
        """
        spec, known = self.spec, self._train.of(sample, difficult=self.spec.difficult)
        short = spec.train_short[int(generator.random() * len(spec.train_short))]
        mirrored = spec.flip and generator.random() < 0.5
        keep = self._train.most_proposals
        found = self.engine.scaled(known, short, spec.train_long, mirrored=mirrored, proposals=keep)
        return self._train.padded(found, max(spec.train_short) * spec.train_long)

    def test_view(self, sample: Sample, generator: np.random.Generator) -> dict[str, Any]:
        """The image at the test size."""
        spec, known = self.spec, self._test.of(sample, difficult=True)
        found = self.engine.scaled(known, spec.test_short, spec.test_long, proposals=self._test.most_proposals)
        return self._test.padded(found, spec.test_short * spec.test_long)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """The sum of detectron2's losses, of every setting. Regions are drawn by torch's global generator."""
        shown = self._unpadded(batch)
        for name, net in self.nets.items():
            parts = self.engine.losses(net, shown)
            metrics = {f"{part}_{name}": value.detach() for part, value in parts.items()}
            yield name, Loss(torch.stack(list(parts.values())).sum(), metrics)

    def detections(self, batch: Batch) -> Tensor:
        """Of every setting, what it finds: (B, settings, 100, 6); rows without a detection have the label -1."""
        rows = torch.full((len(batch), len(self.nets), MOST, 6), -1.0)
        for row, index, one in zip(rows, batch.index.tolist(), self._unpadded(batch), strict=True):
            known = self._test.dataset.annotations[index]
            for of_setting, net in zip(row, self.nets.values(), strict=True):
                found = self.engine.detect(net, one, known.height, known.width)
                of_setting[: len(found)] = found.cpu()
        return rows

    def optimiser_of(self, name: str, spec: Optimiser, parameters: Iterable[Parameter]) -> Optimizer:
        """SGD; biases and BatchNorms as the variant says."""
        return optim.build(spec, self.engine.parameter_groups(self.nets[name], self.spec))

    def average_statistics_(self, dataset: Dataset, *, seed: int, fabric: Fabric, how: Execution) -> None:
        """BatchNorm's running statistics become the average over some batches, where the variant says so.

        As detectron2's ``PreciseBN``.
        """
        spec = self.spec
        norms = [norm for norm in _norms(self.train()) if norm.training]
        if not (spec.precise and norms):
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        own = derive(seed, "statistics")
        torch.manual_seed(derive(own, fabric.global_rank))
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(own))
        loader = Loader(
            dataset,
            self.view,
            seed=own,
            batch=spec.batch,
            micro_batch=how.micro_batch,
            workers=how.workers,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        with loader, torch.no_grad(), fabric.autocast():
            for batch in islice(loader.epoch(0, order), spec.precise * loader.micros_per_update):
                shown = self._unpadded(batch.to(fabric.device))
                for net in self.nets.values():
                    self.engine.losses(net, shown)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _unpadded(self, batch: Batch) -> list[Scaled]:
        views = batch.views
        sizes, counts, proposed = (views[key].tolist() for key in ("size", "objects", "proposed"))
        return [
            self.engine.Scaled(
                views["pixels"][i, : 3 * height * width].view(3, height, width),
                views["boxes"][i, :some],
                views["labels"][i, :some],
                views["proposals"][i, :many],
            )
            for i, ((height, width), some, many) in enumerate(zip(sizes, counts, proposed, strict=True))
        ]


class _Known:
    """What is known of the images of a data set: their objects, and their proposals."""

    def __init__(self, dataset: AnnotatedDataset, proposals: Proposals | None) -> None:
        self.dataset, self.proposals = dataset, proposals
        self.most_objects = max(len(known.labels) for known in dataset.annotations)
        self.most_proposals = 0 if proposals is None else max(map(len, proposals))

    def of(self, sample: Sample, *, difficult: bool) -> Scaled:
        """The sample with its objects, difficult ones where they are wanted, and its proposals."""
        from bench.engines.detectron2 import Scaled

        known = self.dataset.annotations[sample.index]
        wanted = np.ones(len(known.labels), bool) if difficult else ~known.difficult
        proposed = np.zeros((0, 4), np.float32) if self.proposals is None else self.proposals[sample.index]
        boxes, labels = known.boxes[wanted], known.labels[wanted]
        return Scaled(sample.image, *(torch.from_numpy(np.array(x)) for x in (boxes, labels, proposed)))

    def padded(self, found: Scaled, pixels: int) -> dict[str, Any]:
        """``pixels`` uint8 (3 * ``pixels``,), ``boxes``, ``labels`` and ``proposals`` filled up to the most there are.

        How much of each is real is in ``size`` (height and width), ``objects`` and ``proposed``.
        """
        return {
            "pixels": _filled(found.image.flatten(), 3 * pixels),
            "size": torch.tensor(found.image.shape[1:]),
            "boxes": _filled(found.boxes, self.most_objects),
            "labels": _filled(found.labels, self.most_objects),
            "objects": len(found.labels),
            "proposals": _filled(found.proposals, self.most_proposals),
            "proposed": len(found.proposals),
        }


def chance(
    proposals: Proposals | None, test: AnnotatedDataset, thresholds: Sequence[float], kind: str
) -> NDArray[np.float64]:
    """(thresholds, classes): the AP, 0 to 1, of whoever scores all proposals of a class alike; NaN where it is absent.

    Without proposals, of whoever says that the whole image is an object. Of equal scores the first comes first, in the
    order of the images and of their proposals.
    """
    if proposals is None:
        whole = [np.array([[0, 0, known.width, known.height]], np.float32) for known in test.annotations]
        proposals = Proposals(whole)
    image = np.repeat(np.arange(len(test)), [len(boxes) for boxes in proposals])
    boxes = np.concatenate(list(proposals)).astype(np.float64)
    every = objects(test.annotations)
    found = np.empty((len(thresholds), len(test.classes)))
    for label in range(len(test.classes)):
        mine = every.labels == label
        truth = Objects(
            every.image[mine], every.labels[mine] * 0, every.boxes[mine], every.difficult[mine], every.images
        )
        same = Detections(image, np.zeros(len(image), np.int64), np.zeros(len(image)), boxes)
        found[:, label] = [ranked.ap(kind)[0] for ranked in rank_detections_at(same, truth, 1, thresholds)]
    return found


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def _pixels(dataset: AnnotatedDataset, short: int) -> float:
    """Of all images, as they are searched."""
    sizes = np.array([(known.height, known.width) for known in dataset.annotations], np.float64)
    shrunk = np.minimum(1, short / sizes.min(1)) if short else np.ones(len(sizes))
    return float((sizes.prod(1) * shrunk**2).sum())


def _filled(values: Tensor, length: int) -> Tensor:
    filled = values.new_zeros(length, *values.shape[1:])
    filled[: len(values)] = values
    return filled


def _packed(rows: NDArray[np.float32], count: int) -> Evidence:
    """Rows (N, settings, 100, 6) as evidence: setting after setting, ``count`` uint8 (settings, N)."""
    parts = []
    for of_setting in rows.transpose(1, 0, 2, 3):
        image, place = np.nonzero(of_setting[..., 0] >= 0)
        there = of_setting[image, place].astype(np.float64)
        parts.append(compact(Detections(image, there[:, 0].astype(np.int64), there[:, 1], there[:, 2:]), count))
    joined = {key: np.concatenate([part[key] for part in parts]) for key in ("label", "score", "box")}
    return {"count": np.stack([part["count"] for part in parts]), **joined}
