import json
import os
import subprocess
import sys

import pytest

from bench.errors import BenchError
from bench.files import atomic, write_json
from bench.runfolder import Fenced, RunFolder

SPEC = {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, SPEC)


def test_same_spec_same_folder(tmp_path, folder):
    assert RunFolder.create(tmp_path, dict(reversed(SPEC.items()))) == folder
    assert RunFolder.create(tmp_path, SPEC | {"seed": 1}) != folder
    assert folder.id.startswith("evaluate-m-b-s-s0-")
    assert folder.spec() == SPEC


def test_an_edited_spec_is_refused(folder):
    write_json(folder.path / "spec.json", SPEC | {"extra": 1})
    with pytest.raises(BenchError, match="hashes to"):
        folder.spec()


def test_states_follow_the_files(folder):
    assert folder.state() == ("PENDING", "")
    attempt = folder.take("inline")
    assert folder.state()[0] == "RUNNING"
    attempt.end("FAILED", "no luck")
    assert folder.state() == ("FAILED", "no luck")
    folder.queue("local", str(os.getpid()))
    assert folder.state()[0] == "QUEUED"
    again = folder.take("local")
    assert again.number == 2
    for name in ("evidence.npz", "result.json"):
        assert not folder.done()
        (folder.path / name).write_text("{}")
    assert folder.state() == ("DONE", "")


def test_a_live_owner_is_not_displaced(folder):
    folder.take("inline")
    with pytest.raises(BenchError, match=f"being executed by process {os.getpid()}"):
        folder.take("inline")


def test_a_killed_owner_is_lost_and_its_run_taken_over(folder):
    code = f"""
import os, signal
from pathlib import Path
from bench.runfolder import RunFolder
RunFolder(Path({str(folder.path)!r})).take("inline")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    state, reason = folder.state()
    assert state == "LOST"
    assert "is gone" in reason
    assert folder.take("inline").number == 2


def test_a_reused_pid_is_not_mistaken_for_the_owner(folder):
    attempt = folder.take("inline")
    write_json(folder.path / "attempt-1.json", attempt.record | {"process_start": "1"})
    assert folder.state()[0] == "LOST"


def test_an_older_attempt_is_fenced_off(folder):
    old = folder.take("inline")
    write_json(folder.path / "attempt-1.json", old.record | {"host": "elsewhere", "state": "LOST"})
    new = folder.take("inline")
    new.guard()
    with pytest.raises(Fenced, match="superseded"):
        old.guard()


def test_only_one_of_many_takers_gets_each_number(folder):
    code = f"""
from pathlib import Path
from bench.runfolder import RunFolder
a = RunFolder(Path({str(folder.path)!r})).take("inline")
a.end("FAILED", "x")
print(a.number)
"""
    jobs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    numbers = [job.communicate()[0].strip() for job in jobs]
    taken = [n for n in numbers if n]
    assert len(set(taken)) == len(taken) >= 1


def test_a_torn_attempt_counts_as_lost(folder):
    folder.take("inline")
    (folder.path / "attempt-1.json").write_text('{"attem')
    assert folder.state()[0] == "LOST"


def test_the_log_is_cut_back_to_the_checkpoint(folder):
    attempt = folder.take("inline")
    for update in (1, 2, 3):
        attempt.write_log({"update": update})
    with (folder.path / "log.jsonl").open("a") as file:
        file.write('{"update": 4, "lo')
    assert [r["update"] for r in folder.log()] == [1, 2, 3]
    attempt.truncate_log(2)
    assert [r["update"] for r in folder.log()] == [1, 2]


def test_cancel_is_asked_for_and_taken_back(folder):
    folder.cancel()
    assert folder.cancelled()
    folder.resume()
    assert not folder.cancelled()


def test_atomic_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="boom"), atomic(path) as file:
        file.write("half")
        raise ValueError("boom")
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    import errno

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match="No space left.*free some space"):
        write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())
