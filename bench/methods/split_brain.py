"""Split-Brain autoencoder: two half networks, each predicts the channels that the other one sees.

An autoencoder can copy its input. Cut it in two along the channels, let one half predict colour from lightness and
the other lightness from colour, and neither can; side by side the halves have seen all of the image, and their
features are those of one network.

Paper: Zhang, Isola, Efros, "Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction", CVPR 2017,
sections 3 and 4.1, tables 6 and 7. No training code was released; the released network is ``deploy_lab``.

Shapes: crops (B, 3, S, S), in Lab with L - 50. The halves take (B, 1, S, S) and (B, 2, S, S), have half the channels
of the backbone in every stage, and end in (B, C / 2, h, h), h 13 for AlexNet at 224 px (the paper: 12 of 180 px); a
fully convolutional head each (``DenseTop``, 2,048 wide for AlexNet) predicts a map h x h of the other channels.

Losses (option ``loss``), summed over the halves:

- ``classification``: cross-entropy over 313 bins of ab and 50 bins of L, 2 wide; the target is the one nearest bin.
  No rebalancing.
- ``regression``: mean squared error, each channel in units of its standard deviation over the data.

Pretext metric: ``explained``, the mean of both halves'. With ``classification`` it is 1 - (cross-entropy) /
(cross-entropy of a predictor that always answers the bins' shares in the data), with ``regression`` 1 - (squared
error) / (squared error of the mean colour). Either trivial predictor scores 0. (Of natural images so much is grey
that always naming one bin is right more often than a network that has learned a little.)

Any two groups of channels will do: with option ``groups``, such as ``((0, 1, 2), (3,))`` for colour and depth, they are
channels of what the backbone's own preprocessing gives, and the loss is ``regression``. Without, they are L and ab.

The exported backbone is one AlexNet, with ``preprocess`` ``lab`` unless ``groups`` says otherwise: in every stage the
first half of the channels is the first half network's, and the weights between the halves are zero. Where the
backbone has two groups in a convolution, they are the halves.

Deviations from the paper:
- Whether the target is averaged down, as here, or sampled is unconfirmed; so is the recipe, which is Colorization's.
- Crops, fc6, fc7 and BatchNorm are those of ``colorization``, for its reasons; ``regression`` standardises channels.
- The backbone is built without LRN and fully connected layers: LRN would mix the halves.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.alexnet import AlexNet
from bench.backbones.base import twin
from bench.backbones.initialise import he_normal_
from bench.data import draws, transforms
from bench.data.ab_bins import AbBins
from bench.errors import BenchError, did_you_mean
from bench.methods._dense import DenseTop, Standardised, averaged, drawn, enlarged, explained
from bench.methods.base import Adam, Backbone, Batch, Loss, PretextTask, Recipe, Step, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Dataset, Sample

LOSSES = ("classification", "regression")
LAB_GROUPS = ((0,), (1, 2))
LIGHTNESS_BINS, LIGHTNESS_STEP = 50, 2


class SplitBrain(PretextTask):
    """Options: ``loss``, ``classification`` or ``regression``; ``groups``, two lists of channels (L and ab)."""

    title, citation, version = "Split-Brain", "zhang2017split", 1
    needs = {"image"}
    supports = {"alexnet"}
    recipe = Recipe(
        epochs=28,
        batch=80,
        optimiser=Adam(
            lr=3e-5,
            betas=(0.9, 0.999),
            weight_decay=1e-3,
            schedule=Table(rows=((24 / 45, 1.0), (30 / 45, 1 / 3), (40 / 45, 0.1), (1.0, 1 / 30))),
        ),
        source="as Colorization: richzhang/colorization train_alexnet/solver0-3.prototxt (unconfirmed)",
    )
    metric, chance = "explained", 0.0

    def __init__(
        self, backbone: Backbone, loss: str = "classification", groups: Sequence[Sequence[int]] | None = None
    ) -> None:
        if loss not in LOSSES:
            raise did_you_mean("loss of split-brain", loss, list(LOSSES))
        if groups is not None and loss == "classification":
            raise BenchError("split-brain has bins for L and ab only", mend='for other groups set loss to "regression"')
        whole = _whole(backbone, "lab" if groups is None else backbone.preprocess.to_dict())
        super().__init__(whole)
        del self.backbone  # only its halves are trained
        self._whole = (whole,)
        self.groups = _checked(LAB_GROUPS if groups is None else groups, whole.in_channels)
        self.in_lab = groups is None
        self.classifies = loss == "classification"
        self.preprocess = copy.deepcopy(whole.preprocess)
        halves = [_half(whole, len(group)) for group in self.groups]
        shape = halves[0].shapes()[whole.stages[-1]]
        self.halves = nn.ModuleList(halves)
        self.height = shape.height
        self.bins, self.target = AbBins(), Standardised(whole.in_channels)
        sizes = [len(self.bins), LIGHTNESS_BINS] if self.classifies else [len(g) for g in reversed(self.groups)]
        self.tops = nn.ModuleList(DenseTop(shape, outputs) for outputs in sizes)
        for i, size in enumerate(sizes):
            self.register_buffer(f"log_prior_{i}", torch.zeros(size))

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """The channels' means and standard deviations, and the bins' shares, from 1,280 images."""
        batches = draws.batches(dataset, self._whole[0].input_side, count=10, size=128, generator=generator)
        device = self.target.mean.device
        maps = torch.cat([F.adaptive_avg_pool2d(self.preprocess(x.to(device)), self.height) for x in batches])
        self.target.fit([maps])
        if self.classifies:
            for prior, label in zip(self._log_priors(), self._labels(maps), strict=True):
                counts = 1 + label.flatten().bincount(minlength=len(prior))
                prior.copy_((counts / counts.sum()).log())

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (C, S, S): short side to 256/224 of S, random crop, perhaps mirrored."""
        return transforms.mirrored_crop(sample.image, self._whole[0].input_side, generator)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """The sum of both halves' losses; they share nothing."""
        x = self.preprocess(batch.views)
        answers = self._answers(x)
        maps = averaged(x, answers[0])
        parts = self._against_bins(answers, maps) if self.classifies else self._against_values(answers, maps)
        first, second = (explained(*part) for part in parts)
        metrics = {"explained": (first + second) / 2, "explained_first": first, "explained_second": second}
        yield "main", Loss(parts[0][0] + parts[1][0], metrics)

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """The image; the colours told from lightness; the lightness told from colour. None for other channels."""
        if not self.in_lab:
            return None
        x = self.preprocess(batch.views)
        colour, lightness = self._answers(x)
        if self.classifies:
            colour = self.bins.decode(colour)
            middles = LIGHTNESS_STEP * (torch.arange(LIGHTNESS_BINS, device=x.device) + 0.5) - 50
            lightness = torch.einsum("bqhw,q->bhw", lightness.softmax(1), middles)[:, None]
        else:
            both = self.target.back(torch.cat([lightness, colour], 1))
            lightness, colour = both[:, :1], both[:, 1:]
        maps = (torch.cat([x[:, :1], enlarged(colour, x)], 1), torch.cat([enlarged(lightness, x), x[:, 1:]], 1))
        return torch.stack([batch.views, *(drawn(lab) for lab in maps)], 1)

    @torch.no_grad()
    def export(self) -> Backbone:
        """One backbone whose features are the halves' features side by side, in every stage."""
        whole = self._whole[0]
        chains = [net.chain().values() for net in (whole, *self.halves)]
        first = True
        for merged, *parts in zip(*chains, strict=True):
            if isinstance(merged, nn.Conv2d):
                _join(merged, parts, self.groups if first else None)
                first = False
            elif isinstance(merged, nn.BatchNorm2d):
                states = [part.state_dict() for part in parts]
                merged.load_state_dict(
                    {k: torch.cat([s[k] for s in states]) if v.ndim else v for k, v in states[0].items()}
                )
        return whole

    def _answers(self, x: Tensor) -> list[Tensor]:
        """What each half says of the other's channels: (B, outputs, h, h) each."""
        last = self._whole[0].stages[-1]
        return [
            top(half.trunk(x[:, group], (last,))[last])  # type: ignore[operator]  # mypy: a Module has no methods
            for half, top, group in zip(self.halves, self.tops, self.groups, strict=True)
        ]

    def _against_bins(self, answers: list[Tensor], maps: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each half, the cross-entropy of its answer, and that of the bins' shares."""
        return [
            (F.cross_entropy(answer, label), -prior[label].mean())
            for answer, label, prior in zip(answers, self._labels(maps), self._log_priors(), strict=True)
        ]

    def _against_values(self, answers: list[Tensor], maps: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each half, the squared error of its answer, and that of the mean colour."""
        targets = [self.target(maps)[:, group] for group in reversed(self.groups)]
        return [(F.mse_loss(a, target), target.square().mean()) for a, target in zip(answers, targets, strict=True)]

    def _log_priors(self) -> list[Tensor]:
        return [self.get_buffer("log_prior_0"), self.get_buffer("log_prior_1")]

    def _labels(self, maps: Tensor) -> list[Tensor]:
        """Lab maps with L - 50, (B, 3, h, h) -> bins of ab and of L, int64 (B, h, h) each."""
        lightness = ((maps[:, 0] + 50) / LIGHTNESS_STEP).long().clamp(0, LIGHTNESS_BINS - 1)
        return [self.bins.nearest(maps[:, 1:]), lightness]


def _whole(backbone: Backbone, preprocess: object) -> AlexNet:
    if not isinstance(backbone, AlexNet):
        raise BenchError("split-brain cuts an AlexNet in halves", mend="choose an AlexNet")
    whole = twin(backbone, preprocess=preprocess, lrn="none", fc=[])
    assert isinstance(whole, AlexNet)
    for name, layer in whole.chain().items():
        if isinstance(layer, nn.Conv2d) and layer.groups > 2:
            raise BenchError(f"{name} has {layer.groups} groups: they do not fall into two halves")
    return whole


def _checked(groups: Sequence[Sequence[int]], channels: int) -> list[list[int]]:
    found = [list(group) for group in groups]
    flat = [channel for group in found for channel in group]
    if len(found) != 2 or not all(found) or len(set(flat)) != len(flat) or not set(flat) <= set(range(channels)):
        raise BenchError(
            f"groups {found} are not two disjoint groups of {channels} channels",
            mend="list the channels of each, from 0 on, such as [[0], [1, 2]]",
        )
    return found


def _half(whole: AlexNet, channels: int) -> AlexNet:
    """A network of half the width, in one group, on so many channels; its preprocessing is not used."""
    convolutions = [layer for layer in whole.chain().values() if isinstance(layer, nn.Conv2d)]
    half = twin(whole, widths=[layer.out_channels // 2 for layer in convolutions], groups=[1] * len(convolutions))
    assert isinstance(half, AlexNet)
    half.in_channels = channels
    first = half.chain()["conv1.conv"]
    assert isinstance(first, nn.Conv2d)
    first.in_channels = channels
    first.weight = nn.Parameter(first.weight.new_empty(len(first.weight), channels, *first.kernel_size))
    he_normal_(half)
    return half


def _join(merged: nn.Conv2d, parts: Sequence[nn.Conv2d], inputs: Sequence[Sequence[int]] | None) -> None:
    """Put the halves' convolutions on the diagonal of one; ``inputs``: the channels each sees, halves unless given."""
    merged.weight.zero_()
    for i, part in enumerate(parts):
        rows, width = slice(i * part.out_channels, (i + 1) * part.out_channels), part.in_channels
        offset = i * width if merged.groups == 1 else 0
        columns = inputs[i] if inputs is not None else list(range(offset, offset + width))
        merged.weight[rows, columns] = part.weight.to(merged.weight)
    biases = [part.bias for part in parts if part.bias is not None]
    assert merged.bias is not None
    merged.bias.copy_(torch.cat(biases))
