"""One image's objects as PASCAL VOC writes them in XML.

A file that declares a document type is refused: VOC's have none, and entities that expand to more than a machine can
hold need one.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from bench.data.annotation import Annotation
from bench.errors import BenchError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""In the order of the labels."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")
"""Pixels counted from 1, the last included."""

_FROM_ONE = np.array([1, 1, 0, 0])
"""VOC's corners less the edges of :class:`Annotation`."""
_LABELS = {name: label for label, name in enumerate(CLASSES)}


def read_annotation(file: Path) -> Annotation:
    """The objects of one image.

    Raises:
        BenchError: the file cannot be read, is no XML or declares a document type; it lacks a size, a class or a
            corner; a class is unknown; a box is empty or outside the image.
    """
    try:
        root = _parse(file.read_bytes())
        size = _child(root, "size")
        width, height = (_number(size, side) for side in ("width", "height"))
        if not (width.is_integer() and height.is_integer() and width >= 1 and height >= 1):
            raise _Refused(f"the image cannot be {width:g} x {height:g} pixels")
        objects = [_object(each, width, height) for each in root.findall("object")]
    except OSError as error:
        raise BenchError(f"cannot read the annotation: {error.strerror}", where=file) from error
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter of an encoding that expat does not read
        raise BenchError(f"malformed XML: {error}", where=file) from error
    except _Refused as error:
        raise BenchError(f"not a VOC annotation: {error}", where=file) from error
    return annotation(objects, int(width), int(height))


def annotation(objects: list[list[float]], width: int, height: int) -> Annotation:
    """From one row an object: label, difficult, xmin, ymin, xmax, ymax, the corners as VOC counts them."""
    table = np.array(objects, dtype=np.float64).reshape(-1, 6)
    boxes = (table[:, 2:] - _FROM_ONE).astype(np.float32)
    return Annotation(boxes, table[:, 0].astype(np.int64), table[:, 1] > 0, width, height)


def rows(known: Annotation) -> list[list[float]]:
    """What :func:`annotation` takes, as plain numbers."""
    corners = known.boxes.astype(np.float64) + _FROM_ONE
    return np.column_stack([known.labels, known.difficult, corners]).tolist()


class _Refused(Exception):  # noqa: N818  (it never leaves this file)
    """XML, but not what VOC writes."""


def _parse(data: bytes) -> Element:
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()


def _refuse_doctype(*_: object) -> None:
    raise _Refused("it declares a document type")


def _object(element: Element, width: float, height: float) -> list[float]:
    name = (_child(element, "name").text or "").strip()
    if name not in _LABELS:
        raise _Refused(f"unknown class {name!r}")
    difficult = 0.0 if element.find("difficult") is None else _number(element, "difficult")
    corners = [_number(_child(element, "bndbox"), corner) for corner in CORNERS]
    xmin, ymin, xmax, ymax = corners
    shown = ", ".join(f"{value:g}" for value in corners)
    if xmin > xmax or ymin > ymax:
        raise _Refused(f"the box {shown} of a {name} is empty")
    if xmin < 1 or ymin < 1 or xmax > width or ymax > height:
        raise _Refused(f"the box {shown} of a {name} is outside the image of {width:g} x {height:g} pixels")
    return [_LABELS[name], difficult, *corners]


def _child(element: Element, tag: str) -> Element:
    found = element.find(tag)
    if found is None:
        raise _Refused(f"<{element.tag}> lacks <{tag}>")
    return found


def _number(element: Element, tag: str) -> float:
    text = (_child(element, tag).text or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Refused(f"<{tag}> is no number: {text!r}")
    return value
