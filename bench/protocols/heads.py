"""The linear heads of a probe: every stage and every learning rate, trained in one pass over a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from bench.backbones.base import Backbone
from bench.data import transforms
from bench.data.base import Sample
from bench.data.pack import Geometry
from bench.errors import BenchError
from bench.protocols.probe import (
    AdaptiveMax,
    Average,
    Bilinear,
    Init,
    LargestSquare,
    Normal,
    NormalByClasses,
    Pool,
    Probe,
    ResizedView,
    UniformByFeatures,
)
from bench.training.device import total
from bench.training.optim import SweepSGD
from bench.training.recipe import SGD, Optimiser
from bench.training.task import Batch, Loss, Step, Task


class FrozenNorm(nn.Module):
    """BatchNorm without affine, whose batch statistics are those of the batch over all processes.

    Its input carries no gradient, so none is propagated. (B, C, h, w) -> the same.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, fabric: Fabric, momentum: float, eps: float) -> None:
        super().__init__()
        self.fabric, self.momentum, self.eps = fabric, momentum, eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same, each channel of zero mean and unit variance."""
        if not self.training or self.fabric.world_size == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, training=self.training, momentum=self.momentum, eps=self.eps
            )
        x = x.float()
        here = x.new_tensor(x.numel() / x.shape[1])
        sums = total(self.fabric, torch.cat([x.sum((0, 2, 3)), here[None]]))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = x - mean[:, None, None]
        var = total(self.fabric, centred.square().sum((0, 2, 3))) / count
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * count / (count - 1), self.momentum)
        return centred * torch.rsqrt(var + self.eps)[:, None, None]


def geometry(probe: Probe, input_side: int) -> Geometry:
    """The resize before every crop of the test images, and of the training images but under a :class:`ResizedView`."""
    return Geometry(probe.sides(input_side)[1], probe.resize, probe.kernel, probe.antialias)


def pooling(pool: Pool, stage: str, features: Tensor) -> nn.Module:
    """What reduces a stage's features (B, C, h, w) to about 9,000 values an image."""
    _, channels, height, width = features.shape
    match pool:
        case LargestSquare():
            return nn.AdaptiveAvgPool2d(max(1, min(int((pool.features / channels) ** 0.5), height, width)))
        case AdaptiveMax():
            return nn.AdaptiveMaxPool2d(pool.sizes[stage])
        case Average():
            return nn.AvgPool2d(*pool.windows[stage])
        case Bilinear():
            size = pool.sizes[stage]
            return nn.Upsample((size, size), mode="bilinear", align_corners=pool.align_corners)


def initial(init: Init, classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Weights (classes, dim) and bias (classes,), from torch's global generator."""
    weight, bias = torch.empty(classes, dim), torch.zeros(classes)
    match init:
        case Normal():
            return weight.normal_(std=init.std), bias
        case NormalByClasses():
            return weight.normal_(std=(2 / classes) ** 0.5), bias
        case UniformByFeatures():
            bound = dim**-0.5
            return weight.uniform_(-bound, bound), bias.uniform_(-bound, bound)


class Head(nn.Module):
    """One linear classifier a learning rate on one stage: (B, C, h, w) -> (B, L, classes)."""

    scale: Parameter | None
    shift: Parameter | None

    def __init__(self, features: Tensor, stage: str, probe: Probe, classes: int, fabric: Fabric) -> None:
        super().__init__()
        self.pool = pooling(probe.pool, stage, features)
        pooled = self.pool(features)
        self.channels, self.dim = pooled.shape[1], pooled[0].numel()
        self.rates, self.classes = len(probe.rates), classes
        norm = probe.norm
        self.norm = nn.Identity() if norm.kind == "none" else FrozenNorm(self.channels, fabric, norm.momentum, norm.eps)
        # every rate starts from the same draw: the sweep compares rates, not draws
        weight, bias = initial(probe.init, classes, self.dim)
        self.weight = Parameter(weight.repeat(self.rates, 1, 1))
        self.bias = Parameter(bias.repeat(self.rates, 1))
        affine = norm.kind == "batch-affine"
        self.scale = Parameter(torch.ones(self.rates, self.channels)) if affine else None
        self.shift = Parameter(torch.zeros(self.rates, self.channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> logits (B, L, classes)."""
        with torch.autocast(x.device.type, enabled=False):  # in half precision, classes would tie
            x = self.norm(self.pool(x.float())).flatten(1)
            weight, bias = self._folded()
            return F.linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(1, (self.rates, self.classes))

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Weight (L, classes, dim) and bias (L, classes), into which each rate's scale and shift are multiplied."""
        if self.scale is None or self.shift is None:
            return self.weight, self.bias
        maps = self.weight.unflatten(2, (self.channels, -1))
        bias = self.bias + torch.einsum("lkcp,lc->lk", maps, self.shift)
        return (maps * self.scale[:, None, :, None]).flatten(2), bias


class Coefficients(nn.Module):
    """How much each stage counts in their mixture, for every learning rate; learnt, and of unit length."""

    def __init__(self, rates: int, stages: tuple[str, ...], lasso: float) -> None:
        super().__init__()
        self.stages, self.lasso = stages, lasso
        self.alpha = Parameter(torch.ones(rates, len(stages)))

    def values(self) -> Tensor:
        """(L, stages)."""
        return F.normalize(self.alpha, dim=1)

    def forward(self, logits: dict[str, Tensor]) -> Tensor:
        """{stage: (B, L, classes)} -> their weighted sum."""
        return torch.einsum("sblk,ls->blk", torch.stack([logits[stage] for stage in self.stages]), self.values())

    def penalty(self) -> Tensor:
        """(L,): what is added to the loss."""
        return self.lasso * self.values().abs().sum(1)


class LinearHeads(Task):
    """All stages' heads on one frozen forward pass. The backbone is no submodule: it is neither trained nor saved.

    Frozen means frozen: it stays in eval mode, so its running statistics do not move.

    Raises:
        BenchError: the variant does not fit the backbone's input side or stages.
    """

    def __init__(self, backbone: Backbone, probe: Probe, classes: int, fabric: Fabric) -> None:
        super().__init__()
        misfit = probe.misfit(backbone.input_side, backbone.stages)
        if misfit:
            raise BenchError(misfit, where=backbone.config["backbone"])
        self._frozen = (backbone.to(fabric.device).to(memory_format=torch.channels_last).eval().requires_grad_(False),)
        self.probe = probe
        self.side, self.geometry = probe.sides(backbone.input_side)[0], geometry(probe, backbone.input_side)
        self.multipliers = torch.tensor(probe.rates)
        blank = torch.zeros(1, 3, self.side, self.side, dtype=torch.uint8, device=fabric.device)
        with torch.no_grad():
            features = backbone(blank)
        self.heads = nn.ModuleDict({s: Head(features[s], s, probe, classes, fabric) for s in backbone.stages})
        self.mixture = Coefficients(len(probe.rates), backbone.stages, probe.mixture.lasso) if probe.mixture else None

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return self._frozen[0]

    @property
    def places(self) -> tuple[str, ...]:
        """What is classified: every stage, or their mixture."""
        return self.probe.places(tuple(self.heads))

    @property
    def test_crops(self) -> int:
        """Crops of a test image."""
        return 10 if self.probe.test.crop == "ten" else 1

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (B, 3, S, S) -> {place: logits (B, L, classes)}."""
        with torch.no_grad():
            features = self.backbone(images)
        logits = {stage: head(features[stage]) for stage, head in self.heads.items()}
        return {"mixed": self.mixture(logits)} if self.mixture else logits

    def scores(self, views: Tensor) -> dict[str, Tensor]:
        """Test views -> {place: (B, L, classes)}: logits; of (B, 10, 3, S, S) the mean softmax of the ten crops."""
        if self.test_crops == 1:
            return self(views)
        of_crops = self(views.flatten(0, 1))
        return {s: x.float().softmax(-1).unflatten(0, (-1, self.test_crops)).mean(1) for s, x in of_crops.items()}

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a crop of the resized image, or a resized crop, perhaps mirrored."""
        probe, how = self.probe, self.probe.train
        if isinstance(how, ResizedView):
            image = transforms.random_resized_crop(
                sample.image, self.side, generator, how.area, how.ratio, probe.kernel, probe.antialias
            )
        elif how.crop == "random":
            image = transforms.random_crop(self._resized(sample, how.square), self.side, generator)
        else:
            image = transforms.center_crop(self._resized(sample, how.square), self.side)
        return transforms.flip(image, generator) if how.flip else image

    def test_view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): the centre crop of the resized image; or (10, 3, S, S): ten crops of it."""
        image = self._resized(sample, self.probe.test.square)
        return (transforms.ten_crop if self.test_crops == 10 else transforms.center_crop)(image, self.side)

    def _resized(self, sample: Sample, square: bool) -> Tensor:
        image = self.geometry.resize(sample.image)
        return transforms.center_crop(image, self.geometry.side) if square else image

    def optimiser_of(self, name: str, spec: Optimiser, parameters: Iterable[Parameter]) -> Optimizer:
        """SGD at every rate of the sweep at once; the bias, and the norm's scale and shift, as the variant says."""
        assert isinstance(spec, SGD)
        probe, heads = self.probe, list(self.heads.values())
        groups: list[dict[str, Any]] = [
            {"params": [h.weight for h in heads]},
            {
                "params": [h.bias for h in heads],
                "rate": probe.bias_rate,
                "weight_decay": spec.weight_decay * probe.bias_decay,
            },
        ]
        if probe.norm.kind == "batch-affine":
            affine = [p for h in heads for p in (h.scale, h.shift)]
            groups.append({"params": affine, "weight_decay": spec.weight_decay * probe.norm.decay})
        if self.mixture:
            groups.append({"params": [self.mixture.alpha], "weight_decay": 0.0})
        return SweepSGD(groups, spec.lr, self.multipliers, spec.momentum, spec.weight_decay, spec.nesterov)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy summed over places and rates: no two of them share a parameter, so each trains alone."""
        logits = self(batch.views)
        by_place = {}
        for place, scores in logits.items():
            label = batch.label[:, None].expand(-1, scores.shape[1])
            each = F.cross_entropy(scores.flatten(0, 1).float(), label.flatten(), reduction="none")
            by_place[place] = each.view(label.shape).mean(0)
        metrics = {f"loss_{place}": rows.detach().min() for place, rows in by_place.items()}
        total = torch.stack([rows.sum() for rows in by_place.values()]).sum()
        yield "main", Loss(total + self.mixture.penalty().sum() if self.mixture else total, metrics)


def rank_of(scores: Tensor, label: Tensor) -> Tensor:
    """How many classes are scored above the true one; equal scores count in class order, as argmax does.

    (..., classes), (...) -> (...).
    """
    own = scores.gather(-1, label[..., None])
    before = torch.arange(scores.shape[-1], device=scores.device) < label[..., None]
    return ((scores > own) | ((scores == own) & before)).sum(-1)
