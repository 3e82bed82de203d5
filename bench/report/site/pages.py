"""The pages: index, tables, methods, protocols."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bench import identity, registry
from bench.errors import printable
from bench.files import canonical
from bench.protocols import definitions
from bench.report import bibliography, prose
from bench.report.cell import Cell
from bench.report.render import by_source, render
from bench.report.site import pretraining
from bench.report.site.frame import Files, page, slug, words
from bench.report.site.sections import Store, numbers
from bench.report.spec import column_names
from bench.report.table import MARK_OF_STATUS, MEANING_OF_STATUS, Drawing

_DOWNLOADS = {"csv": "csv", "tex": "latex"}


@dataclass(frozen=True)
class Place:
    """A cell, and what it is of."""

    suite: str
    reads: str
    backbone: str
    data: str
    options: str
    cell: Cell


@dataclass(frozen=True)
class Printed:
    """What a paper printed of a method."""

    href: str
    title: str
    row: str
    numbers: str


def write_pages(store: Store, files: Files) -> None:
    """Write every page, and what is to be downloaded from it."""
    _index(store, files)
    _tables(store, files)
    _methods(store, files)
    _protocols(store, files)


def _index(store: Store, files: Files) -> None:
    for board in store.boards:
        _write_downloads(f"leaderboard.{slug(board.suite.name)}", board.drawing, files)
    tables: dict[str, list[dict[str, Any]]] = {}
    for of in sorted(store.specs, key=lambda of: of.suite or "~"):
        scale = store.suites[of.suite].title if of.suite in store.suites else "Other networks"
        tables.setdefault(scale, []).append(
            {
                "href": f"tables/{slug(of.name)}.html",
                "title": of.title,
                "source": f"{of.source.paper}, {of.source.table}",
                "measured": [s.drawing.suite for s in store.sections[of.name] if any(numbers(s.drawing))],
            }
        )
    methods = [
        {
            "href": _links(store, "")[entry.key],
            "title": printable(entry.title),
            "role": str(entry.facts.get("role", "pretext")),
            "summary": printable(prose.summary(entry.doc)),
        }
        for entry in store.methods
    ]
    found = [definitions.load(name) for name in registry.names("protocols")]
    protocols = [
        {"href": f"protocols/{slug(one.name)}.html", "title": one.title, "variants": list(one.variants)}
        for one in found
    ]
    said = {"tables": tables, "methods": methods, "protocols": protocols, "unknown": store.unknown}
    files.write("index.html", page("index", "", boards=store.boards, pages=_links(store, ""), **said))


def _tables(store: Store, files: Files) -> None:
    for of in store.specs:
        sections = store.sections[of.name]
        for section in sections:
            _write_downloads(section.file, section.drawing, files)
            for figure in section.figures:
                files.write_figure(figure)
        first = sections[0].drawing
        sources = [(row, by_source(first, row)) for row in first.rows if row.published]
        pages = _links(store, "../")
        text = page("table", "../", spec=of, sections=sections, sources=sources, pages=pages)
        files.write(f"tables/{slug(of.name)}.html", text)


def _methods(store: Store, files: Files) -> None:
    places, printed, papers = _places(store), _printed(store), bibliography.papers()
    trained = pretraining.load(store.runs)
    for entry in store.methods:
        own = places.get(entry.key, [])
        measured = [one for one in own if one.cell.value is not None]
        done = trained.get(entry.key, [])
        curves = list(pretraining.curves(entry, done))
        for figure in curves:
            files.write_figure(figure)
        citation = printable(str(entry.facts.get("citation") or ""))
        heads, rows = _recipes(store, entry, [one.suite for one in measured])
        text = page(
            "method",
            "../",
            entry=entry,
            role=str(entry.facts.get("role", "pretext")),
            needs=", ".join(sorted(entry.facts.get("needs", {"image"}))),
            families=registry.families(entry.key),
            citation=citation,
            paper=papers.get(citation),
            idea=prose.html(entry.doc),
            recipe_heads=heads,
            recipe=rows,
            curves=curves,
            metrics=pretraining.metrics(done),
            picture=pretraining.picture(done),
            measured=measured,
            commands=_commands(measured),
            open=[one for one in own if one.cell.value is None],
            printed=printed.get(entry.key, []),
            meanings={MARK_OF_STATUS[status]: text for status, text in MEANING_OF_STATUS.items()},
        )
        files.write(f"methods/{slug(entry.key)}.html", text)


def _protocols(store: Store, files: Files) -> None:
    for entry in registry.entries("protocols"):
        found = definitions.load(entry.key)
        tables = [of for of in store.specs if any(column.protocol == entry.key for column in of.columns)]
        text = page(
            "protocol",
            "../",
            entry=entry,
            role=found.role,
            idea=prose.html(entry.doc),
            tables=[{"href": f"../tables/{slug(of.name)}.html", "title": of.title} for of in tables],
            suites=list(_digests(store, found)),
            variants=list(_variants(found)),
        )
        files.write(f"protocols/{slug(entry.key)}.html", text)


def _links(store: Store, root: str) -> dict[str, str]:
    """{method: the link to its page}."""
    return {entry.key: f"{root}methods/{slug(entry.key)}.html" for entry in store.methods}


def _write_downloads(stem: str, drawing: Drawing, files: Files) -> None:
    for suffix, fmt in _DOWNLOADS.items():
        files.write(f"tables/{stem}.{suffix}", render(drawing, fmt))


def _places(store: Store) -> dict[str, list[Place]]:
    """{method: every cell of it that some table shows}, each once."""
    found: dict[str, dict[tuple[str, ...], Place]] = {}
    sections = [section for own in store.sections.values() for section in own if section.measures]
    for drawing in [*(board.drawing for board in store.boards), *(section.drawing for section in sections)]:
        for row in drawing.rows:
            own = found.setdefault(row.method, {})
            options = canonical(row.options)
            for column, cell in zip(drawing.columns, row.cells, strict=True):
                at = Place(drawing.suite, column.reads, row.backbone, row.pretraining_data, options, cell)
                key = (at.suite, at.reads, at.backbone, at.data, options, cell.protocol, cell.variant)
                own.setdefault(key, at)
    return {
        method: sorted(own.values(), key=lambda one: (one.suite, one.cell.protocol)) for method, own in found.items()
    }


def _commands(places: Iterable[Place]) -> list[tuple[str, str]]:
    """(command, the columns that it computes)."""
    shared: dict[str, list[str]] = {}
    for one in places:
        if one.cell.command:
            shared.setdefault(one.cell.command, []).append(one.reads)
    return [(command, ", ".join(dict.fromkeys(columns))) for command, columns in shared.items()]


def _printed(store: Store) -> dict[str, list[Printed]]:
    """{method: the numbers that papers printed of it}."""
    found: dict[str, list[Printed]] = {}
    for of in store.specs:
        names = column_names(of.columns)
        for row in of.rows:
            pairs = [
                (name, of.published.get((row.published, column.key)))
                for name, column in zip(names, of.columns, strict=True)
            ]
            told = ", ".join(
                f"{printable(name)} {number.text}{MARK_OF_STATUS[number.status]}" for name, number in pairs if number
            )
            if told:
                label = printable(row.label or row.published)
                made = Printed(f"../tables/{slug(of.name)}.html", of.title, label, told)
                found.setdefault(row.method, []).append(made)
    return found


def _recipes(
    store: Store, entry: registry.Entry, at: Iterable[str]
) -> tuple[list[str], list[tuple[str, tuple[str, ...]]]]:
    """(a heading a recipe, (setting, its value in each recipe))."""
    own = entry.facts.get("recipe")
    if own is None:
        return [], []
    made = {"as published": own}
    for name in dict.fromkeys(at):
        made[f"suite {name}"] = identity.recipe(store.suites[name], entry.key) or own
    flat = [recipe.to_dict() for recipe in made.values()]
    keys = dict.fromkeys(key for one in flat for key in one if key != "kind")
    return list(made), [(key.replace("_", " "), tuple(words(one.get(key, "")) for one in flat)) for key in keys]


def _digests(store: Store, found: definitions.Definition) -> Iterator[dict[str, str]]:
    """The standard variant at every suite that binds the protocol's role."""
    for at in store.suites.values():
        if found.role in at.roles and not definitions.obstacle(found.name, "standard", at, at.backbone):
            role = at.roles[found.role]
            yield {
                "suite": at.name,
                "digest": found.variant("standard", at, at.backbone).digest,
                "data": f"{role.dataset}: {'+'.join(role.train)}, tested on {'+'.join(role.test)}",
                "overrides": words(at.protocols.get(found.name, {})) or "none",
            }


def _variants(found: definitions.Definition) -> Iterator[dict[str, Any]]:
    for name, backbone in found.places():
        made = found.variant(name, None, backbone)
        yield {
            "key": slug(f"variant-{name}" + (f"-{backbone}" if backbone else "")),
            "title": f"{name} on {backbone}" if backbone else name,
            "digest": made.digest,
            "definition": [(key, words(value)) for key, value in made.definition.items() if key != "deviations"],
            "deviations": made.definition.get("deviations", []),
        }
