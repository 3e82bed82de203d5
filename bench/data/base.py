"""What a data set is to the rest of the house: samples with ids, labels and a digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Sample(NamedTuple):
    """One image as a method's ``view`` receives it."""

    image: Tensor
    """uint8 (C, H, W), RGB unless the data set says otherwise."""
    index: int  # type: ignore[assignment]  # hides tuple.index
    """Position in the data set: 0 .. len - 1, stable under the data digest."""
    label: int = -1
    """Class index, -1 where the data set is unlabelled."""
    clip: Tensor | None = None
    """uint8 (T, C, H, W), T >= 2, where the data set has clips. The image is its first frame, or, where objects were
    drawn over an image, that image alone."""


@runtime_checkable
class Dataset(Protocol):
    """A finite, indexable set of samples in canonical (sorted id) order."""

    name: str
    """``tiny-imagenet-50/train+unlabelled``: data set and splits."""
    ids: list[str]
    """Unique, sorted; a relative path or a running number."""
    classes: tuple[str, ...]
    """Class names by label; empty where unlabelled."""
    labels: np.ndarray
    """int64 (N,): -1 where unlabelled."""
    digest: str
    """16 hex digits that change when the data change (ids and file sizes)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
