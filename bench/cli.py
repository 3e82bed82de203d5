"""The ``bench`` command: one short function a verb; it parses, calls, prints.

Only typer and the standard library are imported here; each verb imports what it needs.
"""

from __future__ import annotations

import os
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import __version__
from bench.errors import BenchError, did_you_mean

app = typer.Typer(
    name="bench",
    help="Rebuild the result tables of self-supervised visual learning, measured.\n\n"
    "Start with: bench reproduce imagenet-linear --suite demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="What data there are, and how to get them.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
profile_app = typer.Typer(help="Where runs execute.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(profile_app, name="profile")

RunsOption = Annotated[
    Path | None, typer.Option("--runs", help="Folder of the runs [default: $BENCH_RUNS or ./runs]", show_default=False)
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data sets [default: $BENCH_DATA]", show_default=False)
]
SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="Scale: smoke, demo, mini, alexnet, or a .toml file")]
MethodsOption = Annotated[str | None, typer.Option("--methods", "-m", help="Comma-separated [default: all]")]
SeedsOption = Annotated[str | None, typer.Option("--seeds", help="Comma-separated [default: the suite's]")]
PublishedOption = Annotated[
    bool, typer.Option("--as-published", help="Each row under the variant and backbone of its paper")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output")]
EveryOption = Annotated[float, typer.Option("--checkpoint-every", min=0, help="Seconds between checkpoints")]
MicroOption = Annotated[
    int | None,
    typer.Option("--micro-batch", min=1, help="Images at once; gradients add up to the batch [default: all]"),
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=0, help="Loader processes [default: by cores]")]
OnOption = Annotated[
    str,
    typer.Option("--on", help="inline (here), local (one detached process), a profile of a cluster, or its .toml file"),
]
ReleasesOption = Annotated[
    Path | None, typer.Option("--releases", help="Folder of evidence too large for git, as <sha256>.npz")
]
ReplaceOption = Annotated[
    str | None, typer.Option("--replace", help="Why other numbers that are published may be replaced")
]
CheckOption = Annotated[bool, typer.Option("--check", help="Also hold the evidence against the data's labels")]
TablesArgument = Annotated[list[str], typer.Argument(help="Tables, such as imagenet-linear", show_default=False)]
PatternsArgument = Annotated[list[str], typer.Argument(help="Run ids, their beginnings, or patterns with *")]


class Format(StrEnum):
    """What a table can be drawn as."""

    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    html = "html"
    csv = "csv"
    json = "json"


SUFFIX = {"markdown": "md", "latex": "tex", "html": "html", "csv": "csv", "json": "json"}


class Noun(StrEnum):
    """What can be listed."""

    methods = "methods"
    protocols = "protocols"
    backbones = "backbones"
    suites = "suites"
    tables = "tables"
    datasets = "datasets"


def main() -> None:
    """Run the command line; a BenchError is one line on standard error and exit status 2."""
    warnings.showwarning = _warn
    try:
        status = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except typer.exceptions.TyperException as error:
        print(f"bench: {error.format_message()}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    if status == 130:  # typer answers Ctrl-C so
        print("bench: interrupted; the same command goes on where it stopped", file=sys.stderr)
    raise SystemExit(status)


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """What our own code warns of, as one line; what libraries warn of is for developers."""
    if category is UserWarning:
        print(f"bench: warning: {message}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit", is_eager=True)] = False,
) -> None:
    """The options of ``bench`` itself."""
    if show:
        print(__version__)
        raise typer.Exit


@app.command()
def reproduce(
    tables: TablesArgument,
    suite: SuiteOption,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    on: OnOption = "inline",
    as_published: PublishedOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the runs, and a cluster's scripts")] = False,
    runs: RunsOption = None,
    data: DataOption = None,
    workers: WorkersOption = None,
    checkpoint_every: EveryOption = 60.0,
    micro_batch: MicroOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the drawn tables [default: RUNS/tables]")] = None,
) -> None:
    """Compute a table: plan its runs, execute those that are not done, draw it."""
    from bench import workflow

    asked = workflow.Request(tuple(tables), suite, methods, seeds, *_roots(runs, data), as_published)
    how = workflow.How(workers, checkpoint_every, micro_batch)
    if dry_run:
        if on != "inline":
            workflow.print_scripts(asked, on)
        workflow.print_plan(asked)
        return
    failed = workflow.run_plan(asked, on, how, print)
    if on == "inline":
        workflow.write_tables(asked, out, print)
        if failed:
            raise BenchError(f"{len(failed)} runs failed", mend="see the lines above, or `bench status`")


@app.command()
def plan(
    tables: TablesArgument,
    suite: SuiteOption,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    as_published: PublishedOption = False,
    runs: RunsOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the runs that a table needs, and which of them are done."""
    from bench import workflow

    asked = workflow.Request(tuple(tables), suite, methods, seeds, *_roots(runs, data), as_published)
    workflow.print_plan(asked, as_json=as_json)


@app.command()
def run(
    run_id: Annotated[str | None, typer.Argument(help="A run on disk; or name a cell by the options below")] = None,
    suite: Annotated[str | None, typer.Option("--suite", "-s")] = None,
    method: Annotated[str | None, typer.Option("--method")] = None,
    options: Annotated[str, typer.Option("--options", help='The method\'s, as JSON: {"rotations": 2}')] = "{}",
    protocol: Annotated[str | None, typer.Option("--protocol", help="Without it: only pretrain")] = None,
    variant: Annotated[str, typer.Option("--variant")] = "standard",
    backbone: Annotated[str | None, typer.Option("--backbone", help="[default: the suite's]")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1)] = 0,
    runs: RunsOption = None,
    data: DataOption = None,
    workers: WorkersOption = None,
    checkpoint_every: EveryOption = 60.0,
    micro_batch: MicroOption = None,
) -> None:
    """Execute one run here: by its id, or the cell (suite, method, protocol, seed) with its pretraining."""
    from bench import workflow

    roots = _roots(runs, data)
    if run_id is not None:
        ids = workflow.ids_of_run(run_id, roots[0])
    elif suite is not None and method is not None:
        ids = workflow.ids_of_cell(workflow.Cell(suite, method, options, protocol, variant, backbone, seed), *roots)
    else:
        raise BenchError("name a run id, or a cell by --suite, --method and --protocol")
    failed = workflow.launch(ids, "inline", *roots, workflow.How(workers, checkpoint_every, micro_batch), print)
    if failed:
        raise BenchError(f"{failed[-1]} failed", mend="see the line above")
    print(f"done: {roots[0] / ids[-1]}")


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="A table, such as imagenet-linear", show_default=False)],
    suite: SuiteOption,
    fmt: Annotated[Format, typer.Option("--format", "-f")] = Format.terminal,
    out: Annotated[Path | None, typer.Option("--out", help="A file instead of standard output")] = None,
    as_published: PublishedOption = False,
    standalone: Annotated[bool, typer.Option("--standalone", help="LaTeX: a whole document")] = False,
    against_baseline: Annotated[
        bool, typer.Option("--against-baseline", help="Instead: each method's lead over the stronger baseline, tested")
    ] = False,
    runs: RunsOption = None,
) -> None:
    """Draw a table from the results that exist: published against measured."""
    from bench.report import baseline
    from bench.report.draw import OnDisk, for_screen
    from bench.report.render import render

    found = OnDisk(_roots(runs, None)[0])
    made = found.drawing(name, suite, as_published=as_published)
    if against_baseline:
        drawn = baseline.render(baseline.against_baseline(made, found.tests), fmt.value)
    elif fmt is Format.terminal and out is None:
        drawn = for_screen(made)
    else:
        drawn = render(made, fmt.value, standalone=standalone)
    if out is None:
        print(drawn, end="" if drawn.endswith("\n") else "\n")
        return
    from bench.files import atomic

    with atomic(out) as file:
        file.write(drawn)
    print(out)


@app.command()
def site(
    out: Annotated[Path, typer.Option("--out", help="Folder of the site: new, empty, or a former one")],
    suite: Annotated[list[str] | None, typer.Option("--suite", "-s", help="A suite file of your own, too")] = None,
    runs: RunsOption = None,
) -> None:
    """Write the static site: a leaderboard, and a page for every table, method and protocol."""
    from bench.report.site import build

    made = build(out, _roots(runs, None)[0], suite or [])
    print(f"{len(made)} files: open {out / 'index.html'}")


@app.command("list")
def list_(noun: Noun, as_json: JsonOption = False) -> None:
    """List what there is: methods, protocols, backbones, suites, tables, datasets."""
    from bench.catalogue import records

    _table(records(noun.value), as_json)


@app.command()
def show(
    noun: Annotated[str, typer.Argument(help="method, protocol or run")],
    name: Annotated[str, typer.Argument(show_default=False)],
    runs: RunsOption = None,
    suite: Annotated[str | None, typer.Option("--suite", "-s", help="With a protocol: under its overrides")] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="With a method: write what a trained one sees and answers (PNG)")
    ] = None,
) -> None:
    """Show one thing whole: a method's idea, what identifies a protocol's variants, a run's state and spec."""
    from bench import catalogue

    if samples is not None and noun == "method":
        print(catalogue.copy_samples(name, samples, runs=_roots(runs, None)[0], suite=suite))
        return
    kinds = {"method": catalogue.method, "protocol": catalogue.protocol, "run": catalogue.run}
    if noun not in kinds:
        raise did_you_mean("noun", noun, list(kinds))
    print(kinds[noun](name, runs=_roots(runs, None)[0], suite=suite))


@app.command()
def status(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Tables, run ids, their beginnings, or patterns with *")
    ] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until nothing runs or waits")] = False,
) -> None:
    """The state of every run: what is done, what runs and until when, what failed and why."""
    from bench.catalogue import watched
    from bench.launch.state import summary

    for number, rows in enumerate(watched(_roots(runs, None)[0], tuple(patterns or ()), watch=watch)):
        if number and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        _table(rows, as_json)
        if rows and not as_json:
            print(summary(rows))


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(help="A run, or the beginning of its id", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends")] = False,
    runs: RunsOption = None,
) -> None:
    """Print a run's log."""
    from bench.catalogue import follow_log
    from bench.launch.state import folders

    found = folders(_roots(runs, None)[0], (run_id,))
    if len(found) > 1:
        raise BenchError(
            f"{run_id!r} fits {len(found)} runs", mend="give more of the id: " + ", ".join(f.id for f in found)
        )
    for line in follow_log(found[0], follow=follow):
        print(line, flush=True)


@app.command()
def cancel(
    patterns: PatternsArgument,
    runs: RunsOption = None,
) -> None:
    """Ask runs to save and stop, and take them out of a cluster's queue; `bench retry` takes them up again."""
    from bench.launch.cancel import cancel as ask

    for line in ask(_roots(runs, None)[0], tuple(patterns)):
        print(line)


@app.command()
def retry(
    patterns: PatternsArgument,
    on: OnOption = "inline",
    runs: RunsOption = None,
    data: DataOption = None,
    workers: WorkersOption = None,
    checkpoint_every: EveryOption = 60.0,
    micro_batch: MicroOption = None,
) -> None:
    """Execute runs that failed, were cancelled or got lost, from where they stopped; with what hangs on them."""
    from bench import workflow

    roots = _roots(runs, data)
    ids = workflow.again(tuple(patterns), roots[0])
    if not ids:
        print("nothing to retry: what fits is done, runs, or is in the queue")
    failed = workflow.launch(ids, on, *roots, workflow.How(workers, checkpoint_every, micro_batch), print)
    if failed:
        raise BenchError(f"{len(failed)} runs failed", mend="see the lines above, or `bench status`")


@profile_app.command("list")
def profile_list(as_json: JsonOption = False) -> None:
    """The shipped profiles; one of your own is a .toml file, named by its path."""
    from bench.launch import profile

    found = [profile.load(name) for name in profile.names()]
    _table([{"key": p.name, "title": p.title, "launcher": p.launcher} for p in found], as_json)


@profile_app.command("check")
def profile_check(
    name: Annotated[str, typer.Argument(help="A profile, or its .toml file", show_default=False)],
    runs: RunsOption = None,
    data: DataOption = None,
) -> None:
    """Submit a one-minute job for each kind of run, wait for it, and print what it saw: GPUs, folders, versions."""
    from bench.launch.check import check

    for line in check(name, *_roots(runs, data)):
        print(line, flush=True)


@app.command()
def verify(
    paths: Annotated[list[Path] | None, typer.Argument(help="result.json files or folders [default: all]")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Also what was removed or replaced since this commit")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Also write Markdown, for a pull request")] = None,
    releases: ReleasesOption = None,
    runs: RunsOption = None,
    data: DataOption = None,
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Recompute every number from its evidence: *consistent*; with --data or --check also *checked*.

    Exit status: 0 if all verify, 1 if not, 2 if that cannot be found out.
    """
    from bench.files import atomic
    from bench.verify import verify as run_verify
    from bench.verify.report import report as written

    runs_folder, data_folder = _roots(runs, data)
    labels = data_folder if check or data else None
    found = run_verify(paths or [], runs_folder, labels, releases=releases, against=against)
    if report is not None:
        with atomic(report) as file:
            file.write(written(found, against))
    shown = [(v, "; ".join(v.problems), "; ".join(v.alarms)) for v in found]
    _table([{"result": v.path, "level": v.level, "problem": bad, "look at": odd} for v, bad, odd in shown], as_json)
    bad = [v for v in found if v.problems]
    if bad:
        print(f"bench: {len(bad)} of {len(found)} files do not verify", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def publish(
    patterns: PatternsArgument,
    replace: ReplaceOption = None,
    releases: ReleasesOption = None,
    runs: RunsOption = None,
    data: DataOption = None,
    check: CheckOption = False,
) -> None:
    """Copy the results of runs to tables/results, verified, each with its evidence, recipe and curve."""
    from bench import publish as publishing

    runs_folder, data_folder = _roots(runs, data)
    sources = publishing.of_runs(runs_folder, tuple(patterns))
    labels = data_folder if check or data else None
    for line in publishing.publish(sources, runs_folder, data=labels, replace=replace, releases=releases):
        print(line)


@app.command()
def add(
    files: Annotated[list[Path], typer.Argument(help="A method's .toml, or a result's .json", show_default=False)],
    replace: ReplaceOption = None,
    releases: ReleasesOption = None,
    runs: RunsOption = None,
    data: DataOption = None,
    check: CheckOption = False,
) -> None:
    """Take in what others made: weights that they exported, results that they computed."""
    from bench.submission import add as take_in

    runs_folder, data_folder = _roots(runs, data)
    for file in files:
        labels = check or data is not None
        for line in take_in(file, runs_folder, data_folder, check=labels, replace=replace, releases=releases):
            print(line)


@app.command("new-method")
def new_method(
    key: Annotated[str, typer.Argument(help="Its key, such as my-task", show_default=False)],
    outside: Annotated[
        Path | None, typer.Option("--outside", help="A folder for a package of its own [default: in bench/methods]")
    ] = None,
) -> None:
    """Start a method from a file that works, or go on with it: checks it, and says what is missing."""
    from bench import scaffold

    made = scaffold.new_method(key, outside)
    print(f"{'wrote' if made.new else 'found'} {made.file}")
    passed, said = scaffold.check(made)
    print(said)
    lacking = scaffold.missing(made)
    print("\n".join(["missing:", *(f"  {line}" for line in lacking)]) if lacking else "nothing is missing")
    if made.folder is not None:
        print(f"every command finds it once it is installed: pip install -e {made.folder}")
    if not passed:
        raise BenchError(f"{key} does not keep the contract of methods", where=made.file, mend="see the failures above")


@data_app.command("status")
def data_status(data: DataOption = None, runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """What was found where, and how to get what is missing."""
    from bench.catalogue import data_records

    _table(data_records(*reversed(_roots(runs, data))), as_json)


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="A data set, such as tiny-imagenet-50", show_default=False)],
    data: DataOption = None,
    runs: RunsOption = None,
) -> None:
    """Fetch a data set where its licence allows; otherwise say exactly what to do."""
    from bench.paths import cache_root
    from bench.workflow import prepare_data

    runs_folder, data_folder = _roots(runs, data)
    print(prepare_data(name, data_folder, cache_root(runs_folder)))


@data_app.command("pack")
def data_pack(
    name: Annotated[str, typer.Argument(help="A data set, or the path of one", show_default=False)],
    side: Annotated[int, typer.Option("--side", min=1, help="Pixels to resize to: 256/224 of the crop")] = 256,
    mode: Annotated[str, typer.Option("--mode", help="short: the short side; square: both sides")] = "short",
    kernel: Annotated[str, typer.Option("--kernel", help="bilinear, bicubic or nearest")] = "bilinear",
    antialias: Annotated[bool, typer.Option("--antialias/--no-antialias", help="Smooth when shrinking")] = True,
    check: Annotated[bool, typer.Option("--check", help="Hold what is packed against its checksums instead")] = False,
    skip_corrupt: Annotated[bool, typer.Option("--skip-corrupt", help="Leave out images that do not decode")] = False,
    data: DataOption = None,
    runs: RunsOption = None,
    workers: WorkersOption = None,
) -> None:
    """Resize all images once and keep the pixels, in the cache: probes then decode nothing, to the same numbers."""
    from bench import workflow
    from bench.data.pack import Geometry
    from bench.paths import cache_root

    runs_folder, data_folder = _roots(runs, data)
    asked = workflow.Packing(data_folder, cache_root(runs_folder), workers, check, skip_corrupt)
    for line in workflow.pack_data(name, Geometry(side, mode, kernel, antialias), asked):
        print(line)


@data_app.command("proposals")
def data_proposals(
    name: Annotated[str, typer.Argument(help="A data set of PASCAL VOC, such as voc2007", show_default=False)],
    split: Annotated[list[str] | None, typer.Option("--split", help="May be repeated [default: all there]")] = None,
    mode: Annotated[str, typer.Option("--mode", help="fast or quality")] = "fast",
    short: Annotated[
        int | None, typer.Option("--short", min=1, help="Shrink the short side to so many pixels first [default: not]")
    ] = None,
    data: DataOption = None,
    runs: RunsOption = None,
    workers: WorkersOption = None,
) -> None:
    """Find object proposals by Selective Search once, and keep them in the cache; goes on where it was."""
    from bench import workflow
    from bench.data.proposals import SelectiveSearch
    from bench.paths import cache_root

    runs_folder, data_folder = _roots(runs, data)
    asked = workflow.Searching(data_folder, cache_root(runs_folder), workers, tuple(split or ()))
    for line in workflow.find_proposals(name, SelectiveSearch(mode, short), asked):
        print(line)


@app.command()
def install(
    name: Annotated[str, typer.Argument(help="detectron2, mmsegmentation or opencv-contrib", show_default=False)],
) -> None:
    """Install an engine; detectron2, which PyPI lacks, from a checked wheel."""
    from bench.engines.install import install as run_install

    run_install(name)


@app.command()
def doctor(data: DataOption = None, runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """Look at Python, torch, devices, engines, Slurm and data; say how to mend what lacks."""
    from bench.doctor import examine

    runs_folder, data_folder = _roots(runs, data)
    checks = examine(data_folder, runs_folder)
    _table([{"what": c.name, "is": c.status, "found": c.found, "mend": c.mend} for c in checks], as_json)
    if any(c.status == "fail" for c in checks):
        raise typer.Exit(1)


def _roots(runs: Path | None, data: Path | None) -> tuple[Path, Path]:
    from bench.paths import data_root, runs_root

    return runs_root(runs), data_root(data)


def _table(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print records as JSON, or as aligned columns without the empty ones."""
    if as_json:
        import json

        print(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
        return
    if not rows:
        print("nothing")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [key for key in rows[0] if any(row.get(key) not in (None, "") for row in rows)]
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for key in shown:
        drawn.add_column(key, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("" if row.get(key) is None else str(row[key])) for key in shown))
    console = Console()
    Console(width=None if console.is_terminal else 240).print(drawn)


if __name__ == "__main__":
    main()
