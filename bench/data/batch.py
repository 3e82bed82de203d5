"""A batch, as a loader yields it and ``losses`` receives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """What ``losses`` receives: the collated views of a batch, on the device."""

    views: Any
    """Whatever ``view`` returned, collated: a tensor (B, ...), or a tuple or dict of such."""
    index: Tensor
    """int64 (B,): positions in the data set."""
    label: Tensor
    """int64 (B,): -1 where unlabelled."""

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch on a device."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, dict):
                return {key: move(v) for key, v in value.items()}
            if isinstance(value, list | tuple):
                return tuple(move(v) for v in value)
            return value

        return Batch(move(self.views), move(self.index), move(self.label))
