"""Arguments that users give by name, in suites or from Python: known to a constructor, and of the type it states."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from bench.errors import BenchError, did_you_mean


def check(arguments: Mapping[str, Any], of: type, kind: str, *, after: int = 0) -> None:
    """Refuse what the constructor of ``of`` does not take; its first ``after`` parameters are not the user's.

    A whole number does for a fraction, and a list for any sequence; a value never stands for one of another type.

    Args:
        kind: what such an argument is called, "option of nat".

    Raises:
        BenchError: an argument that is unknown, or of another type than annotated.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    known = dict(list(inspect.signature(of).parameters.items())[after:])
    for name, value in arguments.items():
        if name not in known:
            raise did_you_mean(kind, name, list(known))
        stated = known[name].annotation
        adapter = TypeAdapter(_evaluated(stated, of), config=ConfigDict(arbitrary_types_allowed=True))
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError:
            raise BenchError(f"{kind}: {name} cannot be {value!r}", mend=f"its type is {stated}") from None


def _evaluated(annotation: Any, of: type) -> Any:
    """The type that an annotation names; any, where there is none, or one that only type checkers import."""
    if annotation is inspect.Parameter.empty:
        return Any
    try:
        return eval(annotation, vars(sys.modules[of.__module__])) if isinstance(annotation, str) else annotation
    except NameError:
        return Any
