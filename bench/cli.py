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
    tables: Annotated[list[str], typer.Argument(help="Tables, such as imagenet-linear", show_default=False)],
    suite: SuiteOption,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    on: Annotated[str, typer.Option("--on", help="inline (here), or local (one detached process)")] = "inline",
    as_published: PublishedOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the runs")] = False,
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
    if dry_run:
        workflow.print_plan(asked)
        return
    failed = workflow.run_plan(asked, on, workflow.How(workers, checkpoint_every, micro_batch), print)
    if on == "inline":
        workflow.write_tables(asked, out, print)
        if failed:
            raise BenchError(f"{len(failed)} runs failed", mend="see the lines above, or `bench status`")


@app.command()
def plan(
    tables: Annotated[list[str], typer.Argument(help="Tables, such as imagenet-linear", show_default=False)],
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
    runs: RunsOption = None,
) -> None:
    """Draw a table from the results that exist: published against measured."""
    from bench.report.draw import drawing, for_screen
    from bench.report.render import render

    made = drawing(name, suite, _roots(runs, None)[0], as_published=as_published)
    if fmt is Format.terminal and out is None:
        print(for_screen(made), end="")
        return
    drawn = render(made, fmt.value, standalone=standalone)
    if out is None:
        print(drawn, end="" if drawn.endswith("\n") else "\n")
        return
    from bench.files import atomic

    with atomic(out) as file:
        file.write(drawn)
    print(out)


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
    patterns: Annotated[list[str] | None, typer.Argument(help="Run ids, their beginnings, or patterns with *")] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """The state of every run: what is done, what runs and until when, what failed and why."""
    from bench.launch import state

    rows = []
    for folder in state.folders(_roots(runs, None)[0], tuple(patterns or ())):
        row = state.describe(folder)
        at = state.progress(folder) if row["state"] == "RUNNING" else None
        progress = f"{at[0]:.0%}, {at[1] / 60:.0f} min to go" if at else ""
        rows.append({"run": row["id"], "state": row["state"], "progress": progress, "reason": row["reason"]})
    _table(rows, as_json)


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
    patterns: Annotated[list[str], typer.Argument(help="Run ids, their beginnings, or patterns with *")],
    runs: RunsOption = None,
) -> None:
    """Ask runs to save and stop; ``bench reproduce`` takes them up again."""
    from bench.launch.state import folders

    for folder in folders(_roots(runs, None)[0], tuple(patterns)):
        state = folder.state()[0]
        if state in {"RUNNING", "QUEUED"}:
            folder.cancel()
            print(f"{folder.id}: asked to stop")
        else:
            print(f"{folder.id}: {state}, nothing to cancel")


@app.command()
def verify(
    paths: Annotated[list[Path] | None, typer.Argument(help="result.json files or folders [default: all]")] = None,
    runs: RunsOption = None,
    data: DataOption = None,
    check: Annotated[bool, typer.Option("--check", help="Also hold the evidence against the data's labels")] = False,
    as_json: JsonOption = False,
) -> None:
    """Recompute every number from its evidence: *consistent*; with --data or --check also *checked*."""
    from bench.verify import verify as run_verify

    runs_folder, data_folder = _roots(runs, data)
    found = run_verify(paths or [], runs_folder, data_folder if check or data else None)
    _table([{"result": v.path, "level": v.level, "problem": "; ".join(v.problems)} for v in found], as_json)
    bad = [v for v in found if v.problems]
    if bad:
        raise BenchError(f"{len(bad)} of {len(found)} results do not verify")


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
