"""``local``: the same as inline in one detached process of this machine, by submitit's local executor."""

from __future__ import annotations

from collections.abc import Callable

from bench.launch.base import Launcher, Work
from bench.runfolder import RunFolder

MINUTES = 30 * 24 * 60
"""submitit wants a time limit; a month is none."""


class Local(Launcher):
    """Returns at once; the work outlives the shell. Watch it with ``bench status``."""

    detached = True

    def launch(self, work: Work, say: Callable[[str], None]) -> list[str]:
        """Start one process that works the runs off in order."""
        from submitit import LocalExecutor

        from bench.launch import job

        executor = LocalExecutor(folder=work.runs / ".jobs" / "%j")
        executor.update_parameters(timeout_min=MINUTES, stderr_to_stdout=True)
        made = executor.submit(
            job.main, str(work.runs), list(work.ids), str(work.data), str(work.cache), work.workers, "local"
        )
        for run_id in work.ids:
            RunFolder(work.runs / run_id).queue("local", made.job_id)
        say(f"started process {made.job_id}: {len(work.ids)} runs; its output is in {made.paths.stdout}")
        return []
