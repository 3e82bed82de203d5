"""A drawing as text: terminal, Markdown, LaTeX, HTML, CSV or JSON. The same drawing gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.errors import did_you_mean
from bench.files import canonical
from bench.report import layout
from bench.report.cell import Cell
from bench.report.layout import Block, Entry
from bench.report.spec import ColumnSpec, Published, column_names
from bench.report.table import Drawing, Row
from bench.report.terminal import terminal

FORMATS = ("terminal", "markdown", "latex", "html", "csv", "json")

SCHEMA = 1
"""Of the JSON format."""

TEMPLATES = Path(__file__).parent / "templates"


def render(drawing: Drawing, fmt: str, *, width: int = 100, colour: bool = False, standalone: bool = False) -> str:
    """The drawing in one of ``FORMATS``.

    Args:
        width: characters a line, of the terminal format.
        colour: ANSI colours, of the terminal format.
        standalone: LaTeX with a preamble, to be compiled as it is; else to be put into a document with
            ``booktabs`` and ``multirow``.

    Raises:
        BenchError: no such format.
    """
    match fmt:
        case "terminal":
            return terminal(drawing, width, colour)
        case "markdown":
            return _markdown().get_template("markdown.jinja").render(**_words(drawing))
        case "latex":
            return _latex().get_template("latex.jinja").render(**_words(drawing), standalone=standalone)
        case "html":
            return html_environment().get_template("html.jinja").render(**_words(drawing))
        case "csv":
            return _csv(drawing)
        case "json":
            return _json(drawing)
    raise did_you_mean("format", fmt, list(FORMATS))


# what the templates say


class Raw(str):
    """Text that is already in the words of its format: not escaped again."""

    __slots__ = ()


def _words(drawing: Drawing) -> dict[str, Any]:
    return {
        "drawing": drawing,
        "blocks": layout.blocks(drawing),
        "columns": column_names(drawing.columns),
        "protocols": [(one, layout.identity(one)) for one in drawing.protocols],
        "command": layout.command(drawing),
    }


def _environment(**options: Any) -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    made.globals |= {"value": layout.value, "spread": layout.spread, "marks": layout.marks, "facts": layout.facts}
    made.tests["number"] = lambda entry: isinstance(entry, Published)
    return made


# Markdown


@cache
def _markdown() -> Environment:
    made = _environment(finalize=lambda text: text if isinstance(text, Raw) else markdown(str(text)))
    made.filters |= {"aligned": _aligned, "raw": Raw}
    return made


def markdown(text: str) -> str:
    """Text that Markdown prints as it is, in a table too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", text)


def _aligned(block: Block) -> list[Raw]:
    """The lines of a Markdown table, its columns padded to one width."""
    rows = [[markdown(head) for head in block.flat]]
    rows += [[_label(line), *(_markdown_entry(entry) for entry in line.entries)] for line in block.lines]
    return [Raw(line) for line in padded_table(rows)]


def padded_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, its columns of one width, the head first; what stands in it is not escaped."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows
    ]
    return [f"| {' | '.join(cells)} |" for cells in (padded[0], rule, *padded[1:])]


def _label(line: layout.Line) -> str:
    return markdown(line.label) + (" *(reference)*" if line.row.reference else "")


def _markdown_entry(entry: Entry) -> str:
    number = markdown(layout.value(entry))
    if isinstance(entry, Cell) and entry.best:
        number = f"**{number}**"
    elif isinstance(entry, Cell) and entry.value is None:
        number = f"*{number}*"
    return f"{number}{markdown(layout.marks(entry))} {layout.spread(entry)}".rstrip()


# LaTeX


@cache
def _latex() -> Environment:
    made = _environment(
        finalize=lambda text: text if isinstance(text, Raw) else latex(str(text)),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    made.filters |= {"entry": _latex_entry, "key": _key, "rules": _rules, "small": _small}
    return made


_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "{}$&#_%"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"{{{c}}}" for c in "[]*"},  # after a line break they would be its arguments
    '"': r"\char34{}",
    "–": "--",
    "—": "---",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"\textperiodcentered{}",
    "→": r"$\rightarrow$",
    "≈": r"$\approx$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
}


def latex(text: str) -> str:
    """Text that LaTeX prints as it is; letters beyond Latin Extended-A, which pdfTeX's fonts lack, become ``?``."""
    text = "".join(_LATEX.get(c, c if ord(c) < 0x180 else "?") for c in re.sub("-(?=-)", "-\0", text))
    return text.replace("\0", "{}")


def _key(text: str) -> Raw:
    """A citation key or label without what LaTeX would stumble over."""
    return Raw(re.sub(r"[^A-Za-z0-9:._/+-]", "", text))


def _rules(level: Sequence[tuple[str, int]]) -> list[tuple[int, int]]:
    """(first, last) table column of each group that has a heading."""
    last = list(accumulate((span for _, span in level), initial=1))
    return [(a + 1, b) for (a, b), (group, _) in zip(pairwise(last), level, strict=True) if group]


_SIZES = (("", 5.0, 6.0), (r"\small", 4.5, 3.5), (r"\footnotesize", 4.0, 3.0), (r"\scriptsize", 3.5, 2.0))
"""(command, points a character, points on either side of a column)."""
_PAGE = 480
"""Points of a line, as in a page of A4 with margins of two centimetres."""


def _small(block: Block) -> Raw:
    """The largest letters and gaps with which the block fits a page, by its characters; empty: the usual ones."""
    lines = [line for line in block.lines if not line.alike]
    widths = [
        max([len(head), *map(_characters, entries)])
        for head, *entries in zip(block.heads, *(line.entries for line in lines), strict=True)
    ]
    labels = [
        len(line.label) + 5 * bool(line.row.citation) + len(" (reference)") * line.row.reference for line in block.lines
    ]
    characters = max([len(block.corner), *labels]) + sum(widths)
    for level in (block.over, block.groups):
        left = iter(widths)
        characters += sum(max(0, len(heading) - sum(islice(left, span))) for heading, span in level)
    gaps = 2 * (len(widths) + 1)
    command, _, gap = next((s for s in _SIZES if s[1] * characters + s[2] * gaps <= _PAGE), _SIZES[-1])
    return Raw(command and rf"{command}\setlength{{\tabcolsep}}{{{gap}pt}}")


def _minus(number: str) -> str:
    """A number with a minus sign in the place of its hyphen."""
    return re.sub(r"-(?=\d)", "$-$", number)


def _characters(entry: Entry) -> int:
    """How wide an entry is, in characters; tiny ones are half as wide."""
    word = isinstance(entry, Cell) and entry.value is None
    return max(len(layout.value(entry)) // (1 + word), len(layout.spread(entry)) // 2)


def _latex_entry(entry: Entry) -> Raw:
    number = _minus(latex(layout.value(entry)))
    if isinstance(entry, Cell) and entry.best:
        number = rf"\textbf{{{number}}}"
    elif isinstance(entry, Cell) and entry.value is None:
        number = rf"{{\tiny\textit{{{number}}}}}"
    if layout.marks(entry):
        number += rf"\rlap{{\textsuperscript{{{latex(layout.marks(entry))}}}}}"
    if layout.spread(entry):
        spread = rf"{{\tiny {_minus(latex(layout.spread(entry)))}}}"
        number = rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{number}\\[-.6ex]{spread}\end{{tabular}}"
    return Raw(number)


# HTML


@cache
def html_environment() -> Environment:
    """Templates of HTML: whatever is filled in is escaped."""
    made = _environment(autoescape=True)
    made.filters |= {"by_source": by_source, "by_command": _by_command, "told": _told}
    return made


def _told(cell: Cell) -> str:
    return "\n".join(f"{term}: {text}" for term, text in layout.facts(cell).items())


def by_source(drawing: Drawing, row: Row) -> list[tuple[Published, str]]:
    """(one number, the columns that share its status, source and note) of a row, in order."""
    shared: dict[tuple[str, str, str], tuple[Published, list[str]]] = {}
    for name, number in zip(column_names(drawing.columns), row.numbers, strict=True):
        if number:
            shared.setdefault((number.status, number.source, number.note), (number, []))[1].append(name)
    return [(number, ", ".join(titles)) for number, titles in shared.values()]


def _by_command(drawing: Drawing, row: Row) -> list[tuple[Cell, str]]:
    """(one cell, the columns that share its protocol, digest, kind of interval and command) of a row, in order."""
    shared: dict[tuple[str, ...], tuple[Cell, list[str]]] = {}
    for name, cell in zip(column_names(drawing.columns), row.cells, strict=True):
        key = (cell.protocol, cell.variant, cell.digest, cell.interval, cell.command)
        shared.setdefault(key, (cell, []))[1].append(name)
    return [(cell, ", ".join(titles)) for cell, titles in shared.values()]


# for programs


def _csv(drawing: Drawing) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*_measured(drawing), *_published(drawing)])
    return out.getvalue()


_FIELDS = (
    *("block", "table", "suite", "row", "method", "options", "backbone", "pretraining_data", "reference"),
    *("synthetic_motion", "note"),
    *("column", "reads", "state", "reason", "value", "low", "high", "interval", "sd", "seeds", "values", "n", "unit"),
    *("chance", "at_chance", "best", "protocol", "variant", "digest", "data_digest", "other_data", "heldout"),
    *("evidence", "command"),
    *("status", "source"),
)


def _measured(drawing: Drawing) -> Iterator[dict[str, Any]]:
    for row in drawing.rows:
        for column, cell in zip(drawing.columns, row.cells, strict=True):
            yield {
                **asdict(cell),
                **_place(drawing, row, column),
                "block": "measured",
                "suite": drawing.suite,
                "row": row.title,
                "options": canonical(row.options),
                "backbone": row.backbone,
                "pretraining_data": row.pretraining_data,
                "reads": column.reads,
                "seeds": " ".join(map(str, cell.seeds)),
                "values": " ".join(map(str, cell.seeds.values())),
                "evidence": " ".join(cell.evidence),
            }


def _published(drawing: Drawing) -> Iterator[dict[str, Any]]:
    for row in filter(lambda row: row.published, drawing.rows):
        for column, number in zip(drawing.columns, row.numbers, strict=True):
            place = {**_place(drawing, row, column), "block": "published", "row": row.published}
            if number is None:
                yield {**place, "state": "not published"}
            else:
                said = {"value": number.text, "status": number.status, "source": number.source, "note": number.note}
                yield {**place, "state": "published", **said}


def _place(drawing: Drawing, row: Row, column: ColumnSpec) -> dict[str, Any]:
    shared = {key: getattr(row, key) for key in ("method", "reference", "synthetic_motion", "note")}
    return {"table": drawing.table, **shared, "column": column.key}


def _json(drawing: Drawing) -> str:
    """Every field of the drawing, by its name."""
    plain = {"schema": SCHEMA, **asdict(drawing)}
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False, default=lambda model: model.model_dump())
    return f"{text}\n"
