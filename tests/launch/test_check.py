"""``bench profile check`` where a job waits, fails, or speaks; tests/slurm has the real cluster."""

import pytest

from bench.errors import BenchError
from bench.launch import check


@pytest.fixture
def checked(command, tmp_path, monkeypatch):
    """A function: the lines of a check whose job is in these states (Slurm's words, ``state|reason``), one a look."""
    monkeypatch.setattr(check.time, "sleep", lambda seconds: None)
    profile = tmp_path / "mine.toml"
    profile.write_text('title = "t"\nlauncher = "slurm"\n')
    name, looks = tmp_path / "name", tmp_path / "looks"
    command("srun", "exit 0")
    command("sacct", "exit 1")
    command("sbatch", f"sed -n 's/^#SBATCH --job-name=//p' \"$1\" >'{name}'; echo Submitted batch job 17")

    def of(*states):
        looks.write_text("".join(f"17_0|{state}|\n" for state in states))
        command("squeue", f"echo \"$(head -n 1 '{looks}')$(cat '{name}')\"; sed -i '2,$!{{$!d}}' '{looks}'")
        return check.check(str(profile), tmp_path / "runs", tmp_path)

    return of


def test_what_the_job_saw_and_what_it_waited_for(checked, tmp_path):
    found = checked("PENDING|None", "PENDING|Resources", "PENDING|Resources", "PENDING|Priority", "COMPLETED|None")
    said = []
    for line in found:
        said.append(line)
        if line == "  job 17 is submitted":
            (tmp_path / "runs" / ".jobs" / "17_0_0_log.out").write_text("host: node1\n")
    waited = ["  it waits: Resources", "  it waits: Priority"]
    assert said == ["pretrain, evaluate:", "  job 17 is submitted", *waited, "  host: node1"]


def test_a_job_that_failed_is_one_line_with_its_last_words(checked, tmp_path):
    found = checked("FAILED|NonZeroExitCode")
    assert next(found) == "pretrain, evaluate:"
    assert next(found) == "  job 17 is submitted"
    (tmp_path / "runs" / ".jobs" / "17_0_0_log.err").write_text("python: not found\n")
    with pytest.raises(BenchError, match=r"the job ended FAILED: python: not found .*17_0_0_log.err"):
        next(found)


def test_a_job_that_waits_too_long_is_left_with_the_reason(checked, monkeypatch):
    times = iter(range(1000))
    monkeypatch.setattr(check.time, "monotonic", lambda: next(times) * 100)
    with pytest.raises(BenchError, match="job 17 has not ended in 600 s: PartitionConfig: it goes on: see `squeue"):
        list(checked("PENDING|PartitionConfig"))
