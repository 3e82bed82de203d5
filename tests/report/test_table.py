"""Drawings: rows, bold, marks, footnotes, and what identifies them."""

import pytest

from bench.errors import BenchError
from bench.protocols import definitions
from bench.report import table

FIVE = [30.0, 31.0, 32.0, 33.0, 34.0]


@pytest.fixture
def draw(house, rotnet, frames):
    """A function: the Rotation paper's table in the small house."""

    def make(suite, results=(), states=(), **options):
        return table.draw(rotnet, suite, *frames(results, states), **options)

    return make


def row(drawing, method):
    return next(row for row in drawing.rows if row.method == method)


def states(drawing, method):
    return [cell.state for cell in row(drawing, method).cells]


def test_declared_rows_then_every_other_method(draw, suite):
    drawn = draw(suite())
    assert [r.method for r in drawn.rows][-2:] == ["rotation", "zeta"]
    assert len(drawn.rows) == 12
    assert row(drawn, "rotation").label == "RotNet"
    assert row(drawn, "rotation").title == "Rotation"
    assert row(drawn, "rotation").citation == "gidaris2018unsupervised"
    assert row(drawn, "jigsaw").citation == "noroozi2016unsupervised"
    assert row(drawn, "zeta").numbers == (None,) * 5
    assert [r.method for r in drawn.rows if r.reference] == ["supervised"]


def test_not_registered_is_not_implemented(draw, suite):
    drawn = draw(suite())
    assert states(drawn, "jigsaw") == ["not implemented"] * 5
    assert row(drawn, "jigsaw").cells[0].command == ""
    assert states(drawn, "rotation") == ["not run"] * 5
    assert any(r.startswith("not implemented (no such method yet): Context") for r in drawn.remarks)


def test_other_data_is_a_footnote(draw, suite, result):
    at = suite()
    drawn = draw(
        at,
        [
            *result(at, "random", FIVE, data_digest="new"),
            *result(at, "rotation", FIVE),
            *result(at, "supervised", FIVE),
        ],
    )
    marked = {r.method for r in drawn.rows for c in r.cells if c.other_data}
    assert marked == {"random"}
    assert "‡" in {note.mark for note in drawn.notes}
    assert "‡" not in {note.mark for note in draw(at, result(at, "random", FIVE)).notes}


def test_sources_of_published_numbers_are_marked(draw, suite):
    notes = {note.mark: note.text for note in draw(suite()).notes}
    assert notes["?"] == "unverified: recollection, not confirmed"
    assert notes["§"].startswith("read in a re-print: lecture notes")
    assert "–" not in notes
    assert "–" in {note.mark for note in draw(suite(paper=True)).notes}


def test_what_identifies_the_protocol_stands_under_the_table(draw, suite, result):
    at = suite(protocols={"imagenet-linear": {"kernel": "bicubic"}})
    (one,) = draw(at, result(at, "rotation", FIVE, seed=3)).protocols
    assert (one.protocol, one.version, one.variant, one.seeds) == ("imagenet-linear", 1, "standard", (3,))
    assert one.digest == definitions.load("imagenet-linear").variant("standard", at).digest
    assert one.data == "scenes, trained on train, tested on val"
    assert "kernel: bicubic" in one.preprocessing
    assert "antialias: yes" in one.preprocessing
    assert one.selection == "last epoch"


def test_as_published_before_the_variants_exist(draw, suite):
    drawn = draw(suite(), as_published=True)
    assert states(drawn, "rotation") == ["not implemented"] * 5
    assert row(drawn, "rotation").cells[0].reason == "protocol variant rotnet2018 does not exist yet"
    assert row(drawn, "random").cells[0].reason == "protocol variant zhang2016 does not exist yet"
    assert states(drawn, "zeta") == ["not run"] * 5


def test_as_published_each_row_stands_on_its_own_ground(draw, house, suite, result):
    toml = house / "protocols" / "imagenet_linear.toml"
    toml.write_text(toml.read_text() + '[zhang2016]\nkernel = "nearest"\n')
    definitions.load.cache_clear()
    at = suite()
    digest = definitions.load("imagenet-linear").variant("zhang2016").digest
    rows = result(at, "random", FIVE, variant="zhang2016", backbone="caffenet", protocol_digest=digest)
    drawn = draw(at, [*rows, *result(at, "zeta", FIVE)], as_published=True)
    assert states(drawn, "random") == ["measured"] * 5
    assert row(drawn, "random").backbone == "caffenet"
    assert row(drawn, "random").cells[0].command.endswith("--variant zhang2016 --backbone caffenet --seed 0")
    assert {p.variant for p in drawn.protocols} == {"zhang2016", "standard"}
    assert not any(c.best for r in drawn.rows for c in r.cells)
    assert states(draw(at, rows), "random") == ["not run"] * 5


def test_what_cannot_be_measured_here_says_why(draw, house, suite):
    no_backbone = draw(suite(backbone="vit"))
    assert row(no_backbone, "rotation").cells[0].reason == "backbone vit does not exist yet"
    roles = {"pretrain": {"dataset": "scenes", "train": ["unlabelled"]}}
    no_role = draw(suite(roles=roles))
    assert row(no_role, "rotation").cells[0].reason == "suite toy binds no data to imagenet"
    (house / "protocols" / "imagenet_linear.py").unlink()
    from bench import registry

    registry.refresh()
    assert row(draw(suite()), "rotation").cells[0].reason == "protocol imagenet-linear does not exist yet"


def test_options_of_the_suite_are_part_of_the_row(draw, suite, result):
    at = suite(methods={"random": {"options": {"init": "gaussian"}}})
    assert states(draw(at, result(at, "random", FIVE)), "random") == ["measured"] * 5
    drawn = draw(at, result(at, "random", FIVE, options="{}"))
    assert states(drawn, "random") == ["not run"] * 5
    assert drawn.remarks[-1] == "measured at this suite, but no row of this table: random"


def test_no_result_vanishes(draw, suite, result):
    at = suite()
    drawn = draw(at, [{**one, "method": "gone"} for one in result(at, "rotation", FIVE)])
    assert "measured at this suite, but no row of this table: gone" in drawn.remarks


def test_remarks_name_the_columns_where_they_differ(draw, suite, result):
    at = suite()
    drawn = draw(at, result(at, "rotation", {"top1@conv1": 30.0, "top1@conv2": 31.0}))
    assert "not implemented (toy gives no top1@conv3) in conv3: Rotation" in drawn.remarks


def test_mixed_units_are_told_per_column(draw, suite, result):
    at = suite()
    rows = [*result(at, "rotation", {"top1@conv1": 30.0}), *result(at, "rotation", {"top1@conv2": 0.3}, unit="nats")]
    drawn = draw(at, rows)
    assert drawn.units[:3] == ("%", "nats", "%")
    assert not any(sentence.startswith("Values in") for sentence in drawn.reading)


def test_an_override_that_is_not_understood_is_the_users_error(draw, suite):
    with pytest.raises(BenchError, match="overrides 'colour'"):
        draw(suite(protocols={"imagenet-linear": {"colour": "red"}}))
