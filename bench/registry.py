"""Finds methods, backbones and protocols: built-ins by file name, third parties by entry point.

A method may also be only weights and results, declared in ``tables/added/<key>.toml`` (:mod:`bench.submission`).

A registered thing is one class in one file. What lists and tables need of it (``title``, ``citation``,
``version``, ``needs``, ``recipe``, ...) are literals in the class body, read from the source with
:mod:`ast`: nothing is imported until :meth:`Entry.load` is called, so listing never imports torch.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError, did_you_mean, printable
from bench.paths import declared
from bench.training import recipe as recipe_words

Kind = Literal["methods", "backbones", "protocols"]

_HERE = Path(__file__).parent
_LITERALS = {"title", "citation", "version", "role", "needs", "supports", "recipe", "variants", "chance", "statistic"}
"""What must be readable without importing: a value that is not a literal is an error, never passed over."""
_RECIPE_WORDS = {name: getattr(recipe_words, name) for name in recipe_words.__all__}


@dataclass(frozen=True)
class Entry:
    """One registered class, described without importing it."""

    kind: Kind
    key: str
    module: str
    class_name: str
    file: Path
    origin: str
    """``"built-in"``, ``"added"`` (weights without code), or the distribution that brings it."""
    facts: dict[str, Any] = field(hash=False)
    """The literals of the class body: title, citation, version, ..."""
    doc: str = ""
    """The module's docstring, or the class's where the module has none."""

    @property
    def version(self) -> int:
        """Bumped whenever a change can move a number."""
        return int(self.facts["version"])

    @property
    def title(self) -> str:
        """As tables print it."""
        return str(self.facts["title"])

    def load(self) -> type:
        """Import the module and return the class.

        Raises:
            BenchError: the module does not import, or has no such class.
        """
        try:
            found = getattr(importlib.import_module(self.module), self.class_name)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise BenchError(f"{self.kind[:-1]} {self.key!r} does not load: {error}", where=self.file) from error
        return found


def names(kind: Kind) -> list[str]:
    """The sorted keys of everything registered as ``kind``."""
    return sorted(_entries(kind))


def entry(kind: Kind, key: str) -> Entry:
    """The entry of that name.

    Raises:
        BenchError: there is none (with the nearest names).
    """
    found = _entries(kind)
    if key not in found:
        raise did_you_mean(kind[:-1], key, list(found))
    return found[key]


def entries(kind: Kind) -> list[Entry]:
    """Every entry of ``kind``, sorted by key."""
    return [_entries(kind)[key] for key in names(kind)]


def family(backbone: str) -> str:
    """The architecture that a backbone is a variant of, by the name of its file: ``alexnet``, ``resnet``, ...

    Raises:
        BenchError: unknown backbone.
    """
    return _key(entry("backbones", backbone).file.stem)


def shape(backbone: str) -> dict[str, Any]:
    """What a backbone's source states literally: the variant's arguments over the class's attributes.

    Raises:
        BenchError: unknown backbone.
    """
    facts = entry("backbones", backbone).facts
    return {**facts, **facts.get("variants", {}).get(backbone, {})}


def families(method: str) -> list[str]:
    """The built-in architectures that a method runs on, by its literal ``supports``; all, unless it says.

    Raises:
        BenchError: unknown method.
    """
    stated = entry("methods", method).facts.get("supports")
    return sorted(_built_in_families() if stated is None else stated)


def misfit(method: str, backbone: str) -> str:
    """Why a method cannot run on a backbone; empty where it can.

    One that runs on every built-in architecture is taken to run on those of third parties too.

    Raises:
        BenchError: unknown method or backbone.
    """
    known, own = families(method), family(backbone)
    only = entry("methods", method).facts.get("backbone")
    if only and backbone != only:
        return f"the weights of {method} are those of {only}"
    if own in known or (own not in _built_in_families() and _built_in_families() <= set(known)):
        return ""
    return f"{method} does not run on {own}"


def refuse_misfit(method: str, backbone: str) -> None:
    """Raises BenchError: unknown method or backbone, or the method cannot run on the backbone."""
    why = misfit(method, backbone)
    if why:
        raise BenchError(why, mend=f"it runs on {', '.join(families(method))}")


def _built_in_families() -> set[str]:
    return {_key(e.file.stem) for e in entries("backbones") if e.origin == "built-in"}


def refresh() -> None:
    """Forget what was found; the next look-up searches again (for tests and long-lived processes)."""
    _entries.cache_clear()


@cache
def _entries(kind: Kind) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for file in sorted((_HERE / kind).glob("[!_]*.py")):
        for new in _read(kind, _key(file.stem), f"bench.{kind}.{file.stem}", file, None, "built-in"):
            _add(found, new)
    for point in importlib.metadata.entry_points(group=f"bench.{kind}"):
        module, _, class_name = point.value.partition(":")
        origin = point.dist.name if point.dist else module
        for new in _read(kind, point.name, module, _source(module), class_name or None, origin):
            _add(found, new)
    for added in _added() if kind == "methods" else ():
        _add(found, added)
    return found


def _added() -> Iterator[Entry]:
    """The methods of ``tables/added``: what is asked of a method is read from there, as it is from a class."""
    for file in sorted((declared("tables") / "added").glob("*.toml")):
        try:
            said = tomllib.loads(file.read_text(encoding="utf-8"))
            needs = set(said.get("needs", ["image"]))
            facts: dict[str, Any] = {key: printable(said[key]) for key in ("title", "citation", "backbone")}
            facts |= {"version": int(said.get("version", 1)), "weights": dict(said.get("weights", {}))}
            idea = "\n".join(map(printable, str(said.get("idea", "")).splitlines()))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BenchError(f"cannot read the added method: {error!r}", where=file) from error
        facts |= {"role": "reference" if "label" in needs else "pretext", "needs": needs, "recipe": None}
        yield Entry("methods", file.stem, "bench.methods._added", "Added", file, "added", facts, idea)


def _add(found: dict[str, Entry], new: Entry) -> None:
    old = found.get(new.key)
    if old is not None:
        raise BenchError(
            f"two {new.kind} are called {new.key!r}: {old.origin} ({old.module}) and {new.origin} ({new.module})",
            mend="rename one of them, or uninstall it",
        )
    found[new.key] = new


def _key(stem: str) -> str:
    return stem.replace("_", "-")


def _source(module: str) -> Path:
    """The file of a module, found without importing it or its parents."""
    path: list[str] | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = None
        for finder in sys.meta_path:
            look = getattr(finder, "find_spec", None)
            spec = look(name, path) if look else None
            if spec is not None:
                break
        if spec is None:
            raise BenchError(f"entry point names module {module!r}, which is not installed")
        path = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None:
        raise BenchError(f"entry point names module {module!r}, which has no source file")
    return Path(spec.origin)


def _read(kind: Kind, key: str, module: str, file: Path, class_name: str | None, origin: str) -> list[Entry]:
    """The entries that one file declares: the class with a ``title``, or none (a base or helper module)."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise BenchError(f"{kind[:-1]} {key!r} cannot be read: {error}", where=file) from error
    doc = ast.get_docstring(tree) or ""
    made = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or (class_name and node.name != class_name):
            continue
        facts = _facts(node, file)
        if "title" not in facts:
            continue
        if not isinstance(facts.get("version"), int):
            raise BenchError(f"{kind[:-1]} {key!r} states no integer version", where=file)
        text = doc or ast.get_docstring(node) or ""
        variants = facts.get("variants")
        for name in variants if isinstance(variants, dict) else [key]:
            made.append(Entry(kind, name, module, node.name, file, origin, facts, text))
    if class_name and not made:
        raise BenchError(
            f"entry point {key!r} names class {class_name!r}, which states no title",
            where=file,
            mend="give the class the literals title, citation and version",
        )
    return made


def _facts(node: ast.ClassDef, file: Path) -> dict[str, Any]:
    """Class-level assignments whose values are literals, or built of literals by the words of a recipe."""
    facts: dict[str, Any] = {}
    for item in node.body:
        pairs: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(item, ast.Assign) and len(item.targets) == 1:
            target = item.targets[0]
            if isinstance(target, ast.Tuple) and isinstance(item.value, ast.Tuple):
                pairs = list(zip(target.elts, item.value.elts, strict=True))
            else:
                pairs = [(target, item.value)]
        elif isinstance(item, ast.AnnAssign) and item.value is not None:
            pairs = [(item.target, item.value)]
        for name, value in pairs:
            if isinstance(name, ast.Name):
                try:
                    facts[name.id] = _literal(value)
                except (ValueError, TypeError) as error:
                    if name.id in _LITERALS:
                        raise BenchError(
                            f"{node.name}.{name.id} is not a literal: {error}",
                            where=file,
                            mend="write plain values, and recipes by the words of bench.training.recipe",
                        ) from error
    return facts


def _literal(value: ast.expr) -> Any:
    """The value of a literal, where calls are allowed to the words of :mod:`bench.training.recipe` only."""
    match value:
        case ast.Call(func=ast.Name(id=word), args=args, keywords=keywords) if word in _RECIPE_WORDS:
            named = {k.arg: _literal(k.value) for k in keywords if k.arg is not None}
            return _RECIPE_WORDS[word](*[_literal(a) for a in args], **named)
        case ast.Dict(keys=keys, values=values):
            return {_literal(k): _literal(v) for k, v in zip(keys, values, strict=True) if k is not None}
        case ast.Tuple(elts=elts):
            return tuple(_literal(e) for e in elts)
        case ast.List(elts=elts):
            return [_literal(e) for e in elts]
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _literal(left) / _literal(right)
        case _:
            return ast.literal_eval(value)
