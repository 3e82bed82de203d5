"""A drawing for the terminal."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bench.report import layout
from bench.report.cell import Cell
from bench.report.layout import Block, Entry, Line
from bench.report.table import Drawing

_NARROWEST = 16
"""Characters that a label has at least."""

_HEAD = 10
"""Characters in a line of a column's heading, where it has more than one word."""


def terminal(drawing: Drawing, width: int, colour: bool) -> str:
    """The drawing in lines of ``width`` characters; longer where a table does not fit, for no number is ever cut."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        _environ={},
    )
    console.print(Text(drawing.title, "bold"), Text(drawing.caption), sep="\n")
    for block in layout.blocks(drawing):
        console.print(Text(), Text(block.heading, "bold"), sep="\n")
        for line in _ruled(block, width):
            console.print(line, no_wrap=True, crop=False, overflow="ignore")
    console.print()
    for sentence in _legend(drawing):
        console.print(Text(sentence, "dim"))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _legend(drawing: Drawing) -> Iterator[str]:
    yield from (sentence.replace("Bold:", "*:") for sentence in drawing.reading)
    yield from (f"{note.mark} {note.text}" for note in drawing.notes)
    yield from drawing.remarks
    for one in drawing.protocols:
        yield f"{one.protocol} v{one.version}, {one.variant}, digest {one.digest}: {layout.identity(one)}"
    if command := layout.command(drawing):
        yield f"A cell: {command}"


def _ruled(block: Block, width: int) -> Iterator[Text]:
    """Head, rule and rows. Where published and measured stand side by side elsewhere, they stand one under the other
    here: the columns stay few, and what is compared stands close."""
    both = block.kind == "both"
    corner, *words = block.flat
    heads = [head.removesuffix(" publ.") for head in words[::2]] if both else words
    stacked = [textwrap.wrap(head, _HEAD, break_long_words=False) for head in heads]
    room = max((len(layout.marks(entry)) for line in block.lines for entry in line.entries), default=0)
    rows = [_stacks(line, both, room) for line in block.lines]
    if both:
        stacked.insert(0, [])
    depth = max(map(len, stacked))
    head = [[Text(text) for text in [""] * (depth - len(stack)) + stack] for stack in stacked]
    widths = [max(text.cell_len for row in [head, *rows] for text in row[i]) for i in range(len(head))]
    labels = [line.label + (" (reference)" if line.row.reference else "") for line in block.lines]
    rest = width - sum(wide + 2 for wide in widths)
    first = min(max(map(cell_len, [corner, *labels])), max(rest, _NARROWEST))
    yield from (Text.assemble(line, style="bold") for line in _side_by_side(corner, head, first, widths))
    yield Text("─" * (first + sum(wide + 2 for wide in widths)))
    for label, row in zip(labels, rows, strict=True):
        yield from _side_by_side(label, row, first, widths)


def _stacks(line: Line, both: bool, room: int) -> list[list[Text]]:
    """One column of texts for each column of the table."""
    stacks = [_stack(entry, room) for entry in line.entries]
    if not both:
        return stacks
    pairs = zip(stacks[::2], stacks[1::2], strict=True)
    return [[Text("published", "dim"), Text("measured")], *([*printed, *ours] for printed, ours in pairs)]


def _stack(entry: Entry, room: int) -> list[Text]:
    """A number, and its spread under it. The best carry a star: weight and colour do not survive a pipe."""
    best = isinstance(entry, Cell) and entry.best
    word = isinstance(entry, Cell) and entry.value is None
    number = Text("*" if best else "")
    number.append(layout.value(entry), "bold green" if best else "dim" if word else "")
    number.append(layout.marks(entry).ljust(0 if word else room))
    spread = layout.spread(entry)
    return [number, Text(spread, "dim")] if spread else [number]


def _side_by_side(label: str, stacks: list[list[Text]], first: int, widths: list[int]) -> Iterator[Text]:
    """The lines of one row: the label wrapped on the left, each stack in its column on the right."""
    lefts = textwrap.wrap(label, first)
    for i in range(max(len(lefts), *map(len, stacks))):
        line = Text(lefts[i] if i < len(lefts) else "")
        line.pad_right(first - line.cell_len)
        for stack, wide in zip(stacks, widths, strict=True):
            text = stack[i] if i < len(stack) else Text()
            line.pad_right(2 + wide - text.cell_len)
            line.append(text)
        yield line
