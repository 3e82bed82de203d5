"""``local``: the same as inline, in one detached process of this machine.

(submitit's local executor leaves its process in the shell's session and on the shell's pipes, so it dies with a
closed terminal and a script that reads our output waits for it; so we start the process ourselves.)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from bench.files import write_json
from bench.launch.base import Launcher, Work, jobs_folder
from bench.launch.job import describe
from bench.runfolder import RunFolder, now


class Local(Launcher):
    """Returns at once; the work outlives the shell. Watch it with ``bench status``."""

    detached = True

    def launch(self, work: Work, say: Callable[[str], None]) -> list[str]:
        """Start one process that works the runs off in order."""
        job = jobs_folder(work.runs) / f"local-{now().replace(':', '')}.json"
        write_json(job, describe(work, [work.ids], launcher="local"))
        output = job.with_suffix(".log")
        with output.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.launch.job", str(job)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for run_id in work.ids:
            RunFolder(work.runs / run_id).queue("local", str(process.pid))
        say(f"started process {process.pid}: {len(work.ids)} runs; its output is in {output}")
        say("watch it with `bench status`; it goes on when this shell is closed")
        return []
