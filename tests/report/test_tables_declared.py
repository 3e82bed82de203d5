"""Every declared table, whatever there is: its rows explained, every printed number drawn, in every format; and all of
them through TeX."""

import csv
import io
import re
import shutil
import subprocess

import pandas as pd
import pytest

from bench import registry
from bench import suite as suites
from bench.data import catalog
from bench.launch.state import COLUMNS as STATES
from bench.paths import declared
from bench.report import layout, render, spec, table
from bench.results import COLUMNS as RESULTS

NAMES = spec.names()
BIB = declared("tables") / "references.bib"


def draw(name, *, at_home=False, **options):
    """The table at the suite ``smoke``, or as at its own suite; nothing measured."""
    made, suite = spec.load(name), suites.load("smoke")
    if at_home:
        suite = suite.model_copy(update={"name": made.suite, "paper": True})
    return table.draw(made, suite, pd.DataFrame(columns=RESULTS), pd.DataFrame(columns=STATES), **options)


def lines(name):
    """The records of its ``published.csv``."""
    with (declared("tables") / name / "published.csv").open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_measured_or_says_why_not(name):
    known = {entry.key for entry in registry.entries("methods")}
    made = spec.load(name)
    for row in made.rows:
        assert row.published
        if row.method in known:
            assert row.backbone, "the backbone of the printed number"
        else:
            assert spec.why_missing(row) != "no such method yet"
    assert made.suite in ("", *suites.names())


def test_reasons_are_of_methods_that_are_not_there():
    reasons = spec._published_only()
    assert not reasons.keys() & {entry.key for entry in registry.entries("methods")}
    named = {row.method for name in NAMES for row in spec.load(name).rows}
    assert reasons.keys() <= named


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_no_printed_number_is_lost(name, as_published):
    want = sorted((line["method"], line["value"]) for line in lines(name))
    for at_home in (False, True):
        drawn = draw(name, at_home=at_home, as_published=as_published)
        entries = [
            (line.row.published, entry.text)
            for block in layout.blocks(drawn)
            for line in block.lines
            for entry in line.entries
            if isinstance(entry, spec.Published)
        ]
        assert sorted(entries) == want
        made = csv.DictReader(io.StringIO(render.render(drawn, "csv")))
        assert sorted((row["row"], row["value"]) for row in made if row["state"] == "published") == want


@pytest.mark.parametrize("name", NAMES)
def test_renders_everywhere_and_alike(name):
    numbers = {line["value"] for line in lines(name)}
    for at_home in (False, True):
        first, again = draw(name, at_home=at_home), draw(name, at_home=at_home)
        for fmt in render.FORMATS:
            text = render.render(first, fmt)
            assert text == render.render(again, fmt)
            assert all(number in text for number in numbers)


@pytest.mark.parametrize("name", NAMES)
def test_digits_that_are_not_confirmed_are_marked_with_their_source(name):
    drawn = draw(name)
    notes = {note.mark: note.text for note in drawn.notes}
    for line in lines(name):
        mark = table.MARK_OF_STATUS[line["status"]]
        assert not mark or line["source"] in notes[mark]


def test_printed_and_measured_stand_side_by_side_at_the_tables_own_suite_only():
    assert [block.kind for block in layout.blocks(draw("voc", at_home=True))] == ["both"]
    assert [block.kind for block in layout.blocks(draw("voc"))] == ["measured", "published"]
    suite = suites.load("smoke").model_copy(update={"name": "resnet50", "paper": True})
    nothing = pd.DataFrame(columns=RESULTS), pd.DataFrame(columns=STATES)
    elsewhere = table.draw(spec.load("voc"), suite, *nothing)
    assert [block.kind for block in layout.blocks(elsewhere)] == ["measured", "published"]


def test_columns_without_a_protocol_say_so():
    known = registry.names("protocols")
    for name in NAMES:
        drawn = draw(name)
        for column, cells in zip(drawn.columns, zip(*(row.cells for row in drawn.rows), strict=True), strict=True):
            if column.protocol not in known:
                assert {cell.state for cell in cells} == {"not implemented"}
                assert f"protocol {column.protocol} does not exist yet" in {cell.reason for cell in cells}


def test_a_command_is_offered_only_where_one_computes_a_cell():
    assert "--protocol imagenet-linear|voc07-detection --seed" in layout.command(draw("multitask-resnet101"))
    nothing = draw("cifar10")
    assert layout.command(nothing) == ""
    for fmt in ("terminal", "markdown", "latex", "html"):
        assert "bench run" not in render.render(nothing, fmt)


def test_what_holds_for_all_rows_is_said_of_all_rows():
    remarks = draw("kolesnikov").remarks
    assert "not implemented (protocol places205-linear does not exist yet) in Places205: all rows" in remarks


def test_a_method_that_is_printed_twice_is_measured_once():
    measured, published = layout.blocks(draw("splitbrain-voc"))
    assert sum(line.row.method == "context-prediction" for line in measured.lines) == 1
    assert sum(line.row.method == "context-prediction" for line in published.lines) == 2


def test_references_are_whole_and_sorted():
    text = BIB.read_text(encoding="utf-8")
    entries = re.findall(r"^@(\w+)\{([^,]+),\n(.*?)^\}$", text, flags=re.M | re.S)
    keys = [key for _, key, _ in entries]
    assert len(entries) == text.count("@")
    assert keys == sorted(set(keys))
    for kind, key, body in entries:
        fields = dict(re.findall(r"^  (\w+) += \{(.*)\},$", body, flags=re.M))
        assert {"title", "author", "year"} <= fields.keys(), key
        assert fields["year"] in key
        assert kind == "misc" or {"booktitle", "journal"} & fields.keys()
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "0000.0000"))
        assert ("eprint" in fields) == ("archiveprefix" in fields)


def test_every_citation_has_its_reference():
    known = set(re.findall(r"^@\w+\{([^,]+),", BIB.read_text(encoding="utf-8"), flags=re.M))
    kinds = ("methods", "backbones", "protocols")
    cited = {f"{kind}/{e.key}": e.facts.get("citation") for kind in kinds for e in registry.entries(kind)}
    cited |= {f"data/{name}": catalog.card(name).citation for name in catalog.names()}
    cited |= {f"{name}/{row.published}": row.cite for name in NAMES for row in spec.load(name).rows}
    cited |= {f"{name}": spec.load(name).source.citation for name in NAMES}
    assert sum(map(bool, cited.values())) > 60
    assert {where: key for where, key in cited.items() if key and key not in known} == {}


@pytest.mark.skipif(not (shutil.which("pdflatex") and shutil.which("bibtex")), reason="no pdflatex and bibtex here")
def test_all_tables_go_through_tex(tmp_path):
    """One document of all tables, at the suite ``smoke`` and as at their own suites, with their citations."""
    whole = render.render(draw(NAMES[0]), "latex", standalone=True)
    preamble, ending = whole.partition(r"\begin{table}")[0], whole[whole.rindex(r"\bibliographystyle") :]
    bodies = [render.render(draw(name, at_home=at_home), "latex") for at_home in (False, True) for name in NAMES]
    (tmp_path / "all.tex").write_text(preamble + "\\clearpage\n".join(bodies) + ending, encoding="utf-8")
    shutil.copy(BIB, tmp_path)
    tex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    for command in (tex, ["bibtex", "all"], tex, tex):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
        assert command is tex or "Warning" not in done.stdout, done.stdout
    log = (tmp_path / "all.log").read_text(encoding="utf-8", errors="replace")
    assert "undefined" not in log
    assert not re.findall(r"Overfull \\hbox \((\d{2,})", log), "a table is wider than the page"


def test_rows_of_one_method_are_told_apart():
    measured, _ = layout.blocks(draw("cifar10-rotations"))
    labels = [line.label for line in measured.lines if line.row.method == "rotation"]
    assert labels == ["Rotation", "Rotation (rotations 8)", "Rotation (rotations 2)", "Rotation (rotations [90, 270])"]
    measured, _ = layout.blocks(draw("goyal-places"))
    assert [line.label for line in measured.lines][1:3] == ["Supervised", "Supervised (on places205)"]
    measured, _ = layout.blocks(draw("splitbrain-voc", as_published=True))
    assert {"Doersch et al. (Context)", "Doersch et al. (Context, rescaled)"} <= {line.label for line in measured.lines}
