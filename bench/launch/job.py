"""Executes runs one after another in this process: what ``inline`` does here, and a job on its own machine."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError
from bench.files import read_json
from bench.launch.base import Work
from bench.run import execute
from bench.runfolder import Fenced, RunFolder
from bench.training.loop import Execution, Interrupted

Progress = Callable[[str, int, int], None]


def work_off(work: Work, *, launcher: str, say: Callable[[str], None], progress: Progress | None = None) -> list[str]:
    """Execute the runs of ``work``; a failed parent blocks its own children only. Returns the failed ids.

    Raises:
        Interrupted: the process was asked to stop; every run's state is on disk.
    """
    failed: list[str] = []
    for run_id in work.ids:
        folder = RunFolder(work.runs / run_id)
        if folder.done():
            continue
        parent = folder.spec().get("parent")
        if parent in failed or folder.cancelled():
            continue
        how = Execution(work.workers, work.micro_batch, work.checkpoint_seconds, _of(run_id, progress))
        try:
            execute(folder, data=work.data, cache=work.cache, launcher=launcher, how=how)
        except Interrupted:
            if folder.cancelled():
                say(f"{run_id}: cancelled")
                failed.append(run_id)
                continue
            raise
        except Fenced as error:
            say(str(error))
        except BenchError as error:
            say(f"{run_id} failed: {error}")
            failed.append(run_id)
        except Exception as error:
            with contextlib.suppress(OSError):  # a full disk may be what went wrong
                folder.note(traceback.format_exc())
            say(f"{run_id} failed: {type(error).__name__}: {error}; traceback in {folder.path / 'out.log'}")
            failed.append(run_id)
    return failed


def _of(run_id: str, progress: Progress | None) -> Callable[[int, int], None]:
    if progress is None:
        return lambda done, of: None
    return lambda done, of: progress(run_id, done, of)


def main(job: Path) -> int:
    """The body of a detached job: the file that describes its work in, an exit status out."""
    described = read_json(job)
    work = Work(
        Path(described["runs"]),
        tuple(described["ids"]),
        Path(described["data"]),
        Path(described["cache"]),
        described["workers"],
        described["checkpoint_seconds"],
        described["micro_batch"],
    )
    try:
        return min(1, len(work_off(work, launcher="local", say=lambda line: print(line, flush=True))))
    except Interrupted:
        return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
