"""The formats: golden files, escaping, and what a reader or a program must find in them.

``BENCH_UPDATE_GOLDEN=1`` writes the golden files anew: look at the difference before you commit it.
"""

import csv
import dataclasses
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.report import layout, render, table

GOLDEN = Path(__file__).parents[1] / "golden"
SUFFIX = {"terminal": "txt", "markdown": "md", "latex": "tex", "html": "html", "csv": "csv", "json": "json"}
HOSTILE = "</td><script>x</script> [bold]a[/bold] \\input{x} $|%` *b* _c_ & \"q\" 'r' \x1b[31m\n#d"


@pytest.fixture
def drawing(house, rotnet, suite, result, state, frames):
    """A function: a table with every state and mark at a toy suite, or at one of a paper's scale."""

    def make(**changes):
        at = suite(**changes)
        rows = [
            *result(at, "supervised", [34.5, 40.4, 43.3, 45.4, 45.2], data_digest="d1"),
            *(r for s in (0, 1, 2) for r in result(at, "random", [28.6 + s, 27.7, 27 - s / 5, 25.5, 24.9], seed=s)),
            *result(at, "random-rescaled", [29.6, 28.7, 3.0, 2.5, 24.9], method_version=0),
            *(r for s in (0, 1) for r in result(at, "rotation", [32.2, 35.0 + s, 35.8, 33.8, 30.2], seed=s)),
            *({**r, "method": "gone"} for r in result(at, "rotation", [1.0] * 5)),
        ]
        return table.draw(rotnet, at, *frames(rows, [state("evaluate", "zeta", "OOM", "why")]))

    return make


@pytest.fixture
def hostile(evil, rotnet, suite, state, frames):
    """A table in which everything that a third party or a failure brings is hostile text."""
    evil(HOSTILE)
    states = [state("evaluate", key, "FAILED", HOSTILE) for key in ("evil", "rotation")]
    return table.draw(rotnet, suite(), *frames((), states))


@pytest.mark.parametrize("fmt", render.FORMATS)
def test_golden(drawing, fmt):
    # archives of the same arrays are not the same bytes everywhere
    text = re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", render.render(drawing(), fmt))
    file = GOLDEN / f"table_imagenet-linear.{SUFFIX[fmt]}"
    if os.environ.get("BENCH_UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"{file.name} differs; see this module's docstring"


@pytest.mark.parametrize("fmt", render.FORMATS)
def test_the_same_bytes_again(drawing, fmt):
    assert render.render(drawing(), fmt) == render.render(drawing(), fmt)
    text = render.render(drawing(paper=True), fmt)
    assert text == render.render(drawing(paper=True), fmt)
    assert text.endswith("\n")
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_unknown_format(drawing):
    with pytest.raises(BenchError, match="did you mean html"):
        render.render(drawing(), "htm")


def test_mini_numbers_never_stand_in_the_papers_table(drawing):
    measured, published = layout.blocks(drawing())
    assert "Measured at suite toy (toy on scenes): not comparable" in measured.heading
    assert all(isinstance(entry, table.Cell) for line in measured.lines for entry in line.entries)
    assert not any(isinstance(entry, table.Cell) for line in published.lines for entry in line.entries)
    assert not any(line.label.startswith("Zeta") for line in published.lines)
    (both,) = layout.blocks(drawing(paper=True))
    assert both.heads == ("publ.", "meas.") * 5
    assert [text for text, _ in both.groups] == ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_several_groups(drawing):
    drawn = drawing()
    first, *rest = drawn.columns
    columns = (first.model_copy(update={"group": "Early"}), *rest)
    object.__setattr__(drawn, "columns", columns)
    block, _ = layout.blocks(drawn)
    assert block.groups == (("Early", 1), ("Linear classifier on", 4))
    assert block.flat[:3] == ("Method", "Early conv1", "Linear classifier on conv2")
    assert r"\cmidrule(lr){2-2}" in render.render(drawn, "latex")
    assert r"\cmidrule(lr){3-6}" in render.render(drawn, "latex")


def test_groups_over_pairs_of_printed_and_measured(drawing):
    drawn = drawing(paper=True)
    first, *rest = drawn.columns
    object.__setattr__(drawn, "columns", (first.model_copy(update={"group": "Early"}), *rest))
    (block,) = layout.blocks(drawn)
    assert block.over == (("Early", 2), ("Linear classifier on", 8))
    assert block.groups[:2] == (("conv1", 2), ("conv2", 2))
    assert block.flat[:4] == ("Method", "Early conv1 publ.", "Early conv1 meas.", "Linear classifier on conv2 publ.")
    text = render.render(drawn, "latex")
    assert r"\multirow{3}{*}{Method} & \multicolumn{2}{c}{Early} & \multicolumn{8}{c}{Linear classifier on}" in text
    assert r"\cmidrule(lr){2-3}" in text
    (head, *_) = re.findall(r"<thead>.*?</thead>", render.render(drawn, "html"), flags=re.S)
    assert 'rowspan="3"' in head
    assert [int(n) for n in re.findall(r'colspan="(\d)"', head)] == [2, 8, 2, 2, 2, 2, 2]
    assert "Linear\n" in render.render(drawn, "terminal")


def test_a_wide_table_is_not_drawn_in_pairs(drawing):
    drawn = drawing(paper=True)
    object.__setattr__(drawn, "columns", drawn.columns * 2)
    object.__setattr__(drawn, "units", drawn.units * 2)
    measured, published = layout.blocks(drawn)
    assert "not comparable" not in measured.heading
    assert published.kind == "published"


def test_negative_numbers(drawing):
    drawn = drawing()
    random = next(row for row in drawn.rows if row.method == "random")
    told = {"low": -1.25, "high": 0.04, "sd": None, "best": False}
    cells = [dataclasses.replace(random.cells[0], value=value, **told) for value in (-0.04, -0.5)]
    assert [layout.value(cell) for cell in cells] == ["0.0", "-0.5"]
    assert layout.spread(cells[0]) == "[-1.2, 0.0]"
    object.__setattr__(random, "cells", (*cells, *random.cells[2:]))
    assert r"$-$0.5\\[-.6ex]{\tiny {[}$-$1.2, 0.0{]}}" in render.render(drawn, "latex")
    assert "-0.5" in render.render(drawn, "terminal")


# Markdown


def test_markdown_lines_have_one_number_of_cells(drawing, hostile):
    for drawn in (drawing(), drawing(paper=True), hostile):
        text = render.render(drawn, "markdown")
        for rows in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in rows.splitlines()}
            assert len(counts) == 1


def test_markdown_escapes(hostile):
    text = render.render(hostile, "markdown")
    assert r"\<script\>" in text
    assert "<script>" not in text
    assert r"\*b\* \_c\_" in text


def test_markdown_shows_uncertainty_and_bold(drawing):
    text = render.render(drawing(), "markdown")
    assert "34.5‡ [33.0, 36.0]" in text
    assert " 29.6 ± 1.0" in text
    assert "**35.5** ± 0.7" in text
    assert "*not impl.*" in text


# LaTeX


def tabulars(text):
    return re.findall(r"\\begin\{tabular\}\{l\*\{(\d+)\}\{r\}\}\n(.*?)\\end\{tabular\}", text, flags=re.S)


@pytest.mark.parametrize("paper", [False, True])
def test_latex_rows_fill_their_columns(drawing, paper):
    found = tabulars(render.render(drawing(paper=paper), "latex"))
    assert len(found) == (1 if paper else 2)
    for columns, body in found:
        want = 1 + int(columns)
        for row in re.split(r"\\\\\n", body)[:-1]:
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + spans == want, row


def test_latex_is_balanced(drawing, hostile):
    for drawn in (drawing(), drawing(paper=True), hostile):
        text = render.render(drawn, "latex", standalone=True)
        bare = re.sub(r"\\\\|\\[{}]", "", text)
        assert bare.count("{") == bare.count("}")
        assert re.findall(r"\\begin\{(\w+)\}", text)[0] == "document"
        for name in ("document", "table", "tabular", "minipage"):
            assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
        assert text.isascii() or set(re.findall(r"[^\x00-\x7f]", text)) <= set("äöü")


def test_latex_escapes(hostile):
    text = render.render(hostile, "latex")
    assert r"\input" not in text
    assert r"\textbackslash{}input\{x\} \$\textbar{}\%" in text
    assert r"\cite{evil}" in text
    assert render.latex("--a [b] *") == r"-{}-a {[}b{]} {*}"
    assert render.latex("日本 é ≥") == r"?? é $\geq$"


def test_latex_cites_and_stands_alone(drawing):
    text = render.render(drawing(), "latex")
    assert r"Rotation~\cite{gidaris2018unsupervised}" in text
    assert r"\documentclass" not in text
    assert render.render(drawing(), "latex", standalone=True).startswith(r"\documentclass")


# HTML


class Page(HTMLParser):
    """Checks nesting, and collects tags and text."""

    VOID = {"meta", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("paper", [False, True])
def test_html_is_whole_and_alone(drawing, paper):
    text = render.render(drawing(paper=paper), "html")
    page = Page(text)
    assert not re.search(r"https?://|url\(|@import|\bsrc=|\bhref=", text)
    assert not page.all("script")
    assert not page.all("link")
    assert "light-dark(" in text
    assert page.all("html") == [{"lang": "en"}]
    assert all("scope" in th for th in page.all("th"))
    assert len(page.all("caption")) == len(layout.blocks(drawing(paper=paper)))
    assert len({tag["id"] for _, tag in page.tags if "id" in tag}) == len([1 for _, tag in page.tags if "id" in tag])


def test_html_cells_explain_themselves_to_mouse_and_keyboard(drawing):
    text = render.render(drawing(), "html")
    page = Page(text)
    told = [td["title"] for td in page.all("td") if "title" in td]
    (random,) = [title for title in told if "by seed: 0: 28.60, 1: 29.60, 2: 30.60" in title]
    for fact in ("state: measured", "interval by: 95 % t over 3 seeds", "chance: 2.00", "test examples: 2000",
                 "imagenet-linear, standard, ", "--method random --protocol imagenet-linear --seed 0"):  # fmt: skip
        assert fact in random
        assert fact.split(": ")[-1] in page.text
    assert "stale (method version 0, now 1)" in page.text
    assert "0: 28.60, 1: 29.60, 2: 30.60" in page.text
    assert any("recollection, not confirmed" in title for title in told)


def test_html_escapes(hostile):
    page = Page(render.render(hostile, "html"))
    assert not page.all("script")
    assert "</td><script>x</script> [bold]a[/bold]" in page.text


# terminal


def test_terminal_fits_or_grows_but_cuts_no_number(drawing):
    for drawn in (drawing(), drawing(paper=True)):
        wide = render.render(drawn, "terminal", width=120)
        assert max(map(len, wide.splitlines())) <= 120
        narrow = render.render(drawn, "terminal", width=40)
        assert "…" not in narrow
        for number in ("[33.0, 36.0]", "29.6", "± 1.0", "*32.2", "3.0†≈", "12.5?", "18.8§"):
            assert number in wide
            assert number in narrow


def test_terminal_colours_only_when_asked(drawing, hostile):
    assert "\x1b" not in render.render(drawing(), "terminal")
    assert "\x1b" not in render.render(hostile, "terminal")
    assert "\x1b[1;32m32.2\x1b[0m" in render.render(drawing(), "terminal", colour=True)
    assert "[bold]a[/bold]" in render.render(hostile, "terminal")


# for programs


def test_csv_is_tidy(drawing):
    rows = list(csv.DictReader(io.StringIO(render.render(drawing(), "csv"))))
    assert len(rows) == 12 * 5 + 11 * 5
    (one,) = [r for r in rows if (r["block"], r["method"], r["column"]) == ("measured", "random", "conv1")]
    assert (float(one["value"]), one["seeds"], one["values"], one["suite"]) == (29.6, "0 1 2", "28.6 29.6 30.6", "toy")
    assert one["command"].startswith("bench run --suite toy --method random")
    (one,) = [r for r in rows if (r["block"], r["method"], r["column"]) == ("published", "rotation", "conv2")]
    assert (one["value"], one["status"], one["suite"], one["row"]) == ("31.7", "unverified", "", "RotNet")
    assert {r["state"] for r in rows} == {"measured", "stale", "failed", "not implemented", "published"}


def test_json_holds_everything(drawing):
    made = json.loads(render.render(drawing(), "json"), parse_constant=pytest.fail)
    assert made["schema"] == 1
    assert (made["table"], made["suite"], made["paper"]) == ("imagenet-linear", "toy", False)
    rotation = next(row for row in made["rows"] if row["method"] == "rotation")
    assert rotation["cells"][1]["seeds"] == {"0": 35.0, "1": 36.0}
    assert rotation["cells"][1]["best"] is True
    assert rotation["numbers"][2]["text"] == "38.7"
    assert made["protocols"][0]["digest"] == rotation["cells"][0]["digest"]
