"""Weights that go from a backbone into an engine's model. Imports no engine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.errors import BenchError


@torch.no_grad()
def copy_(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, engine: str, backbone: str) -> None:
    """Every tensor of ``given`` into the one of its name in ``wanted``: none is left, and none is left as it was.

    Raises:
        BenchError: a tensor has no counterpart of its name and shape; nothing is copied then.
    """
    shapes = [{name: tuple(value.shape) for name, value in those.items()} for those in (given, wanted)]
    wrong = sorted(name for name in given.keys() | wanted.keys() if shapes[0].get(name) != shapes[1].get(name))
    if wrong:
        raise BenchError(
            f"{len(wrong)} of {len(wanted)} tensors do not fit {engine}'s model, {wrong[0]} first", where=backbone
        )
    for name, value in given.items():
        wanted[name].copy_(value)
