"""Proposals that others published: detectron's and detectron2's ``.pkl``, Fast R-CNN's ``.mat``.

- ``.mat`` (Girshick, ICCV 2015): ``images``, the ids, and ``boxes``, a cell of y1, x1, y2, x2 each, which count pixels
  from 1 and include the last.
- ``.pkl`` of detectron: ``indexes`` (or ``ids``) and ``boxes`` of x1, y1, x2, y2, which count pixels from 0 and include
  the last. Ids are numbers: 5 for 000005, 2008000008 for 2008_000008.
- ``.pkl`` of detectron2, told by its ``objectness_logits``: the same with edges in pixels, as everywhere here.

A pickle may only hold numpy arrays and plain values: nothing in it is run.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray
from numpy.typing import NDArray

from bench.data.annotation import AnnotatedDataset
from bench.data.proposals import Proposals
from bench.errors import BenchError, did_you_mean


def read(file: Path, dataset: AnnotatedDataset) -> Proposals:
    """The proposals of a data set's images, cut to the image.

    Raises:
        BenchError: the file cannot be read, is in none of these formats, holds more than arrays or what is no finite
            number, or lacks an image.
    """
    if file.suffix not in _FORMATS:
        raise did_you_mean("format of proposals", file.suffix, list(_FORMATS))
    try:
        found = _FORMATS[file.suffix](file.read_bytes())
    except OSError as error:
        raise BenchError(f"cannot read the proposals: {error.strerror}", where=file) from error
    except Exception as error:  # pickles and scipy's reader raise many kinds on what is not theirs
        raise BenchError(f"not a file of proposals: {error}", where=file) from error
    boxes = []
    for image, known in zip(dataset.ids, dataset.annotations, strict=True):
        own = found.get(_number(image)) if image.replace("_", "").isdecimal() else None
        if own is None:
            raise BenchError(f"the proposals lack image {image} of {dataset.name}", where=file)
        if not np.isfinite(own).all():
            raise BenchError(f"the proposals of image {image} are not all finite numbers", where=file)
        limits = np.array([known.width, known.height] * 2)
        boxes.append(np.clip(own, 0, limits).astype(np.float32))
    return Proposals(boxes)


Found = dict[int, NDArray[np.float64]]
"""Edges by an image's number."""


def _number(image: Any) -> int:
    """5 of 000005, 2008000008 of 2008_000008 and of 2008000008."""
    return int(str(image).replace("_", ""))


def _from_pickle(data: bytes) -> Found:
    stored = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    ids = stored["indexes"] if "indexes" in stored else stored["ids"]
    last = 0 if "objectness_logits" in stored else 1
    return {
        _number(image): np.asarray(boxes, dtype=np.float64).reshape(-1, 4) + np.array([0, 0, last, last])
        for image, boxes in zip(ids, stored["boxes"], strict=True)
    }


def _from_mat(data: bytes) -> Found:
    from scipy.io import loadmat

    stored = loadmat(io.BytesIO(data))
    names = [str(np.asarray(name).item()) for name in stored["images"].ravel()]
    return {
        _number(name): boxes.astype(np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]] - [1, 1, 0, 0]
        for name, boxes in zip(names, stored["boxes"].ravel(), strict=True)
    }


_FORMATS = {".pkl": _from_pickle, ".mat": _from_mat}


def _latin1(text: str, encoding: str) -> bytes:
    """What a pickle of an older protocol makes bytes with."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds text in {encoding}")
    return text.encode("latin1")


_ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{
        (f"numpy.{home}.multiarray", name): getattr(multiarray, name)
        for home in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}
"""The names that numpy's arrays are pickled with."""


class _ArraysOnly(pickle.Unpickler):
    """Knows the names of arrays, and no other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")
        return _ARRAYS[module, name]
