"""Executes runs one after another in this process: what ``inline`` does here, and a job on its own machine."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable

from bench.errors import BenchError
from bench.launch.base import Work, loaders
from bench.run import Executor, execute
from bench.runfolder import Fenced, RunFolder
from bench.training.loop import Execution, Interrupted

Progress = Callable[[str, int, int], None]


def work_off(
    work: Work,
    by: Executor,
    *,
    say: Callable[[str], None],
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Execute the runs of ``work``; a failed parent blocks its own children only. Returns the failed ids.

    Raises:
        Interrupted: the process was asked to stop; every run's state is on disk.
    """
    failed: list[str] = []
    begun = False
    for run_id in work.ids:
        folder = RunFolder(work.runs / run_id)
        if folder.done():
            continue
        if begun and stop():  # the first goes on by an update at least, so no job starts again and again in vain
            raise Interrupted
        parent = folder.spec().get("parent")
        if folder.cancelled():
            continue
        if parent and not RunFolder(work.runs / parent).done():
            say(f"{run_id}: blocked, its pretraining {parent} is not done")
            continue
        begun = True
        how = Execution(loaders(work.workers), work.micro_batch, work.checkpoint_seconds, _of(run_id, progress), stop)
        try:
            execute(folder, by, how)
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
