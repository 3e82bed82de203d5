"""A run's folder: its spec, who owns it now, its log, its checkpoint, and whether it is done. Imports no torch.

``spec.json`` is written once. Each execution takes the next ``attempt-N.json`` with O_EXCL; only the newest
attempt may write, so a second live copy of a job fences off the first. Done means the final files exist.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import __version__
from bench.errors import BenchError
from bench.files import atomic, read_json, write_json, writing_failed
from bench.identity import Spec, run_id

FINAL = {"pretrain": ("backbone.safetensors", "card.json"), "evaluate": ("evidence.npz", "result.json")}
SCRATCH = ("checkpoint.pt",)
SILENT_SECONDS = 30 * 60
"""So long may an attempt on another host write nothing before it counts as lost."""


UNDER_WAY = {"QUEUED", "RUNNING"}
"""States of a run that somebody has in hand."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands, from what is on disk."""

    state: str
    """One of the design's states of a run."""
    reason: str = ""
    job: str | None = None
    """The job of a batch system that executes the run, or is to; it may know more than the disk."""
    name: str | None = None
    """What that job is called."""
    begun: bool = False
    """Whether the run was ever executed."""

    @property
    def under_way(self) -> bool:
        """Whether it waits for its turn or runs."""
        return self.state in UNDER_WAY


class Fenced(BenchError):  # noqa: N818  (the field's word)
    """A newer attempt owns the run: this one must stop without writing."""


@dataclass(frozen=True)
class RunFolder:
    """``<runs>/<run id>/``."""

    path: Path

    @classmethod
    def create(cls, runs: Path, spec: Spec) -> RunFolder:
        """The folder of that spec; same spec, same folder. Safe to call again."""
        folder = cls(runs / run_id(spec))
        if not (folder.path / "spec.json").is_file():
            write_json(folder.path / "spec.json", spec)
        return folder

    @property
    def id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    def spec(self) -> Spec:
        """Raises BenchError: there is no such run, or its spec is not the one its name promises."""
        spec = read_json(self.path / "spec.json")
        try:
            promised = run_id(spec)
        except (KeyError, TypeError) as error:
            raise BenchError("the spec lacks a field", where=self.path / "spec.json") from error
        if promised != self.id:
            raise BenchError(
                f"the spec hashes to {promised}", where=self.path, mend="it was edited or moved: delete the folder"
            )
        return spec

    def done(self) -> bool:
        """Whether both final files exist."""
        return all((self.path / name).is_file() for name in FINAL[self.id.split("-", 1)[0]])

    def attempts(self) -> list[dict[str, Any]]:
        """Every attempt so far, oldest first; a torn file counts as lost."""
        return [self._record(number) for number in sorted(self._numbers())]

    def _record(self, number: int) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._attempt(number).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = {"attempt": number, "state": "LOST", "reason": "its record is unreadable"}
        return record

    def _queue_record(self) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads((self.path / "queue.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def state(self) -> tuple[str, str]:
        """(state, reason), from what is on disk: one of the design's states of a run."""
        found = self.standing()
        return found.state, found.reason

    def standing(self) -> Standing:
        """The same, and the job that may know more. Lists the folder once and reads at most two files."""
        names = _names(self.path)
        if names.issuperset(FINAL[self.id.split("-", 1)[0]]):
            return Standing("DONE", begun=True)
        number = max(_numbers(names), default=0)
        last = self._record(number) if number else None
        queued = self._queue_record() if "queue.json" in names else None
        if queued is not None and (last is None or (last["state"] != "RUNNING" and last.get("job") != queued["job"])):
            return _queued(queued, begun=last is not None)
        if last is None:
            return Standing("PENDING")
        job, name = last.get("job"), last.get("job_name")
        if last["state"] == "RUNNING" and not alive(last, self._last_write()):
            reason = f"process {last.get('pid')} on {last.get('host')} is gone; run it again to go on"
            return Standing("LOST", reason, job, name, begun=True)
        return Standing(last["state"], last.get("reason", ""), job, name, begun=True)

    def job(self) -> str | None:
        """The batch system's job that has the run, or had it last."""
        last = self._queue_record() or next(reversed(self.attempts()), {})
        return last.get("job")

    def settle(self, state: str, reason: str) -> None:
        """Write down what became of a job that can no longer do so itself."""
        number = max(self._numbers(), default=0)
        if (self.path / "queue.json").is_file():
            write_json(self.path / "queue.json", {**(self._queue_record() or {}), "state": state, "reason": reason})
        elif number:
            Attempt(self, number, self._record(number)).end(state, reason)

    def take(self, launcher: str, requeues: int | None = None) -> Attempt:
        """Become the owner. An earlier start of the same job, which its batch system started again, is fenced off.

        Args:
            requeues: so often may the job have been put back into the queue without the run having come further.

        Raises:
            BenchError: another live process owns the run, the folder cannot be written, or ``requeues`` is exceeded
                (which ends the run as FAILED).
        """
        attempts, job = self.attempts(), batch_job()
        if (
            attempts
            and attempts[-1]["state"] == "RUNNING"
            and not _started_again(attempts[-1], job)
            and alive(attempts[-1], self._last_write())
        ):
            owner = attempts[-1]
            raise BenchError(
                f"run {self.id} is being executed by process {owner['pid']} on {owner['host']}",
                mend=f"watch it with `bench logs {self.id} -f`, or stop it with `bench cancel {self.id}`; "
                f"if that machine is gone, remove {self._attempt(owner['attempt'])}",
            )
        while True:
            number = max(self._numbers(), default=0) + 1
            record = {
                "attempt": number,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process_start": process_start(os.getpid()),
                "started": now(),
                "launcher": launcher,
                **job,
                "checkpoint": self._checkpoint_stamp(),
                "bench": __version__,
                "state": "RUNNING",
                "reason": "",
            }
            try:
                handle = os.open(self._attempt(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                continue
            except OSError as error:
                raise writing_failed(self._attempt(number), error) from error
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(record, file)
            except OSError as error:
                self._attempt(number).unlink(missing_ok=True)
                raise writing_failed(self._attempt(number), error) from error
            (self.path / "queue.json").unlink(missing_ok=True)
            self._drop_leftovers()
            attempt = Attempt(self, number, record)
            if requeues is not None and (times := _in_vain(attempts, record)) > requeues:
                attempt.end("FAILED", f"its job was put back into the queue {times} times and came no further")
                raise BenchError(attempt.record["reason"], where=self.id, mend="give it more time, then `bench retry`")
            return attempt

    def _checkpoint_stamp(self) -> int | None:
        """Which checkpoint there is: when it was written."""
        try:
            return (self.path / SCRATCH[0]).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _drop_leftovers(self) -> None:
        """Remove what an attempt that was killed had half written: files that only the owner writes."""
        for name in ("log.jsonl", "attempt-*", *SCRATCH, *FINAL[self.id.split("-", 1)[0]]):
            for leftover in self.path.glob(f".{name}.*.tmp"):
                leftover.unlink(missing_ok=True)

    def queue(self, launcher: str, job: str, name: str | None = None) -> None:
        """Record that a job will execute the run; ``take`` removes the record."""
        write_json(self.path / "queue.json", {"launcher": launcher, "job": job, "name": name, "queued": now()})

    def cancel(self) -> None:
        """Ask whoever executes the run to save and stop, and whoever would to leave it."""
        write_json(self.path / "cancel.json", {"asked": now()})

    def cancelled(self) -> bool:
        """Whether somebody asked for that."""
        return (self.path / "cancel.json").is_file()

    def resume(self) -> None:
        """Take back ``cancel``: the run may be executed again."""
        (self.path / "cancel.json").unlink(missing_ok=True)

    def note(self, text: str) -> None:
        """Append to ``out.log``, for people."""
        with (self.path / "out.log").open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    def log(self) -> list[dict[str, Any]]:
        """The records of ``log.jsonl``; a torn last line is left out."""
        try:
            lines = (self.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def _last_write(self) -> float:
        """When anything in the folder was last written, in seconds since 1970."""
        return max((file.stat().st_mtime for file in self.path.iterdir()), default=0.0)

    def _attempt(self, number: int) -> Path:
        return self.path / f"attempt-{number}.json"

    def _numbers(self) -> list[int]:
        return _numbers(_names(self.path))


@dataclass
class Attempt:
    """One execution of a run, for as long as no newer one exists."""

    folder: RunFolder
    number: int
    record: dict[str, Any]
    before: float = 0.0
    """Seconds of training in earlier attempts, up to the checkpoint that this one went on from."""

    def guard(self) -> None:
        """Raises Fenced: a newer attempt exists. Call before every write that counts."""
        if max(self.folder._numbers(), default=0) != self.number:
            raise Fenced(f"attempt {self.number} of {self.folder.id} was superseded", mend="nothing: a newer one runs")

    def end(self, state: str, reason: str = "") -> None:
        """Record how the attempt ended; one line of reason."""
        self.record |= {"state": state, "reason": reason, "ended": now()}
        write_json(self.folder._attempt(self.number), self.record)

    def truncate_log(self, update: int) -> None:
        """Drop the log's records after ``update``: a resumed run writes them again."""
        kept = [record for record in self.folder.log() if record["update"] <= update]
        with atomic(self.folder.path / "log.jsonl") as file:
            file.writelines(json.dumps(record) + "\n" for record in kept)

    def write_log(self, record: dict[str, Any]) -> None:
        """Append one record.

        Raises:
            Fenced: a newer attempt writes the log now.
        """
        self.guard()
        path = self.folder.path / "log.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise writing_failed(path, error) from error

    def tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        for name in SCRATCH:
            (self.folder.path / name).unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    """What a folder holds; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except FileNotFoundError:
        return set()


def _numbers(names: Iterable[str]) -> list[int]:
    """The attempts among the names of a folder's files."""
    stems = (name[8:-5] for name in names if name.startswith("attempt-") and name.endswith(".json"))
    return [int(stem) for stem in stems if stem.isdigit()]


def _queued(record: dict[str, Any], *, begun: bool) -> Standing:
    """What ``queue.json`` says: the job is to come, or was seen to end before it got to the run."""
    if "state" in record:
        return Standing(record["state"], record.get("reason", ""), begun=begun)
    if record["launcher"] == "local":
        return Standing("QUEUED" if process_start(int(record["job"])) is not None else "PENDING", begun=begun)
    return Standing("QUEUED", job=record["job"], name=record.get("name"), begun=begun)


def batch_job() -> dict[str, Any]:
    """The Slurm job that this process is part of, and how often Slurm started it again; nothing outside of one."""
    here = os.environ
    if "SLURM_JOB_ID" not in here:
        return {}
    array, index = here.get("SLURM_ARRAY_JOB_ID"), here.get("SLURM_ARRAY_TASK_ID")
    return {
        "job": f"{array}_{index}" if array else here["SLURM_JOB_ID"],
        "job_name": here.get("SLURM_JOB_NAME"),
        "restarts": int(here.get("SLURM_RESTART_COUNT", 0)),
    }


def _started_again(record: dict[str, Any], job: dict[str, Any]) -> bool:
    """Whether ``record`` is of an earlier start of this very job: then its process is dead, or fenced off."""
    return bool(job) and record.get("job") == job["job"] and record.get("restarts", 0) < job["restarts"]


def _in_vain(attempts: list[dict[str, Any]], mine: dict[str, Any]) -> int:
    """How many of the last attempts were starts of the same job, and left the checkpoint as it is now."""
    same = [(a.get("job"), a.get("checkpoint")) == (mine.get("job"), mine["checkpoint"]) for a in reversed(attempts)]
    return same.index(False) if False in same else len(same)


def alive(record: dict[str, Any], last_write: float) -> bool:
    """Whether the attempt's process lives; on another host, whether it wrote to the run's folder lately.

    (A host that is gone, or was renamed, cannot be asked. An attempt that lives all the same is fenced off.)
    """
    if record.get("host") != socket.gethostname():
        return time.time() - last_write < SILENT_SECONDS
    try:
        os.kill(int(record["pid"]), 0)
    except (KeyError, ValueError):
        return False
    except OSError as error:
        return error.errno == errno.EPERM
    return process_start(int(record["pid"])) == record.get("process_start")


def process_start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks (None where /proc is not there): tells a reused pid apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
