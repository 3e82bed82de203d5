"""The static site: a leaderboard, a page a table, a method and a protocol, from the same drawings as ``bench table``.

Every page stands alone: its style, script, figures and pictures are inside, and its policy lets nothing be fetched.
The same results give the same bytes. Whatever comes from a submission is escaped; file names are slugs. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import __version__, suite
from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.report.site.frame import Files
from bench.report.site.pages import write_pages
from bench.report.site.sections import Store

MANIFEST = "site.json"
"""Names the files of a site, so that the next one over it leaves nothing behind."""


def build(out: Path, runs: Path, own: Sequence[str] = ()) -> list[str]:
    """Write the site into ``out`` and return the names of its files.

    Args:
        out: absent, empty, or the folder of a former site, whose files go where they are no longer needed.
        own: suite files beside the shipped suites.

    Raises:
        BenchError: ``out`` holds something else; a suite, table or result cannot be read; the disk is full.
    """
    former = _former(out)
    files = Files(out)
    write_pages(Store(runs, [*suite.names(), *own]), files)
    for name in sorted(former - set(files.names)):
        (out / name).unlink(missing_ok=True)
    write_json(out / MANIFEST, {"schema": 1, "bench": __version__, "files": sorted(files.names)})
    return sorted(files.names)


def _former(out: Path) -> set[str]:
    """The files of the site that stands in ``out``."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return set()
    if not (out / MANIFEST).is_file():
        raise BenchError("this is no folder of a site", where=out, mend="name a new folder")
    names = read_json(out / MANIFEST).get("files", [])
    return {name for name in names if (out / name).resolve().is_relative_to(out.resolve())}
