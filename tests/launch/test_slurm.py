"""Submitting to a cluster that is busy, refuses, or lost a submitter; tests/slurm has the real one."""

import pytest

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.launch import slurm
from bench.launch.base import Work, jobs_folder
from bench.launch.profile import Profile
from bench.runfolder import RunFolder

SPEC = {"kind": "pretrain", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
BUSY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"


@pytest.fixture
def cluster(command, tmp_path, monkeypatch):
    """A function: sbatch answers its n-th call with the n-th of these lines, and with status 1 where it is an error."""
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    command("srun", "exit 0")
    command("squeue", "exit 0")
    command("sacct", "exit 1")

    def answer(*lines):
        for number, line in enumerate(lines, start=1):
            (tmp_path / f"answer-{number}").write_text(line + "\n")
        calls = tmp_path / "calls"
        calls.write_text("")
        command(
            "sbatch",
            f'echo >>"{calls}"; file="{tmp_path}/answer-$(wc -l <"{calls}" | tr -d " ")"\n'
            'if grep -q error "$file"; then cat "$file" >&2; exit 1; fi; cat "$file"',
        )
        return lambda: len(calls.read_text())

    return answer


def profile(**more):
    return Profile.model_validate({"name": "p", "title": "t", "launcher": "slurm", **more})


def work(tmp_path, count):
    runs = tmp_path / "runs"
    ids = tuple(RunFolder.create(runs, SPEC | {"seed": seed}).id for seed in range(count))
    return Work(runs, ids, tmp_path, tmp_path, 0, 60.0)


@pytest.mark.parametrize(
    "said",
    [
        BUSY,
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    ],
)
def test_who_is_busy_is_asked_again_and_that_is_said(said, cluster, tmp_path):
    calls = cluster(said, said, "Submitted batch job 17")
    told: list[str] = []
    with pytest.warns(UserWarning, match="asking again in"):
        slurm.Slurm(profile()).launch(work(tmp_path, 1), told.append)
    assert calls() == 3
    assert told[0] == "submitted 1 runs: 17 (1 jobs)"


@pytest.mark.filterwarnings("ignore:sbatch")
def test_who_stays_away_is_one_line(cluster, tmp_path):
    calls = cluster(*[BUSY] * 9)
    with pytest.raises(BenchError, match=r"Unable to contact slurm controller \(connect failure\)"):
        slurm.Slurm(profile()).launch(work(tmp_path, 1), print)
    assert calls() == 4


def test_taken_though_it_seemed_not_so_is_not_submitted_twice(cluster, command, tmp_path):
    calls = cluster(BUSY, "Submitted batch job 18")
    command(
        "squeue",
        f'cd {tmp_path}/runs/.jobs; for file in bench-*.json; do echo "17_0|PENDING|None|${{file%.json}}"; done',
    )
    told: list[str] = []
    with pytest.warns(UserWarning, match="asking again"):
        slurm.Slurm(profile()).launch(work(tmp_path, 1), told.append)
    assert calls() == 1
    assert told[0] == "submitted 1 runs: 17 (1 jobs)"


def test_what_was_submitted_before_a_refusal_is_said_and_goes_on(cluster, command, tmp_path):
    refused = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    cluster("Submitted batch job 17", refused)
    asked = work(tmp_path, 3)
    told: list[str] = []
    with pytest.raises(BenchError, match="sbatch refuses: Batch job submission failed: Job violates"):
        slurm.Slurm(profile(array_size=2)).launch(asked, told.append)
    assert told[0] == "submitted 2 runs: 17 (2 jobs)"
    cluster("Submitted batch job 18")
    (name,) = {RunFolder(asked.runs / run_id).standing().name for run_id in asked.ids} - {None}
    command("squeue", f"echo '17_0|PENDING|None|{name}'; echo '17_1|PENDING|None|{name}'")
    slurm.Slurm(profile(array_size=2)).launch(asked, told.append)
    assert told[2:4] == ["2 runs are in the queue or running already", "submitted 1 runs: 18 (1 jobs)"]
    assert len(list(jobs_folder(asked.runs).glob("bench-*.json"))) == 2, "what was refused is forgotten"


def test_an_array_of_a_submitter_that_died_is_recorded_or_forgotten(cluster, command, tmp_path):
    asked = work(tmp_path, 2)
    folder = jobs_folder(asked.runs)
    for name, run_id in zip(("bench-known", "bench-unknown"), asked.ids, strict=True):
        write_json(folder / f"{name}.json", {"runs": str(asked.runs), "jobs": [[run_id]]})
    cluster()
    command("squeue", "exit 1")
    slurm.recover(asked.runs)
    assert len(list(folder.glob("bench-*.json"))) == 2, "Slurm is away: nothing is known"
    command("squeue", "echo '17_0|PENDING|None|bench-known'")
    slurm.recover(asked.runs)
    assert read_json(folder / "bench-known.json")["job"] == "17"
    assert not (folder / "bench-unknown.json").exists()
    known, unknown = (RunFolder(asked.runs / run_id).standing() for run_id in asked.ids)
    assert (known.state, known.job, unknown.state) == ("QUEUED", "17_0", "PENDING")


def test_without_slurm_and_in_a_folder_that_slurm_misreads(tmp_path, monkeypatch, cluster):
    cluster("Submitted batch job 17")
    with pytest.raises(BenchError, match="takes a % in the path"):
        slurm.Slurm(profile()).launch(work(tmp_path / "50%j", 1), print)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(BenchError, match="there is no Slurm here"):
        slurm.Slurm(profile()).launch(work(tmp_path, 1), print)
