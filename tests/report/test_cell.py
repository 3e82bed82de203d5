"""A cell is in exactly one state, says why, and shows the number that the results hold."""

import pytest

from bench.errors import printable
from bench.metrics.intervals import t_interval
from bench.report.cell import Place, Store

VALUES = [10.0, 20.0, 30.0, 40.0, 50.0]


@pytest.fixture
def cell(house, suite, frames):
    """A function: rotation's cell conv3 at a suite with these seeds, from results and states."""

    def look(results=(), states=(), *, at=None, seeds=None, reads="top1@conv3"):
        at = at or suite()
        place = Place(at, "rotation", "{}", "toy", "scenes/unlabelled", "imagenet-linear", "standard")
        return Store(at, *frames(results, states), seeds, {"imagenet-linear"}).cell(place, reads)

    return look


def test_one_seed_shows_its_own_bootstrap(cell, suite, result):
    made = cell(result(suite(), "rotation", VALUES))
    assert (made.state, made.value, made.low, made.high, made.sd) == ("measured", 30.0, 28.5, 31.5, None)
    assert made.interval == "95 % bootstrap over test examples"
    assert (made.n, made.unit, made.chance, made.at_chance, made.seeds) == (2000, "%", 2.0, False, {0: 30.0})
    assert made.command == "bench run --suite toy --method rotation --protocol imagenet-linear --seed 0"
    assert made.marks == ""


def test_two_seeds_show_mean_and_sd(cell, suite, result):
    at = suite()
    made = cell([*result(at, "rotation", VALUES), *result(at, "rotation", [v + 2 for v in VALUES], seed=1)])
    assert made.value == 31.0
    assert made.sd == pytest.approx(2**0.5)
    assert (made.low, made.high, made.interval) == (28.5, 33.5, "span of two 95 % bootstraps")


def test_three_seeds_show_the_t_interval(cell, suite, result):
    at = suite(seeds=[0, 1, 2])
    rows = [r for s in (2, 0, 1) for r in result(at, "rotation", [v + s for v in VALUES], seed=s)]
    made = cell(rows, at=at)
    assert list(made.seeds) == [0, 1, 2]
    assert (made.value, made.sd) == (31.0, 1.0)
    assert (made.low, made.high) == pytest.approx(t_interval([30.0, 31.0, 32.0]))
    assert made.reason == ""


def test_seeds_that_lack_are_named_and_commanded(cell, suite, result, state):
    at = suite(seeds=[0, 1, 2, 3])
    states = [state("evaluate", "rotation", "OOM", "at update 3", seed=2)]
    made = cell(result(at, "rotation", VALUES), states, at=at)
    assert made.state == "measured"
    assert made.reason == "seeds 1, 3 not run; seed 2 failed (out of memory: at update 3)"
    assert made.command.endswith("--seed 1")


def test_asking_for_seeds_leaves_out_the_others(cell, suite, result):
    at = suite()
    rows = [*result(at, "rotation", VALUES), *result(at, "rotation", [0.0] * 5, seed=7)]
    assert cell(rows, at=at).seeds == {0: 30.0, 7: 0.0}
    assert cell(rows, at=at, seeds=[0]).seeds == {0: 30.0}
    assert cell(rows, at=at, seeds=[1]).state == "not run"
    assert cell(rows, at=at, seeds=[]).state == "not run"


@pytest.mark.parametrize("low", [1.0, 2.0])
def test_at_chance(cell, suite, result, low):
    rows = result(suite(), "rotation", {"top1@conv3": 2.5}, low=low, high=4.0)
    assert cell(rows).at_chance
    assert cell(rows).marks == "≈"
    assert not cell(result(suite(), "rotation", {"top1@conv3": 2.5}, low=2.01, high=4.0)).at_chance
    assert cell(result(suite(), "rotation", {"top1@conv3": 0.5}, low=0.1, high=1.0)).at_chance


@pytest.mark.parametrize(
    ("key", "value"),
    [("protocol_digest", "old"), ("method_version", 0), ("backbone_version", 9), ("pretraining_digest", "other")],
)
def test_stale_by_any_part_of_identity(cell, suite, result, key, value):
    made = cell(result(suite(), "rotation", VALUES, **{key: value}))
    assert (made.state, made.value, made.marks) == ("stale", 30.0, "†")
    assert made.reason.startswith(f"{key.replace('_', ' ')} {value}, now ")
    assert made.command


def test_a_fresh_result_wins_over_a_stale_one_and_runs_over_tables(cell, suite, result):
    at = suite()
    stale = result(at, "rotation", [99.0] * 5, method_version=0)
    runs, tables = result(at, "rotation", VALUES), result(at, "rotation", [1.0] * 5, source="tables")
    assert cell([*stale, *runs, *tables]).seeds == {0: 30.0}


def test_stale_seeds_of_different_identities_are_not_averaged(cell, suite, result):
    at = suite(seeds=[0, 1])
    rows = [
        *result(at, "rotation", VALUES, protocol_digest="a"),
        *result(at, "rotation", [90.0] * 5, seed=1, protocol_digest="b"),
    ]
    made = cell(rows, at=at)
    assert (made.seeds, made.digest) == ({0: 30.0}, "a")


def test_a_stale_cell_that_runs_again_says_so(cell, suite, result, state):
    rows = result(suite(), "rotation", VALUES, method_version=0)
    made = cell(rows, [state("evaluate", "rotation", "RUNNING")])
    assert made.reason == "method version 0, now 1; seed 0 running"


@pytest.mark.parametrize(
    ("evaluate", "pretrain", "expected"),
    [
        (None, None, ("not run", "")),
        ("PENDING", None, ("not run", "")),
        ("QUEUED", None, ("not run", "queued: why")),
        ("CANCELLED", None, ("not run", "cancelled: why")),
        ("PREEMPTED", None, ("not run", "preempted: why")),
        ("BLOCKED", None, ("not run", "blocked: why")),
        ("RUNNING", None, ("running", "")),
        ("FAILED", None, ("failed", "why")),
        ("TIMEOUT", None, ("failed", "out of time: why")),
        ("OOM", None, ("failed", "out of memory: why")),
        ("LOST", None, ("failed", "lost: why")),
        (None, "QUEUED", ("not run", "queued: root")),
        (None, "RUNNING", ("running", "pretraining")),
        ("PENDING", "RUNNING", ("running", "pretraining")),
        ("BLOCKED", "FAILED", ("failed", "pretraining: root")),
        ("PENDING", "TIMEOUT", ("failed", "pretraining: out of time: root")),
        (None, "OOM", ("failed", "pretraining: out of memory: root")),
        ("BLOCKED", "CANCELLED", ("not run", "blocked: why")),
        ("RUNNING", "FAILED", ("running", "")),
        ("FAILED", "FAILED", ("failed", "why")),
    ],
)
def test_states_of_runs(cell, state, evaluate, pretrain, expected):
    states = [state("evaluate", "rotation", evaluate, "why")] if evaluate else []
    states += [state("pretrain", "rotation", pretrain, "root")] if pretrain else []
    made = cell(states=states)
    assert (made.state, made.reason) == expected
    assert made.value is None
    assert made.command.endswith("--seed 0")


def test_no_reason_given(cell, state):
    assert cell(states=[state("evaluate", "rotation", "FAILED", None)]).reason == "no reason given"


def test_of_several_seeds_the_liveliest_is_the_state(cell, suite, state):
    at = suite(seeds=[0, 1, 2])
    failed = state("evaluate", "rotation", "FAILED", "loss is nan", seed=1)
    made = cell(states=[failed], at=at)
    assert (made.state, made.reason) == ("failed", "seed 1: loss is nan")
    made = cell(states=[failed, state("evaluate", "rotation", "RUNNING", seed=2)], at=at)
    assert (made.state, made.reason) == ("running", "seed 2; seed 1 failed (loss is nan)")
    same = [state("evaluate", "rotation", "FAILED", "loss is nan", seed=s) for s in range(3)]
    assert cell(states=same, at=at).reason == "loss is nan"


def test_runs_of_another_identity_are_passed_over(cell, state):
    old = state("pretrain", "rotation", "FAILED", "root", pretraining_digest="old")
    assert cell(states=[old]).state == "not run"
    old = state("evaluate", "rotation", "FAILED", "why", method_version=0)
    assert cell(states=[old, state("evaluate", "rotation", "QUEUED")]).reason == "queued"


def test_other_suites_methods_options_and_backbones_do_not_count(cell, suite, result, state):
    changes = {
        "suite": "mini",
        "method": "zeta",
        "options": '{"a":1}',
        "backbone": "caffenet",
        "pretraining_data": "imagenet/train",
        "protocol": "places-linear",
        "variant": "zhang2016",
    }
    for key, other in changes.items():
        rows = [{**one, key: other} for one in result(suite(), "rotation", VALUES)]
        assert cell(rows).state == "not run", key
    assert cell(states=[{**state("evaluate", "rotation", "FAILED", "x"), "suite": "mini"}]).state == "not run"


def test_a_column_that_the_backbone_does_not_give(cell, suite, result):
    made = cell(result(suite(), "rotation", VALUES), reads="top1@conv6")
    assert (made.state, made.reason, made.command) == ("not implemented", "toy gives no top1@conv6", "")
    stale = result(suite(), "rotation", VALUES, method_version=0)
    assert cell(stale, reads="top1@conv6").state == "not run"


def test_missing_values_and_control_characters(cell, state):
    made = cell(states=[state("evaluate", "rotation", "FAILED", "a\nb\x1b[31m\tc")])
    assert made.reason == "a b [31m c"
    assert printable("  x\u2028y  ") == "x y"
