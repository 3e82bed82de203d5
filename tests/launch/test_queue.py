"""What becomes of a run's state by what Slurm says; states that a dev cluster cannot make come from fake commands."""

import pytest

from bench import catalogue, workflow
from bench.files import read_json, write_json
from bench.launch import queue, state
from bench.launch.cancel import cancel
from bench.runfolder import RunFolder

PRETRAIN = {"kind": "pretrain", "method": "m", "backbone": "b", "suite": "s", "seed": 0}


@pytest.fixture
def slurm(command):
    """A function: from now on squeue and sacct print these lines; None: they fail."""

    def say(squeue, sacct=()):
        for name, lines in (("squeue", squeue), ("sacct", sacct)):
            body = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
            if lines is not None:
                body = "cat <<'END'\n" + "".join(line + "\n" for line in lines) + "END"
            command(name, body)

    return say


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path / "runs", PRETRAIN)
    folder.queue("slurm", "7_0", "bench-a")
    return folder


def start(run, **more):
    """As if job 7_0 had taken the run, on a machine that is not this one."""
    attempt = run.take("slurm")
    write_json(
        run.path / "attempt-1.json",
        attempt.record | {"job": "7_0", "job_name": "bench-a", "restarts": 0, "host": "elsewhere"} | more,
    )


def now(run):
    found = state.reconcile([run])[run.id]
    return found.state, found.reason


@pytest.mark.parametrize(
    ("slurms", "ours"),
    [
        ("TIMEOUT", "TIMEOUT"),
        ("OUT_OF_MEMORY", "OOM"),
        ("CANCELLED by 0", "CANCELLED"),
        ("PREEMPTED", "PREEMPTED"),
        ("FAILED", "FAILED"),
        ("NODE_FAIL", "LOST"),
        ("COMPLETED", "LOST"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_how_a_job_ended_is_written_down(slurms, ours, begun, run, slurm):
    if begun:
        start(run)
    slurm([], [f"7_0|{slurms}|bench-a"])
    logs = run.path.parent / ".jobs"
    logs.mkdir()
    (logs / "7_0_0_log.err").write_text("Traceback\nValueError: no luck\nsrun: error: task 0\n")
    found, reason = now(run)
    assert found == ours
    assert reason == f"job 7_0 ended: {slurms.partition(' ')[0]}: ValueError: no luck"
    slurm(None, None)
    assert run.state() == (found, reason), "it is on disk now"


def test_a_job_that_waits_or_starts_is_queued_with_the_reason(run, slurm):
    slurm(["7_0|PENDING|Resources|bench-a"])
    assert now(run) == ("QUEUED", "Resources")
    slurm(["7_0|RUNNING|None|bench-a"])
    assert now(run) == ("QUEUED", "its job has started")


def test_put_back_into_the_queue_it_is_queued_again(run, slurm):
    start(run)
    slurm(["7_0|RUNNING|None|bench-a"])
    assert now(run)[0] == "RUNNING"
    slurm(["7_0|PENDING|BeginTime|bench-a"])
    assert now(run) == ("QUEUED", "again, after RUNNING: BeginTime")
    record = read_json(run.path / "attempt-1.json")
    write_json(run.path / "attempt-1.json", record | {"state": "PREEMPTED", "reason": "the job had to make room"})
    assert now(run)[0] == "QUEUED"
    slurm([], ["7_0|COMPLETED|bench-a"])
    assert now(run) == ("PREEMPTED", "the job had to make room"), "its own word stands"
    slurm([], ["7_0|CANCELLED by 0|bench-a"])
    assert now(run)[0] == "CANCELLED"


def test_a_controller_that_is_away_changes_nothing(run, slurm):
    slurm(None, None)
    assert now(run) == ("QUEUED", "")
    start(run)
    assert now(run)[0] == "RUNNING"


def test_without_accounting_a_forgotten_job_is_lost(run, slurm):
    slurm([], None)
    assert now(run) == ("LOST", "Slurm does not know job 7_0; retry it")


def test_what_a_job_said_that_slurm_forgot_is_in_the_reason_and_the_log(run, slurm):
    slurm([], None)
    logs = run.path.parent / ".jobs"
    logs.mkdir()
    (logs / "7_0_0_log.err").write_text("line 18: module: command not found\n")
    reason = "Slurm does not know job 7_0, which last said: line 18: module: command not found; retry it"
    assert now(run) == ("LOST", reason)
    shown = list(catalogue.follow_log(run, follow=False))
    assert shown == ["line 18: module: command not found", f"{run.id}: LOST ({reason})"]


def test_who_follows_a_log_hears_what_it_waits_for_and_slurm_is_asked_seldom(run, slurm, monkeypatch):
    asked, slept = [], []
    monkeypatch.setattr(
        queue, "_squeue", lambda *which: asked.append(which) or [["7_0", "PENDING", "Priority", "bench-a"]]
    )

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 25:
            run.settle("FAILED", "no luck")

    monkeypatch.setattr(catalogue.time, "sleep", sleep)
    shown = list(catalogue.follow_log(run, follow=True))
    assert shown == [f"{run.id}: QUEUED (Priority)", f"{run.id}: FAILED (no luck)"]
    assert len(asked) == 3


def test_cancel_without_an_answer_says_that_the_job_stays(run, slurm, command):
    slurm(["7_0|PENDING|Priority|bench-a"])
    command("scancel", "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1")
    write_json(run.path.parent / ".jobs" / "bench-a.json", {"jobs": [[run.id]]})
    with pytest.warns(UserWarning, match="their jobs will do nothing: scancel: error: Unable to contact"):
        assert list(cancel(run.path.parent, ("*",))) == [f"{run.id}: asked to stop"]
    assert run.cancelled()
    slurm(None, None)
    assert now(run)[0] == "CANCELLED"


def test_an_id_that_was_given_out_again_is_not_ours(run, slurm):
    slurm(["7_0|RUNNING|None|bench-of-another"], ["7_0|COMPLETED|bench-of-another"])
    assert now(run)[0] == "LOST"


def test_a_run_that_went_on_meanwhile_is_left_alone(run, slurm):
    start(run)
    standing = run.standing()
    for name in ("backbone.safetensors", "card.json"):
        (run.path / name).write_text("{}")
    slurm([], ["7_0|COMPLETED|bench-a"])
    amended = state._amended(run, standing, queue.ask({"7_0": "bench-a"}))
    assert amended.state == "DONE"


def test_children_of_a_failed_parent_are_blocked_and_say_why(run, slurm):
    child = RunFolder.create(run.path.parent, PRETRAIN | {"kind": "evaluate", "parent": run.id})
    child.queue("slurm", "8_0", "bench-b")
    start(run)
    slurm(["8_0|PENDING|DependencyNeverSatisfied|bench-b"], ["7_0|FAILED|bench-a"])
    rows = {row["run"]: row for row in state.rows([run, child])}
    assert rows[child.id]["state"] == "BLOCKED"
    assert rows[child.id]["reason"].startswith("its pretraining is FAILED: job 7_0 ended: FAILED")


@pytest.fixture
def child(run):
    made = RunFolder.create(run.path.parent, PRETRAIN | {"kind": "evaluate", "parent": run.id})
    made.queue("slurm", "8_0", "bench-b")
    return made


@pytest.mark.parametrize("pattern", ["pretrain-*", "evaluate-*", "*"])
def test_what_is_retried_takes_in_children_that_slurm_has_not_yet_given_up(pattern, run, child, slurm):
    start(run)
    run.settle("FAILED", "disk full")
    slurm(["8_0|PENDING|Dependency|bench-b"])
    assert state.reconcile([child])[child.id].state == "BLOCKED"
    assert workflow.again((pattern,), run.path.parent) == [run.id, child.id]


def test_a_child_asked_about_alone_is_not_blocked_while_its_parent_queues_again(run, child, slurm):
    start(run)
    run.settle("TIMEOUT", "the job's time was up")
    slurm(["7_0|PENDING|BeginTime|bench-a", "8_0|PENDING|Dependency|bench-b"])
    assert now(child) == ("QUEUED", "Dependency")
    slurm([], ["7_0|TIMEOUT|bench-a", "8_0|CANCELLED|bench-b"])
    assert now(child) == ("BLOCKED", "its pretraining is TIMEOUT: the job's time was up")


def test_a_child_of_a_pretraining_that_was_lost_is_blocked(run, child, slurm):
    slurm(["8_0|PENDING|DependencyNeverSatisfied|bench-b"])
    assert now(child) == ("BLOCKED", "its pretraining is LOST: Slurm does not know job 7_0; retry it")


def test_the_summary_counts_states_in_the_order_of_a_life():
    shown = [{"state": name} for name in ("DONE", "FAILED", "DONE", "QUEUED")]
    assert state.summary(shown) == "4 runs: 1 QUEUED, 2 DONE, 1 FAILED"


def test_many_jobs_are_asked_about_in_few_calls(slurm, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(queue, "_squeue", lambda *which: calls.append(which) or [])
    monkeypatch.setattr(queue, "_sacct", lambda *which: [])
    answer = queue.ask({f"{array}_{index}": None for array in range(450) for index in range(20)})
    assert answer.heard
    assert len(calls) == 3
