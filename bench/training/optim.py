"""Builds torch optimisers from the words of a recipe, and one of our own: SGD at several rates at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from bench.training.recipe import SGD, Adam, RMSProp
from bench.training.recipe import Optimiser as Spec


def build(spec: Spec, parameters: Iterable[Parameter] | Iterable[dict[str, Any]]) -> Optimizer:
    """The torch optimiser that a recipe's words mean. A group's ``times`` multiplies the rate, in the loop."""
    parameters = list(parameters)  # type: ignore[assignment]
    match spec:
        case SGD():
            return torch.optim.SGD(
                parameters,
                lr=spec.lr,
                momentum=spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov and spec.momentum > 0,
            )
        case Adam():
            return torch.optim.AdamW(parameters, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay)
        case RMSProp():
            return torch.optim.RMSprop(
                parameters,
                lr=spec.lr,
                alpha=spec.smoothing,
                momentum=spec.momentum,
                weight_decay=spec.weight_decay,
            )


def rate(spec: Spec, done: float) -> float:
    """The learning rate when the fraction ``done`` of training is done."""
    warm = min(1.0, done / spec.warmup) if spec.warmup else 1.0
    return spec.lr * warm * spec.schedule.factor(done)


def with_biases(net: nn.Module, spec: Spec, rate: float, decay: float) -> list[dict[str, Any]]:
    """Groups for :func:`build` of all that learns: weights, then biases at multiples of rate and weight decay.

    Caffe's nets usually give biases twice the rate; BatchNorm's shifts count as biases.
    """
    learning = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    weights = [p for name, p in learning if not name.endswith("bias")]
    biases = [p for name, p in learning if name.endswith("bias")]
    return [{"params": weights}, {"params": biases, "times": rate, "weight_decay": spec.weight_decay * decay}]


class SweepSGD(Optimizer):
    """SGD with momentum for parameters whose first axis is a sweep of learning rates: (L, ...).

    Row l of each parameter is trained at ``lr * rate * multipliers[l]``, exactly as torch's SGD would train it alone;
    ``rate`` is 1 unless a parameter group has its own.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float,
        multipliers: Tensor,
        momentum: float,
        weight_decay: float,
        nesterov: bool = True,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "rate": 1.0, "momentum": momentum, "weight_decay": weight_decay})
        self.multipliers, self.nesterov = multipliers, nesterov

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every row."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                shape = (-1, *[1] * (parameter.dim() - 1))
                rates = (group["lr"] * group["rate"] * self.multipliers.to(parameter.device)).view(shape)
                gradient = parameter.grad.add_(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = gradient.clone()
                else:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
                step = state["momentum_buffer"]
                if self.nesterov:
                    step = gradient.add_(step, alpha=group["momentum"])
                parameter.addcmul_(step, rates.expand_as(step), value=-1)
