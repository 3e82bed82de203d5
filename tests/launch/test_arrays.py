"""Runs -> arrays -> scripts, by hand, by property, and against golden scripts."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.launch.arrays import arrays, script
from bench.launch.profile import Profile

GOLDEN = Path(__file__).parents[1] / "golden"


def profile(**more):
    return Profile.model_validate({"name": "p", "title": "t", "launcher": "slurm", **more})


def pretrain(name):
    return f"pretrain-{name}", {"kind": "pretrain"}


def evaluate(name, parent, protocol="linear"):
    spec = {"kind": "evaluate", "parent": f"pretrain-{parent}", "protocol": {"name": protocol}}
    return f"evaluate-{name}", spec


def test_pretrainings_share_an_array_and_children_wait_for_their_own():
    runs = [pretrain("a"), pretrain("b"), evaluate("a", "a"), evaluate("b", "b"), evaluate("b2", "b")]
    parents, of_a, of_b = arrays(runs, profile(), "x", {})
    assert parents.jobs == (("pretrain-a",), ("pretrain-b",))
    assert parents.after is None
    assert (of_a.jobs, of_a.after) == ((("evaluate-a",),), f"{parents.name}_0")
    assert (of_b.jobs, of_b.after) == ((("evaluate-b",), ("evaluate-b2",)), f"{parents.name}_1")


def test_children_of_done_parents_share_an_array_that_waits_for_nothing():
    (only,) = arrays([evaluate("a", "a"), evaluate("b", "b")], profile(), "x", {})
    assert only.after is None
    assert len(only.jobs) == 2


def test_children_wait_for_a_parent_that_was_submitted_before():
    (only,) = arrays([evaluate("a", "a")], profile(), "x", {"pretrain-a": "17_4"})
    assert only.after == "17_4"


def test_resource_shapes_are_kept_apart():
    wanted = profile(protocols={"detection": {"gpus": 2}})
    runs = [evaluate("a", "a"), evaluate("a2", "a", "detection"), evaluate("b", "b"), evaluate("b2", "b", "detection")]
    first, second = arrays(runs, wanted, "x", {})
    assert first.jobs == (("evaluate-a",), ("evaluate-b",))
    assert second.jobs == (("evaluate-a2",), ("evaluate-b2",))
    assert (first.resources.gpus, second.resources.gpus) == (0, 2)


def test_packed_children_wait_for_the_job_that_has_their_parents():
    wanted = profile(default={"pack": 2})
    runs = [pretrain(n) for n in "abc"] + [evaluate(n, n) for n in "abc"]
    parents, of_ab, of_c = arrays(runs, wanted, "x", {})
    assert parents.jobs == (("pretrain-a", "pretrain-b"), ("pretrain-c",))
    assert (of_ab.jobs, of_ab.after) == ((("evaluate-a", "evaluate-b"),), f"{parents.name}_0")
    assert (of_c.jobs, of_c.after) == ((("evaluate-c",),), f"{parents.name}_1")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=25), st.integers(1, 4), st.integers(1, 5))
def test_every_run_is_submitted_once_after_its_parent(children, pack, size):
    runs = [pretrain(str(n)) for n in range(4)]
    runs += [evaluate(str(n), str(p), "a" if kind else "b") for n, (p, kind) in enumerate(children)]
    wanted = profile(default={"pack": pack}, array_size=size, protocols={"b": {"cpus": 2}})
    made = arrays(runs, wanted, "x", {})
    assert sorted(i for array in made for job in array.jobs for i in job) == sorted(i for i, _ in runs)
    assert len({array.name for array in made}) == len(made)
    before: set[str] = set()
    specs = dict(runs)
    for array in made:
        assert len(array.jobs) <= size
        for job in array.jobs:
            assert len(job) <= pack
            for run_id in job:
                assert wanted.resources(specs[run_id]) == array.resources
                if "parent" in specs[run_id]:
                    name, _, index = array.after.rpartition("_")
                    home = next(other for other in made if other.name == name)
                    assert specs[run_id]["parent"] in home.jobs[int(index)]
        assert array.after is None or array.after.rpartition("_")[0] in before
        before.add(array.name)


def test_another_submission_has_other_names():
    first, second = (arrays([pretrain("a")], profile(), stamp, {})[0].name for stamp in ("x", "y"))
    assert re.fullmatch(r"bench-[0-9a-f]{8}", first)
    assert first != second


FULL = {
    "array_limit": 8,
    "signal_seconds": 300,
    "setup": ("module load cuda/12.4", "source 'my env/bin/activate'"),
    "python": "apptainer exec --nv bench.sif python",
    "environment": {"OMP_NUM_THREADS": "4", "NOTE": "two words"},
    "default": {
        "partition": "gpu",
        "account": "group",
        "qos": "normal",
        "constraint": "a100",
        "nodes": 2,
        "gpus": 4,
        "cpus": 8,
        "memory": "64G",
        "time": "1-00:00:00",
        "slurm": {"mail-type": "FAIL", "exclusive": True, "spread-job": False},
    },
}


@pytest.mark.parametrize(("name", "wanted"), [("bare", profile()), ("full", profile(**FULL))])
def test_scripts_are_as_they_were(name, wanted):
    made = arrays([pretrain("a"), pretrain("b"), evaluate("a", "a")], wanted, "golden", {})
    where = {"python": "python3", "after": lambda job: job.replace(made[0].name, "4711")}
    drawn = [script(array, wanted, Path("/runs/.jobs"), **where) for array in made]
    file = GOLDEN / f"slurm_{name}.sh"
    assert "\n".join(drawn) == file.read_text(), f"if it should be so: replace {file}"


def test_paths_and_values_are_quoted():
    wanted = profile(environment={"NOTE": "it's $HOME"})
    (array,) = arrays([pretrain("a")], wanted, "x", {})
    drawn = script(array, wanted, Path("/my runs/it's é"), python="/my env/python")
    assert f"""'/my env/python' -u -m bench.launch.job '/my runs/it'"'"'s é/{array.name}.json'\n""" in drawn
    assert """#SBATCH --output='/my runs/it'"'"'s é/%A_%a_0_log.out'\n""" in drawn
    assert """export NOTE='it'"'"'s $HOME'\n""" in drawn
