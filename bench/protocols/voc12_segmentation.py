"""VOC2012 segmentation: how well the weights serve when the net is fine-tuned to say of each pixel what it shows.

An AlexNet's weights are prepared (:mod:`bench.protocols.transfer`: BatchNorm absorbed, fc6 and fc7 put on, all layers
scaled to learn at one pace), fc6 and fc7 become convolutions, one score for each of 20 classes and background is put
on top and upsampled to the image by a fixed bilinear filter: FCN-32s. It is trained on whole images of their own size
by the cross-entropy, the mean over an image's pixels, without those marked 255, and then over the images of an update:
only fc6 to fc8 (column group ``fc6-8``), or everything (``all``). The Caffe recipe shows one image at a time and adds
up the gradients of 20 (``iter_size``); so here, and a padded batch would not compute the same. The number is the mean
over classes of intersection over union, from one confusion matrix over the test set. The settings train side by side,
each on its own copy of the net and on the same images. Nothing is chosen: one rate, all of train, last iteration.

ResNets keep their BatchNorm and become mmsegmentation's FCN, on crops. Models, losses and inference are
mmsegmentation's (:mod:`bench.engines.mmseg`), the training is ours.

Papers: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015; Shelhamer et al.,
PAMI 2017), with shelhamer/fcn.berkeleyvision.org; Zhang, Isola, Efros, "Colorful Image Colorization" (ECCV 2016),
section 3.2, whose schedule the tables up to 2019 share. Train: SBD's 8,498 training images; test: the 736 validation
images of VOC2011 that SBD does not train on (``seg11valid``).

Evidence: for every setting, and in it for every image, the cells of its confusion matrix that are not zero
(:class:`bench.metrics.miou.Confusions`): ``cells`` uint16 (settings, N), ``cell`` uint16 and ``pixels`` uint32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.data import transforms
from bench.data.annotation import IGNORED, AnnotatedDataset
from bench.data.base import Dataset, Sample
from bench.metrics.intervals import columns
from bench.metrics.miou import Confusions, by_setting, confusion
from bench.protocols.base import Column, Evidence, Measured
from bench.protocols.finetune import Downstream, Evaluation, Nets
from bench.protocols.segmentation import Crops, Longest, Segmentation, Short, WholeImages
from bench.protocols.transfer import freeze_
from bench.training import optim
from bench.training.recipe import Optimiser
from bench.training.task import Batch, Loss, Step

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from bench.engines.mmseg import EncoderDecoder

BACKGROUND = "background"
CONFIG = "mmsegmentation.yaml"
"""The file in the run's folder that holds the model's resolved configuration."""


class Voc12Segmentation(Downstream):
    """Columns ``miou@<setting>`` and ``iou_<class>@<setting>``."""

    title, citation, version = "VOC2012 segmentation", "shelhamer2017fully", 1
    role = "voc12"
    schema = "bench.protocols.segmentation:Segmentation"
    statistic = "bench.protocols.statistics:of_confusions"
    engine, truth, example = "mmsegmentation", "masks", "voc2012"

    spec: Segmentation

    def measure(self, run: Evaluation) -> Measured:
        """Fine-tune every setting, segment ``test``."""
        from bench.engines import mmseg

        spec, ready = self.spec, run.prepared()
        model, config = mmseg.segmenter(ready.backbone, spec.net, 1 + len(run.train.classes))
        arrived = f"{len(mmseg.ours(model))} of {len(ready.backbone.state_dict())} tensors"
        run.note(f"{ready.told()}; mmsegmentation {mmseg.VERSION} has {arrived}")
        run.write(CONFIG, mmseg.text(config))
        task = FineTuned(run.over_processes(model), spec, _Masked(run.train), _Masked(run.test))
        training = run.fit(task)
        matrices = run.over_test(task, task.confusions, run.how.micro_batch or 4)
        found = Confusions.of(matrices.astype(np.int64).swapaxes(0, 1).reshape(-1, *matrices.shape[2:]))
        evidence: Evidence = {
            "cells": found.cells.reshape(len(spec.settings), -1),
            "cell": found.cell,
            "pixels": found.pixels,
            **self.names(run.test),
        }
        told = {"engine": f"mmsegmentation {mmseg.VERSION}", "matched": arrived, "transfer": ready.record}
        return self.measured(evidence, run.test, {**training, **told})

    @staticmethod
    def columns(evidence: Evidence) -> dict[str, Column]:
        """Of every setting the mean IoU, and that of each class; chance is to take everything for background.

        A class that is neither there nor ever predicted has no column.
        """
        found: dict[str, Column] = {}
        names = ["miou", *(f"iou_{name}" for name in evidence["classes"].tolist())]
        for setting, confusions in by_setting(evidence).items():
            each = columns(partial(_ious, confusions), confusions.images, _all_background(confusions))
            found |= {f"{name}@{setting}": one for name, one in zip(names, each, strict=True) if one}
        return found

    @staticmethod
    def classes(test: Dataset) -> list[str]:
        """The data set's, after the background."""
        return [BACKGROUND, *test.classes]

    @staticmethod
    def contradicted(evidence: Evidence, test: AnnotatedDataset) -> list[str]:
        """How many pixels of each class every image has."""
        masks, count = (test.mask(index) for index in range(len(test))), 1 + len(test.classes)
        truth = np.stack([np.bincount(mask[mask != IGNORED], minlength=count) for mask in masks])
        found = []
        for setting, confusions in by_setting(evidence).items():
            if wrong := int((_truth(confusions) != truth).any(1).sum()):
                found.append(f"the evidence for {setting} contradicts the masks of {wrong} images")
        return found


class FineTuned(Nets):
    """Every setting's model of mmsegmentation."""

    def __init__(self, start: EncoderDecoder, spec: Segmentation, train: _Masked, test: _Masked) -> None:
        super().__init__(start, spec.settings, lambda net, frozen: freeze_(net.backbone.net, frozen))
        self.spec, self.data, self.classes = spec, {"train": train, "test": test}, start.num_classes

    def view(self, sample: Sample, generator: np.random.Generator) -> dict[str, Any]:
        """An image and its mask, padded to the size of the largest, and how much of both is the image.

        ``image`` uint8 (3, H, W), ``mask`` uint8 (H, W), ``size`` int64 (2,).
        """
        train, how = self.data["train"], self.spec.train
        mask = torch.from_numpy(train.mask(sample.index))[None]
        size, room = self.spec.size.of(*mask.shape[1:]), train.largest(self.spec.size)
        if isinstance(how, Crops):
            scale = generator.uniform(*how.scale)
            size, room = (round(size[0] * scale), round(size[1] * scale)), (how.side, how.side)
        image = transforms.resize(sample.image, size, self.spec.kernel, self.spec.antialias)
        mask = transforms.resize(mask, size, "nearest")
        if isinstance(how, Crops):
            image, mask = _random_crop(image, mask, how.side, generator)
        shown = torch.tensor(mask.shape[1:])
        return {"image": transforms.pad(image, room), "mask": transforms.pad(mask, room)[0], "size": shown}

    def test_view(self, sample: Sample, generator: np.random.Generator) -> dict[str, Any]:
        """The same, the mask at its own size, ``mask_size``."""
        test = self.data["test"]
        mask = torch.from_numpy(test.mask(sample.index))
        size = self.spec.size.of(*mask.shape)
        image = transforms.resize(sample.image, size, self.spec.kernel, self.spec.antialias)
        return {
            "image": transforms.pad(image, test.largest(self.spec.size)),
            "mask": transforms.pad(mask, test.largest()),
            "size": torch.tensor(size),
            "mask_size": torch.tensor(mask.shape),
        }

    def optimiser_of(self, name: str, spec: Optimiser, parameters: Iterable[Parameter]) -> Optimizer:
        """SGD; the scores' biases as the variant says."""
        bias = self.nets[name].get_parameter("decode_head.conv_seg.bias")
        decay = spec.weight_decay * self.spec.output_bias_decay
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p is not bias]},
            {"params": [bias], "times": self.spec.output_bias_rate, "weight_decay": decay},
        ]
        return optim.build(spec, groups)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """The cross-entropy of every setting, and the share of pixels that are right."""
        from bench.engines import mmseg

        sizes = batch.views["size"].tolist()
        shown = [image[:, :h, :w] for image, (h, w) in zip(batch.views["image"], sizes, strict=True)]
        masks = [mask[:h, :w] for mask, (h, w) in zip(batch.views["mask"], sizes, strict=True)]
        together = 1 if isinstance(self.spec.train, WholeImages) else len(sizes)
        groups = [slice(start, start + together) for start in range(0, len(sizes), together)]
        for name, net in self.nets.items():
            found = [mmseg.losses(net, shown[group], masks[group]) for group in groups]
            total, right = (torch.stack(each).mean() for each in zip(*found, strict=True))
            yield name, Loss(total, {f"accuracy_{name}": right})

    def confusions(self, batch: Batch) -> Tensor:
        """Of every image and setting: (B, settings, classes, classes), rows the truth, columns the prediction."""
        from bench.engines import mmseg

        views = zip(*(batch.views[key] for key in ("image", "mask", "size", "mask_size")), strict=True)
        found = []
        for image, mask, (h, w), (high, wide) in views:
            truth = mask[:high, :wide].cpu().numpy()
            for net in self.nets.values():
                prediction = mmseg.predict(net, image[:, :h, :w], truth.shape).cpu().numpy()
                found.append(torch.from_numpy(confusion(prediction, truth, self.classes)))
        return torch.stack(found).unflatten(0, (-1, len(self.nets)))


class _Masked:
    """A data set's masks."""

    def __init__(self, dataset: AnnotatedDataset) -> None:
        self.dataset, self.mask = dataset, dataset.mask
        self._sizes = {(known.height, known.width) for known in dataset.annotations}

    def largest(self, size: Longest | Short | None = None) -> tuple[int, int]:
        """The greatest height and the greatest width, as the images are or are brought to ``size``."""
        sizes = [size.of(*each) for each in self._sizes] if size else self._sizes
        height, width = map(max, zip(*sizes, strict=True))
        return height, width


def _random_crop(image: Tensor, mask: Tensor, side: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same square of both, or as much of it as there is, and perhaps its mirror image."""
    top, left = (int(generator.integers(max(0, n - side) + 1)) for n in mask.shape[1:])
    mirrored = generator.random() < 0.5
    image, mask = (x[:, top : top + side, left : left + side] for x in (image, mask))
    return (image.flip(-1), mask.flip(-1)) if mirrored else (image, mask)


def _truth(confusions: Confusions) -> NDArray[np.int64]:
    """(images, classes): pixels of each class."""
    image = np.repeat(np.arange(confusions.images), confusions.cells)
    found = np.zeros((confusions.images, confusions.classes), np.int64)
    np.add.at(found, (image, confusions.cell // confusions.classes), confusions.pixels)
    return found


def _ious(confusions: Confusions, counts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Counts of images (r, N) -> (r, 1 + classes): mean IoU, and that of each class."""
    each = confusions.resampled(counts)
    return np.column_stack([np.nanmean(each, axis=1), each])


def _all_background(confusions: Confusions) -> list[float]:
    """Mean IoU, and that of each class, of calling every pixel background; from 0 to 1."""
    pixels = _truth(confusions).sum(0)
    ious = np.zeros(len(pixels))
    ious[0] = pixels[0] / pixels.sum()
    there = pixels > 0
    there[0] = True
    return [float(ious[there].mean()), *ious.tolist()]
