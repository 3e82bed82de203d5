"""Tables as declared: reading them strictly, and the numbers that the papers printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.paths import declared
from bench.report import spec

TOML = """
title = "T"
caption = "C"
[source]
paper = "P"
table = "Table 1"
citation = "p2018"
[[columns]]
key = "conv1"
protocol = "imagenet-linear"
reads = "top1@conv1"
title = "conv1"
[[columns]]
key = "conv2"
protocol = "imagenet-linear"
variant = "special"
reads = "top1@conv2"
title = "conv2"
[[rows]]
published = "Rot"
method = "rotation"
variant = "rotnet2018"
backbone = "alexnet"
[[rows]]
published = "Old"
"""
CSV = """method,column,value,status,source,note
Rot,conv1,18.80,verified-primary,the paper,
Rot,conv2,31.7,unverified,"recollection, not confirmed",a note
Old,conv1,5,verified-origin,elsewhere,
"""


def table(folder, toml=TOML, published=CSV):
    (folder / "table.toml").write_text(toml, encoding="utf-8")
    (folder / "published.csv").write_text(published, encoding="utf-8")
    return spec.read(folder)


def test_reads_numbers_as_printed(tmp_path):
    made = table(tmp_path)
    number = made.published["Rot", "conv1"]
    assert (number.value, number.text, number.status) == (18.8, "18.80", "verified-primary")
    assert made.published["Rot", "conv2"].source == "recollection, not confirmed"
    assert ("Old", "conv2") not in made.published
    assert made.name == tmp_path.name


@pytest.mark.parametrize(
    ("line", "where", "what"),
    [
        ("New,conv1,1,unverified,s,", 5, "no row is published as 'New'"),
        ("Rot,conv3,1,unverified,s,", 5, "no column has the key 'conv3'"),
        ("Rot,conv1,1,unverified,s,", 5, "second number for 'Rot', 'conv1'"),
        ("Old,conv2,n/a,unverified,s,", 5, "'n/a' is not a number"),
        ("Old,conv2,nan,unverified,s,", 5, "'nan' is not a number"),
        ("Old,conv2,,unverified,s,", 5, "'' is not a number"),
        ("Old,conv2,1,guessed,s,", 5, "unknown status 'guessed'"),
        ("Old,conv2,1,unverified,s", 5, "5 fields where there are 6"),
    ],
)
def test_bad_published_lines_name_file_and_line(tmp_path, line, where, what):
    with pytest.raises(BenchError, match=re.escape(what)) as caught:
        table(tmp_path, published=f"{CSV}{line}\n")
    assert caught.value.where == f"{tmp_path / 'published.csv'}:{where}"
    assert "\n" not in str(caught.value)


def test_bad_header_and_missing_file(tmp_path):
    with pytest.raises(BenchError, match="wrong header"):
        table(tmp_path, published=CSV.replace("source,note", "note,source"))
    (tmp_path / "published.csv").unlink()
    with pytest.raises(BenchError, match="cannot read the published numbers"):
        spec.read(tmp_path)
    (tmp_path / "published.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(BenchError, match="cannot read the published numbers"):
        spec.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('title = "T"', 'title = "T"\nunit = "%"', "unknown key 'unit'"),
        ('reads = "top1@conv1"', 'reads = "conv1"', "is not <metric>@<stage or setting>"),
        ('published = "Old"', 'published = "Old"\n[[rows]]\npublished = "Odl"', "row 'Odl' has no number"),
        ('published = "Old"', 'published = "Rot"', "published row 'Rot' stands twice"),
        ('published = "Old"', "", "a row names a published row, a method, or both"),
        ('key = "conv2"', 'key = "conv1"', "column 'conv1' stands twice"),
        ('table = "Table 1"', "", "source.table"),
        ('published = "Old"', 'published = "Old"\noptions = { day = 2020-01-01 }', "rows.1.options.day"),
        ("[source]", "[source", "cannot read TOML"),
    ],
)
def test_bad_declarations(tmp_path, old, new, what):
    with pytest.raises(BenchError) as caught:
        table(tmp_path, TOML.replace(old, new))
    assert what in str(caught.value)
    assert str(tmp_path / "table.toml") in str(caught.value)


def test_variant_and_backbone_of_a_cell(tmp_path):
    made = table(tmp_path)
    (rotation, old), (first, second) = made.rows, made.columns
    assert spec.resolve_variant(rotation, first, as_published=False) == "standard"
    assert spec.resolve_variant(rotation, second, as_published=False) == "special"
    assert spec.resolve_variant(rotation, second, as_published=True) == "rotnet2018"
    assert spec.resolve_variant(old, second, as_published=True) == "special"
    assert spec.resolve_backbone(rotation, "toy", as_published=False) == "toy"
    assert spec.resolve_backbone(rotation, "toy", as_published=True) == "alexnet"
    assert spec.resolve_backbone(old, "toy", as_published=True) == "toy"


def test_a_variant_a_protocol_and_the_columns_own(tmp_path):
    toml = TOML.replace(
        'variant = "rotnet2018"', 'variant = { imagenet-linear = "rotnet2018", voc07-detection = "frcnn" }'
    )
    toml = toml.replace('reads = "top1@conv1"', 'reads = "top1@conv1"\nprinted = "zhang2016"')
    made = table(tmp_path, toml)
    (rotation, old), (first, second) = made.rows, made.columns
    assert spec.resolve_variant(rotation, first, as_published=True) == "rotnet2018"
    assert spec.resolve_variant(rotation, first, as_published=False) == "standard"
    assert spec.resolve_variant(old, first, as_published=True) == "zhang2016"
    assert spec.resolve_variant(old, second, as_published=True) == "special"
    detection = first.model_copy(update={"protocol": "voc07-detection"})
    assert spec.resolve_variant(rotation, detection, as_published=True) == "frcnn"
    mine = spec.RowSpec(method="mine")
    assert spec.resolve_variant(mine, first, as_published=True) == "standard", "no paper printed it"


def test_columns_are_told_apart_by_their_groups(tmp_path):
    first, second = table(tmp_path).columns
    assert spec.column_names((first, second)) == ["conv1", "conv2"]
    alike = [c.model_copy(update={"title": "all", "group": g}) for c, g in ((first, "Detection"), (second, ""))]
    assert spec.column_names(alike) == ["Detection all", "all"]


def test_unnamed_methods_follow_the_declared_rows(house, tmp_path):
    made = table(tmp_path)
    rows = made.measured_rows(registry.entries("methods"))
    assert rows[:2] == list(made.rows)
    assert [row.method for row in rows[2:]] == ["random", "random-rescaled", "supervised", "zeta"]
    assert [row.method for row in rows if row.reference] == ["supervised"]
    assert rows[0].key == ("rotation", "{}")


def test_why_a_row_is_missing():
    row = spec.RowSpec(published="Tracked", method="tracking")
    assert "video" in spec.why_missing(row)
    assert spec.why_missing(row.model_copy(update={"reason": "mine"})) == "mine"
    assert spec.why_missing(spec.RowSpec(method="unheard-of")) == "no such method yet"


def test_unknown_table():
    with pytest.raises(BenchError, match="did you mean imagenet-linear"):
        spec.load("imagenet-liner")


@pytest.mark.parametrize("name", spec.names())
def test_every_declared_table_loads_and_cites_what_there_is(name):
    made = spec.load(name)
    bib = (declared("tables") / "references.bib").read_text(encoding="utf-8")
    known = set(re.findall(r"^@\w+\{([^,]+),$", bib, flags=re.M))
    assert made.published
    assert {made.source.citation, *(row.cite for row in made.rows if row.cite)} <= known
    assert {e.facts["citation"] for e in registry.entries("methods") if e.origin == "built-in"} <= known


def test_the_rotation_papers_table():
    made = spec.load("imagenet-linear")
    assert len(made.published) == 55
    assert [row.method for row in made.rows][:3] == ["supervised", "random", "random-rescaled"]
    assert {row.variant for row in made.rows} == {"zhang2016", "rotnet2018"}
    assert made.published["RotNet", "conv3"].value == 38.7
    assert made.published["ImageNet labels", "conv5"].value == 50.5
    assert made.published["Colorization (Zhang 2016)", "conv1"].status == "unverified"


def test_reading_tables_imports_neither_torch_nor_pandas():
    code = (
        "import sys; from bench.report import spec;"
        "spec.load('imagenet-linear'); print({'torch', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_drawing_imports_no_torch():
    code = (
        "import sys; from bench import results, suite; from bench.launch import state; from pathlib import Path;"
        "from bench.report import render, spec, table;"
        "found = results.load(), state.frame(Path('none'));"
        "drawn = table.draw(spec.load('imagenet-linear'), suite.load('smoke'), *found);"
        "[render.render(drawn, fmt) for fmt in render.FORMATS]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_names_are_folders_with_a_table():
    assert spec.names() == sorted(path.parent.name for path in Path(declared("tables")).glob("*/table.toml"))
