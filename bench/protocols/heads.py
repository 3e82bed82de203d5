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

    def __init__(self, channels: int, fabric: Fabric, momentum: float = 0.1, eps: float = 1e-5) -> None:
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


class Head(nn.Module):
    """One linear classifier a learning rate on one stage: (B, C, h, w) -> (B, L, classes)."""

    def __init__(self, features: Tensor, bound: int, classes: int, rates: int, fabric: Fabric) -> None:
        super().__init__()
        _, channels, height, width = features.shape
        self.side = max(1, min(int((bound / channels) ** 0.5), height, width))
        self.norm = FrozenNorm(channels, fabric)
        self.rates, self.classes = rates, classes
        dim = channels * self.side**2
        # every rate starts from the same draw: the sweep compares rates, not draws
        self.weight = Parameter(torch.empty(classes, dim).normal_(std=0.01).repeat(rates, 1, 1))
        self.bias = Parameter(torch.zeros(rates, classes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> logits (B, L, classes)."""
        x = self.norm(F.adaptive_avg_pool2d(x, self.side)).flatten(1)
        return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, (self.rates, self.classes))


class LinearHeads(Task):
    """All stages' heads on one frozen forward pass. The backbone is no submodule: it is neither trained nor saved.

    Frozen means frozen: it stays in eval mode, so its running statistics do not move.
    """

    def __init__(self, backbone: Backbone, definition: dict[str, Any], classes: int, fabric: Fabric) -> None:
        super().__init__()
        self._frozen = (backbone.to(fabric.device).to(memory_format=torch.channels_last).eval().requires_grad_(False),)
        self.definition = definition
        self.multipliers = torch.tensor(definition["rates"])
        side = backbone.input_side
        blank = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=fabric.device)
        with torch.no_grad():
            features = backbone(blank)
        bound, rates = definition["features"], len(definition["rates"])
        self.heads = nn.ModuleDict({s: Head(features[s], bound, classes, rates, fabric) for s in backbone.stages})

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return self._frozen[0]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (B, 3, S, S) -> {stage: logits (B, L, classes)}."""
        with torch.no_grad():
            features = self.backbone(images)
        return {stage: head(features[stage]) for stage, head in self.heads.items()}

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a random crop of the resized image, perhaps mirrored."""
        crop = transforms.random_crop(self._resized(sample), self.backbone.input_side, generator)
        return transforms.flip(crop, generator)

    def test_view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): the centre crop of the resized image."""
        return transforms.center_crop(self._resized(sample), self.backbone.input_side)

    def _resized(self, sample: Sample) -> Tensor:
        short = round(self.backbone.input_side * 256 / 224)
        return transforms.resize_short(
            sample.image, short, kernel=self.definition["kernel"], antialias=self.definition["antialias"]
        )

    def optimiser_of(self, name: str, spec: Optimiser, parameters: Iterable[Parameter]) -> Optimizer:
        """SGD at every rate of the sweep at once."""
        assert isinstance(spec, SGD)
        return SweepSGD(parameters, spec.lr, self.multipliers, spec.momentum, spec.weight_decay)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy summed over stages and rates: no two heads share a parameter, so each trains alone."""
        logits = self(batch.views)
        by_stage = {}
        for stage, scores in logits.items():
            label = batch.label[:, None].expand(-1, scores.shape[1])
            each = F.cross_entropy(scores.flatten(0, 1).float(), label.flatten(), reduction="none")
            by_stage[stage] = each.view(label.shape).mean(0)
        metrics = {f"loss_{stage}": rows.detach().min() for stage, rows in by_stage.items()}
        yield "main", Loss(torch.stack([rows.sum() for rows in by_stage.values()]).sum(), metrics)


def rank_of(scores: Tensor, label: Tensor) -> Tensor:
    """How many classes are scored above the true one; equal scores count in class order, as argmax does.

    (..., classes), (...) -> (...).
    """
    own = scores.gather(-1, label[..., None])
    before = torch.arange(scores.shape[-1], device=scores.device) < label[..., None]
    return ((scores > own) | ((scores == own) & before)).sum(-1)
