"""``inline``: the runs are executed in this process, under progress bars."""

from __future__ import annotations

from collections.abc import Callable

from bench.launch.base import Launcher, Work


class Inline(Launcher):
    """Returns when everything is done."""

    detached = False

    def launch(self, work: Work, say: Callable[[str], None]) -> list[str]:
        """Execute here, one after another."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from bench.launch.work import work_off
        from bench.run import Executor

        by = Executor("inline", work.data, work.cache)
        console = Console(stderr=True)
        if not console.is_terminal:
            return work_off(work, by, say=say, progress=_Lines(say))
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("updates"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=console) as bars:
            whole = bars.add_task(f"{len(work.ids)} runs", total=None)
            tasks: dict[str, object] = {}

            def progress(run_id: str, done: int, of: int) -> None:
                if run_id not in tasks:
                    tasks[run_id] = bars.add_task(run_id.rsplit("-", 1)[0], total=of)
                    bars.update(whole, description=f"run {work.ids.index(run_id) + 1} of {len(work.ids)}")
                bars.update(tasks[run_id], completed=done)  # type: ignore[arg-type]

            return work_off(work, by, say=bars.console.print, progress=progress)


class _Lines:
    """Progress where there is no terminal: one line when a run starts and one when it has trained."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.seen = say, ""

    def __call__(self, run_id: str, done: int, of: int) -> None:
        if run_id != self.seen:
            self.seen = run_id
            self.say(f"{run_id}: {of} updates")
        if done == of:
            self.say(f"{run_id}: trained")
