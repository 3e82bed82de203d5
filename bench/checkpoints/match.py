"""Which of a checkpoint's tensors fit a backbone: exact names, exact shapes, no guessing, and never in silence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.backbones.base import Backbone
from bench.errors import BenchError

Rename = Callable[[str], str | None]
"""A checkpoint's name -> the backbone's; ``None`` where the backbone has no place for it. A dict's ``get`` will do."""


@dataclass(frozen=True)
class Match:
    """The outcome of laying a checkpoint over a backbone; names are the backbone's but in ``unexpected``."""

    matched: dict[str, Tensor]
    """Tensors of the checkpoint that fit."""
    missing: list[str]
    """What the backbone has and the checkpoint lacks."""
    unexpected: list[str]
    """The checkpoint's names that have no place in the backbone."""
    misshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """(name, shape in the checkpoint, shape in the backbone)."""
    share: float
    """The fraction of the backbone's values that matched: parameters, and the running means and variances without
    which they mean nothing; 1.0 if and only if all did. Counters of batches (BatchNorm's) are not counted."""

    @property
    def exact(self) -> bool:
        """Every tensor of either side has its counterpart."""
        return not (self.missing or self.unexpected or self.misshaped)

    def report(self) -> str:
        """One sentence: the share, the counts, and the first few names of what does not fit."""
        tensors = len(self.matched) + len(self.missing) + len(self.misshaped)
        parts = [f"{_percent(self.share)} of the values match ({len(self.matched)} of {tensors} tensors)"]
        shapes = [f"{name} {_shape(theirs)} for {_shape(ours)}" for name, theirs, ours in self.misshaped]
        for kind, names in (("missing", self.missing), ("unexpected", self.unexpected), ("mis-shaped", shapes)):
            if names:
                parts.append(f"{len(names)} {kind} ({_first(names)})")
        return "; ".join(parts)


def match(state_dict: Mapping[str, Any], backbone: Backbone, rename: Rename | None = None) -> Match:
    """Lay a checkpoint's tensors over the backbone's parameters and buffers; nothing is loaded.

    Raises:
        BenchError: two of the checkpoint's names are renamed to one.
    """
    ours: dict[str, Tensor] = backbone.state_dict()
    theirs: dict[str, tuple[str, Tensor]] = {}
    unexpected = []
    for source, value in state_dict.items():
        name = rename(source) if rename else source
        if name not in ours or not isinstance(value, Tensor):
            unexpected.append(source)
        elif name in theirs:
            raise BenchError(f"{theirs[name][0]!r} and {source!r} of the checkpoint both become {name!r}")
        else:
            theirs[name] = source, value
    matched = {name: value for name, (_, value) in theirs.items() if value.shape == ours[name].shape}
    weighed = {name: value.numel() for name, value in ours.items() if value.is_floating_point()}
    return Match(
        matched=matched,
        missing=[name for name in ours if name not in theirs],
        unexpected=unexpected,
        misshaped=[
            (name, tuple(value.shape), tuple(ours[name].shape))
            for name, (_, value) in theirs.items()
            if name not in matched
        ],
        share=sum(weighed.get(name, 0) for name in matched) / sum(weighed.values()),
    )


@torch.no_grad()
def load_matched(
    backbone: Backbone, state_dict: Mapping[str, Any], minimum: float = 1.0, rename: Rename | None = None
) -> Match:
    """Copy what matches into the backbone; what does not keeps its values, and the match says so.

    Raises:
        BenchError: less than ``minimum`` of the backbone's values match (nothing is copied then); or as
            :func:`match`.
    """
    found = match(state_dict, backbone, rename)
    if found.share < minimum:
        raise BenchError(
            f"the weights do not fit {backbone.config['backbone']}: {found.report()}",
            mend=f"{_percent(minimum)} must match; is it another backbone, or are the names another library's?",
        )
    ours = backbone.state_dict()
    for name, value in found.matched.items():
        ours[name].copy_(value)
    return found


def _percent(share: float) -> str:
    """Rounded down, so that only everything is 100 %."""
    return f"{math.floor(share * 1000 + 1e-6) / 10:g} %"


def _first(names: list[str], count: int = 3) -> str:
    more = [f"{len(names) - count} more"] if len(names) > count else []
    return ", ".join(names[:count] + more)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
