"""What a user may give by name: every parameter of a constructor, as its annotation says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from bench import arguments, registry
from bench.errors import BenchError

if TYPE_CHECKING:
    from decimal import Decimal


class Toy:
    def __init__(
        self,
        backbone: str,
        count: int = 1,
        share: float = 0.5,
        widths: Sequence[int] = (),
        kind: str | None = None,
        unseen: Decimal | None = None,
        plain=None,
    ) -> None:
        pass


@pytest.mark.parametrize(
    "given",
    [
        {"count": 3},
        {"share": 1},
        {"widths": [1, 2]},
        {"widths": (1, 2)},
        {"kind": None},
        {"kind": "a"},
        {"unseen": "only type checkers know"},
        {"plain": b"anything"},
    ],
    ids=str,
)
def test_what_the_signature_takes_passes(given):
    assert arguments.check(given, Toy, "option of toy", after=1) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"cuont": 3}, "unknown option of toy 'cuont': did you mean count"),
        ({"backbone": "a"}, "unknown option of toy 'backbone'"),
        ({"count": 2.5}, "option of toy: count cannot be 2.5: its type is int"),
        ({"count": True}, "count cannot be True"),
        ({"count": "3"}, "count cannot be '3'"),
        ({"share": "half"}, "share cannot be 'half': its type is float"),
        ({"widths": 7}, "widths cannot be 7"),
        ({"widths": ["a"]}, "widths cannot be"),
        ({"kind": 3}, "kind cannot be 3"),
    ],
    ids=str,
)
def test_anything_else_is_one_line(given, says):
    with pytest.raises(BenchError) as refused:
        arguments.check(given, Toy, "option of toy", after=1)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["methods", "backbones"])
def test_no_annotation_of_ours_is_left_to_type_checkers(kind):
    for entry in registry.entries(kind):
        if entry.origin == "built-in":
            found = entry.load()
            for name, parameter in list(arguments.inspect.signature(found).parameters.items()):
                assert arguments._evaluated(parameter.annotation, found) is not arguments.Any, f"{entry.key}: {name}"
