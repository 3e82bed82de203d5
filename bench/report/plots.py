"""Figures of a table or a run, as SVG and PDF: the same data give the same bytes. Imports no torch.

Colours are drawn by the names of :data:`INK`; a page shows the SVG with the style sheet's variables in their place,
so that it follows the page from light to dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox

INK = {
    "ink": "#1d2327",
    "soft": "#5a656e",
    "line": "#dfe3e6",
    "c0": "#1f6fb2",
    "c1": "#b85c00",
    "c2": "#0b7a53",
    "c3": "#7b4fb5",
    "c4": "#b5303c",
    "c5": "#0f7c8a",
    "c6": "#6b6f00",
    "c7": "#a83c85",
}
"""Colours of a light page, by their variables in ``templates/site/site.css``."""

COLOURED = 8
"""Curves that have a colour of their own; the others are grey."""

once = lru_cache(maxsize=512)
"""The same figure is drawn once a process: embedding the fonts of a PDF takes a third of a second."""

_SERIES = [name for name in INK if name.startswith("c")]
_MARKERS = "osD^vPX*"
_WIDTH = 5.2
"""Inches."""
_SETTINGS = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.parse_math": False,
    "text.color": INK["ink"],
    "axes.edgecolor": INK["soft"],
    "axes.labelcolor": INK["ink"],
    "axes.titlecolor": INK["ink"],
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK["line"],
    "grid.linewidth": 0.7,
    "xtick.color": INK["soft"],
    "ytick.color": INK["soft"],
    "xtick.labelcolor": INK["ink"],
    "ytick.labelcolor": INK["ink"],
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Figure:
    """One figure, in its formats."""

    name: str
    """Of its files, without suffix."""
    title: str
    caption: str
    svg: str
    """As a file."""
    pdf: bytes

    @property
    def inline(self) -> Markup:
        """The SVG to stand in a page: in the page's colours, under its title for those who hear it."""
        body = re.sub(r"^.*?(?=<svg)", "", self.svg, flags=re.S)
        body = re.sub(r"<(metadata|style|title)\b.*?</\1>", "", body, flags=re.S)
        body = re.sub(r'<g id="[^"]*"', "<g", body)
        for name, colour in INK.items():
            body = body.replace(colour, f"var(--{name})")
        about = f'<svg role="img" aria-label="{escape(self.title)}. {escape(self.caption)}"'
        return Markup(body.replace("<svg", about, 1))


@dataclass(frozen=True)
class Curve:
    """One line: a row over columns, or a quantity over training."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    reference: bool = False


@dataclass(frozen=True)
class Point:
    """One row, published against measured; ``low`` and ``high`` bound ``y``."""

    label: str
    series: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One quantity over training."""

    title: str
    curves: tuple[Curve, ...]
    level: float | None = None
    """A horizontal line, such as chance."""


@once
def across(name: str, title: str, caption: str, ticks: tuple[str, ...], unit: str, curves: tuple[Curve, ...]) -> Figure:
    """Values over columns, such as layers: the best ``COLOURED`` in colour, named at their ends, references dashed, the
    others grey."""
    ranked = sorted((c for c in curves if not c.reference), key=lambda c: -max(c.y))
    coloured = {id(curve): (INK[key], mark) for curve, key, mark in zip(ranked, _SERIES, _MARKERS, strict=False)}
    references = [curve for curve in curves if curve.reference][:2]
    height = max(3.1, 0.21 * (len(coloured) + len(references)) + 1.0)

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_axes((0.095, 0.5 / height, 0.52, 1 - 0.9 / height))
        for curve in reversed(ranked[len(coloured) :]):
            axes.plot(curve.x, curve.y, color=INK["line"], linewidth=1.2)
        for curve in references:
            axes.plot(curve.x, curve.y, color=INK["soft"], linestyle=(0, (4, 2)))
        for curve in reversed(ranked[: len(coloured)]):
            colour, mark = coloured[id(curve)]
            if curve.low:
                axes.fill_between(
                    curve.x, curve.low, curve.high, color=colour, alpha=0.4 / (2 + len(coloured)), linewidth=0
                )
            axes.plot(curve.x, curve.y, color=colour, marker=mark)
        axes.set_xticks(range(len(ticks)), [_short(tick, 14) for tick in ticks])
        axes.set_xlim(-0.2, len(ticks) - 0.8)
        axes.set_ylabel(unit)
        axes.set_title(_short(title, 60))
        ends = [(c.y[-1], c.label, coloured[id(c)][0], c.x[-1]) for c in ranked[: len(coloured)]]
        ends += [(c.y[-1], c.label, INK["soft"], c.x[-1]) for c in references]
        _name_ends(axes, ends, len(ticks) - 0.8, height)

    return _drawn(name, title, caption, (_WIDTH, height), draw)


@once
def against(
    name: str, title: str, caption: str, axes_titles: tuple[str, str], points: tuple[Point, ...], *, ranks: bool
) -> Figure:
    """What was measured over what was published, with the line on which both are the same."""
    series = list(dict.fromkeys(point.series for point in points))
    limits = [v for p in points for v in (p.x, p.y, p.low, p.high) if v is not None]
    room = 0.7 if ranks else 0.06 * (max(limits) - min(limits) or 1)
    low, high = min(limits) - room, max(limits) + room
    named = len(series) == 1

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_axes((0.12, 0.14, 0.62, 0.77))
        axes.plot([low, high], [low, high], color=INK["soft"], linewidth=1, linestyle=(0, (4, 2)))
        for number, (one, key, mark) in enumerate(zip(series, cycle(_SERIES), cycle(_MARKERS), strict=False)):
            own = [p for p in points if p.series == one]
            if ranks:  # the same ranks in several columns stand side by side
                own = [replace(p, x=p.x + 0.12 * (number - (len(series) - 1) / 2)) for p in own]
            for p in own:
                if p.low is not None and p.high is not None:
                    axes.plot([p.x, p.x], [p.low, p.high], color=INK[key], linewidth=1, alpha=0.6)
            axes.plot([p.x for p in own], [p.y for p in own], mark, color=INK[key], label=_short(one, 22))
        ends = (high, low) if ranks else (low, high)  # the first rank stands at the top right
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
        axes.set_xlabel(axes_titles[0])
        axes.set_ylabel(axes_titles[1])
        axes.set_title(_short(title, 60))
        if ranks:
            axes.locator_params(integer=True)
        if named:
            _name_points(canvas, axes, points)
        else:
            axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    return _drawn(name, title, caption, (_WIDTH, 3.9), draw)


@once
def training(name: str, title: str, caption: str, panels: tuple[Panel, ...]) -> Figure:
    """Quantities over epochs, a panel each."""
    height = 1.9 * len(panels)

    def draw(canvas: Canvas) -> None:
        for number, panel in enumerate(panels):
            top = 1 - number / len(panels)
            axes = canvas.add_axes((0.12, top - 1 / len(panels) + 0.45 / height, 0.74, (1.9 - 0.75) / height))
            for curve, key in zip(panel.curves, cycle(_SERIES), strict=False):
                axes.plot(curve.x, curve.y, color=INK[key])
            if panel.level is not None:
                axes.axhline(panel.level, color=INK["soft"], linewidth=1, linestyle=(0, (4, 2)))
                edge = axes.get_xlim()[1]
                _name_ends(axes, [(panel.level, "chance", INK["soft"], edge)], edge, height)
            axes.set_title(panel.title)
            axes.set_xlabel("epoch")
            axes.margins(x=0.02)
            axes.locator_params(axis="y", nbins=5)

    return _drawn(name, title, caption, (_WIDTH, height), draw)


def _name_points(canvas: Canvas, axes: Axes, points: tuple[Point, ...]) -> None:
    """Write every point's label beside it, on the first side that is free of other labels and of points."""
    renderer = FigureCanvasAgg(canvas).get_renderer()
    places = axes.transData.transform([(p.x, p.y) for p in points])
    taken: list[Bbox] = []
    sides = [(5, 3), (5, -9), (-5, 3), (-5, -9)]
    for p in points:
        notes = [
            axes.annotate(
                _short(p.label, 24),
                (p.x, p.y),
                side,
                textcoords="offset points",
                fontsize=7.5,
                horizontalalignment="left" if side[0] > 0 else "right",
            )
            for side in sides
        ]
        boxes = [note.get_window_extent(renderer) for note in notes]
        free = [not box.count_overlaps(taken) and not box.count_contains(places) for box in boxes]
        chosen = free.index(True) if True in free else 0
        taken.append(boxes[chosen])
        for note in notes[:chosen] + notes[chosen + 1 :]:
            note.remove()


def _name_ends(axes: Axes, ends: list[tuple[float, str, str, float]], edge: float, tall: float) -> None:
    """Write the names of (y, label, colour, last x) beside the axes of a figure so many inches tall, each as near its
    line as the others allow."""
    bottom, top = axes.get_ylim()
    inches = axes.get_position().height * tall
    step = 0.175 / inches * (top - bottom)
    at = sorted(ends, key=lambda end: -end[0])
    places = [end[0] for end in at]
    for i in range(1, len(places)):
        places[i] = min(places[i], places[i - 1] - step)
    lowest = bottom - 0.1 * step
    if places and places[-1] < lowest:
        places[-1] = lowest
        for i in range(len(places) - 2, -1, -1):
            places[i] = max(places[i], places[i + 1] + step)
    for place, (y, label, colour, x) in zip(places, at, strict=True):
        axes.annotate(
            _short(label, 30),
            (x, y),
            (edge + 0.02 * (edge - axes.get_xlim()[0]), place),
            color=colour,
            fontsize=8,
            verticalalignment="center",
            annotation_clip=False,
        )
    axes.set_ylim(bottom, top)


def _drawn(name: str, title: str, caption: str, inches: tuple[float, float], draw: Callable[[Canvas], None]) -> Figure:
    default = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    settings: dict[Any, Any] = {**default, **_SETTINGS, "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=inches)
        draw(canvas)
        svg, pdf = io.StringIO(), io.BytesIO()
        canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
        canvas.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return Figure(name, title, caption, svg.getvalue(), pdf.getvalue())


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
