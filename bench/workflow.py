"""What ``bench reproduce``, ``plan`` and ``run`` do: ask for tables, plan, launch, draw."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import plan as planning
from bench import suite as suites
from bench.data.base import Dataset
from bench.data.pack import Geometry
from bench.errors import BenchError
from bench.launch import profile as profiles
from bench.launch.base import Launcher, Work, loaders
from bench.paths import cache_root
from bench.plan import Plan, Run
from bench.report import spec as specs
from bench.runfolder import RunFolder
from bench.suite import Role

if TYPE_CHECKING:
    from bench.data.proposals import SelectiveSearch

Say = Callable[[str], None]


@dataclass(frozen=True)
class How:
    """How runs are executed: loader processes (None: by cores), seconds between checkpoints, images at once."""

    workers: int | None = None
    checkpoint_seconds: float = 60.0
    micro_batch: int | None = None


@dataclass(frozen=True)
class Request:
    """What the user asked for, in the words of the command line."""

    tables: tuple[str, ...]
    suite: str
    methods: str | None
    seeds: str | None
    runs: Path
    data: Path
    as_published: bool = False
    """Each row under the variant and on the backbone of its paper."""

    def plan(self, *, need_data: bool) -> Plan:
        """Raises BenchError: an unknown name, a bad seed, or missing data (unless they are not needed)."""
        tables = [specs.load(name) for name in self.tables]
        return planning.plan(
            tables,
            suites.load(self.suite),
            digests(self.runs, self.data, need_data=need_data),
            methods=planning.parse_methods(self.methods),
            seeds=_seeds(self.seeds),
            as_published=self.as_published,
        )


def digests(runs: Path, data: Path, *, need_data: bool) -> planning.Digests:
    """A look-up of data digests; each data set is opened once."""
    from bench.run import open_role

    known: dict[str, str | None] = {}

    def look(role: Role, split: str) -> str | None:
        key = json.dumps([role.describe(), split])
        if key not in known:
            try:
                known[key] = open_role(role, split, data=data, cache=cache_root(runs)).digest
            except BenchError:
                if need_data:
                    raise
                known[key] = None
        return known[key]

    return look


def print_plan(asked: Request, *, as_json: bool = False) -> None:
    """The runs of a plan, parents before children, and what is done of them."""
    made = asked.plan(need_data=False)
    pending = {run.id for run in planning.pending(made, asked.runs)}
    if as_json:
        runs = [
            {"id": run.id, "parent": run.parent, "pending": run.id in pending, "spec": run.spec} for run in made.runs
        ]
        print(json.dumps({"runs": runs, "skipped": [vars(s) for s in made.skipped]}, indent=2))
        return
    for run in made.runs:
        print(f"{'' if run.parent is None else '  '}{run.id}  {'' if run.id in pending else 'done'}".rstrip())
    for row in made.skipped:
        print(f"{row.row}: {row.reason}")
    suite = suites.load(asked.suite)
    hours = sum(planning.gpu_hours(run, suite) for run in made.runs if run.id in pending)
    cost = f"about {hours:.0f} GPU-hours (a static estimate)" if hours else "no GPU needed"
    print(f"{len(made.runs)} runs, {len(pending)} to do; {cost}")
    if any(None in [part["digest"] for part in run.spec["data"].values()] for run in made.runs):
        print("some data are not here, so ids are provisional: see `bench data status`")


def run_plan(asked: Request, on: str, how: How, say: Say) -> list[str]:
    """Launch what is pending; the ids that failed (none where the launcher is detached)."""
    made = asked.plan(need_data=True)
    todo = planning.pending(made, asked.runs)
    say(f"{len(made.runs)} runs, {len(todo)} to do")
    for run in todo:
        RunFolder.create(asked.runs, run.spec)
    return launch([run.id for run in todo], on, asked.runs, asked.data, how, say)


def launch(ids: list[str], on: str, runs: Path, data: Path, how: How, say: Say) -> list[str]:
    """Hand runs on disk to a launcher."""
    if not ids:
        return []
    launcher = _launcher(on)
    for run_id in ids:
        RunFolder(runs / run_id).resume()
    work = Work(runs, tuple(ids), data, cache_root(runs), how.workers, how.checkpoint_seconds, how.micro_batch)
    return launcher.launch(work, say)


def print_scripts(asked: Request, on: str) -> None:
    """What ``run_plan`` would hand to a cluster: each array's script, parents before children. Submits nothing."""
    from bench.launch.arrays import arrays, script
    from bench.launch.base import jobs_folder

    profile = profiles.load(on)
    if profile.launcher != "slurm":
        return
    todo = planning.pending(asked.plan(need_data=False), asked.runs)
    for array in arrays([(run.id, run.spec) for run in todo], profile, "dry run", {}):
        for index, ids in enumerate(array.jobs):
            print(f"# job {index} of {array.name}: {' '.join(ids)}")
        print(script(array, profile, jobs_folder(asked.runs)))


def again(patterns: tuple[str, ...], runs: Path) -> list[str]:
    """The runs to retry: those that fit and did not end well, with the pretraining or the evaluations they need."""
    from bench.launch import state

    named = {folder.id for folder in state.folders(runs, patterns)}
    everyone = state.folders(runs)
    now = state.reconcile(everyone)
    parent_of = {folder.id: folder.spec().get("parent") for folder in everyone if now[folder.id].state != "DONE"}
    idle = {run_id for run_id in parent_of if not now[run_id].under_way}
    wanted = {run_id for run_id in idle if run_id in named or parent_of[run_id] in named & idle}
    wanted |= {parent for run_id in wanted if (parent := parent_of[run_id]) in idle}
    return sorted(wanted, key=lambda run_id: (parent_of[run_id] is not None, run_id))


def ids_of_run(run_id: str, runs: Path) -> list[str]:
    """A run on disk, its parent first where that is not done."""
    from bench.launch.state import folders

    found = folders(runs, (run_id,))
    if len(found) > 1:
        raise BenchError(f"{run_id!r} fits {len(found)} runs", mend="give more of the id")
    parent = found[0].spec().get("parent")
    first = [parent] if parent and not RunFolder(runs / parent).done() else []
    return [*first, found[0].id]


@dataclass(frozen=True)
class Cell:
    """One cell of a table, in the words of the command line."""

    suite: str
    method: str
    options: str
    protocol: str | None
    variant: str
    backbone: str | None
    """None: the suite's."""
    seed: int


def ids_of_cell(cell: Cell, runs: Path, data: Path) -> list[str]:
    """The runs of one cell, their folders made."""
    try:
        options = json.loads(cell.options)
    except ValueError as error:
        raise BenchError(f"--options is not JSON: {error}", mend='such as {"rotations": 2}') from error
    if not isinstance(options, dict):
        raise BenchError("--options is not a JSON object", mend='such as {"rotations": 2}')
    suite = suites.load(cell.suite)
    look = digests(runs, data, need_data=True)
    parent = planning.pretrain(suite, cell.method, look, seed=cell.seed, options=options, backbone=cell.backbone)
    made: list[Run] = [parent]
    if cell.protocol is not None:
        made.append(planning.evaluate(suite, parent, cell.protocol, cell.variant, look))
    return [RunFolder.create(runs, run.spec).id for run in made]


@dataclass(frozen=True)
class Packing:
    """What ``bench data pack`` was asked for, but for the data set and the geometry."""

    data: Path
    cache: Path
    workers: int | None
    check: bool
    skip_corrupt: bool


@dataclass(frozen=True)
class Searching:
    """What ``bench data proposals`` was asked for, but for the data set and the search."""

    data: Path
    cache: Path
    workers: int | None
    splits: tuple[str, ...]
    """None given: all that are there."""


def prepare_data(name: str, data: Path, cache: Path) -> str:
    """Fetch a data set under a progress bar; one line that says what was done."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from bench.data.prepare import prepare

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    bar = bars.add_task(name, total=None)

    def progress(done: int, of: int | None) -> None:
        if not bars.live.is_started:
            bars.start()
        bars.update(bar, completed=done, total=of)

    try:
        return prepare(name, data, cache, progress=progress)
    finally:
        if bars.live.is_started:
            bars.stop()


def pack_data(name: str, geometry: Geometry, asked: Packing) -> Iterator[str]:
    """Pack the splits of a data set that are there, under a progress bar, or check their stores; a line for each."""
    from bench.data import catalog
    from bench.data.pack import check

    cache = asked.cache
    for split in catalog.splits_there(name, asked.data):
        dataset = catalog.open_dataset(name, (split,), root=asked.data, cache=cache, skip_corrupt=asked.skip_corrupt)
        if asked.check:
            folder = check(dataset, geometry, cache)
            yield f"{dataset.name}: {len(dataset):,} packed images match their checksums: {folder}"
        else:
            folder = _pack(dataset, geometry, cache, loaders(asked.workers))
            yield f"{dataset.name}: {len(dataset):,} images are packed: {folder}"


def find_proposals(name: str, search: SelectiveSearch, asked: Searching) -> Iterator[str]:
    """Find the proposals of the splits of a data set, under a progress bar; a line for each."""
    from bench.data import catalog
    from bench.data.annotation import AnnotatedDataset
    from bench.data.proposals import compute
    from bench.metrics.proposal_recall import recall

    workers = loaders(asked.workers)
    for split in asked.splits or catalog.annotated_splits(name, asked.data):
        dataset = catalog.open_dataset(name, (split,), root=asked.data, cache=asked.cache)
        if not isinstance(dataset, AnnotatedDataset):
            raise BenchError(f"{name} has no boxes to propose")
        with _counting(dataset) as progress:
            found = compute(dataset, search, asked.cache, workers=workers, progress=progress)
        boxes = sum(map(len, found)) / len(found)
        reached = 100 * recall(found, dataset.annotations)
        yield f"{dataset.name}: {boxes:,.0f} proposals an image reach {reached:.1f} % of the objects at IoU 0.5"


@contextlib.contextmanager
def _counting(dataset: Dataset) -> Iterator[Callable[[int], None]]:
    """A progress bar over the images of a data set; call it with how many are done."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(dataset.name, total=len(dataset))
        yield lambda done: bars.update(bar, completed=done)


def _pack(dataset: Dataset, geometry: Geometry, cache: Path, workers: int) -> Path:
    from bench.data.pack import pack

    with _counting(dataset) as progress:
        return pack(dataset, geometry, cache, workers=workers, progress=progress)


def write_tables(asked: Request, out: Path | None, say: Say) -> None:
    """Print each table and write it as HTML, Markdown, LaTeX, CSV and JSON."""
    from bench.cli import SUFFIX
    from bench.files import atomic
    from bench.report.draw import OnDisk, for_screen
    from bench.report.render import render

    folder = out or asked.runs / "tables"
    kind = ".as-published" if asked.as_published else ""
    found = OnDisk(asked.runs)
    for name in asked.tables:
        drawn = found.drawing(name, asked.suite, as_published=asked.as_published, seeds=_seeds(asked.seeds))
        say(for_screen(drawn))
        for fmt, suffix in SUFFIX.items():
            path = folder / f"{name}.{suites.load(asked.suite).name}{kind}.{suffix}"
            with atomic(path) as file:
                file.write(render(drawn, fmt))
            say(f"wrote {path}")


def _launcher(on: str) -> Launcher:
    if on == "inline":
        from bench.launch.inline import Inline

        return Inline()
    profile = profiles.load(on)
    if profile.launcher == "local":
        from bench.launch.local import Local

        return Local()
    from bench.launch.slurm import Slurm

    return Slurm(profile)


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BenchError(f"--seeds {text!r} is not a list of whole numbers", mend="such as 0,1,2") from error
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise BenchError(f"--seeds {text!r}: a seed is from 0 to {2**31 - 1}")
    return seeds
