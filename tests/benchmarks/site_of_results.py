"""``bench site`` of many results, against reading the same JSON files with nothing but ``json``.

python tests/benchmarks/site_of_results.py --methods 100 --suites 20 --seeds 5
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import stored
from measuring import arguments, cpu_seconds, folder, heading, ratio
from status_of_runs import unsynced

from bench import registry, results
from bench import suite as suites
from bench.report.site import build

METHOD = '''"""Synthetic {i}: for the benchmark."""


class Synthetic:
    title, citation, version = "Synthetic {i}", "gidaris2018unsupervised", 1
    recipe = None
'''


def main() -> None:
    """Print the ratios."""
    asked = arguments(__doc__ or "", methods=100, suites=20, seeds=5)
    count = asked.methods * asked.suites * asked.seeds
    heading(f"bench site of {count} results: {asked.methods} methods, {asked.suites} suites, {asked.seeds} seeds")
    with folder() as place, unsynced():
        here = registry._HERE
        try:
            registry._HERE = _house(place / "house", here, asked.methods)
            registry.refresh()
            own = [_suite(place, i) for i in range(asked.suites)]
            _record(place / "runs", own, asked.methods, asked.seeds)
            _measure(place, own)
        finally:
            registry._HERE = here
            registry.refresh()


def _measure(place: Path, own: list[Path]) -> None:
    runs, names = place / "runs", [str(file) for file in own]
    _plain(runs)  # the disk's cache is warm for all
    less = min(cpu_seconds(lambda: _plain(runs)) for _ in range(3))
    ratio("loading the results / reading them with json", cpu_seconds(lambda: results.load(runs)), less)
    ratio("the site / reading the results with json", cpu_seconds(lambda: build(place / "one", runs, names)), less)
    again = cpu_seconds(lambda: build(place / "two", runs, names))
    ratio("the site, its figures drawn before / reading with json", again, less)


def _house(place: Path, here: Path, methods: int) -> Path:
    """A registry like the real one, but for its methods."""
    (place / "methods").mkdir(parents=True)
    for kind in ("backbones", "protocols"):
        (place / kind).symlink_to(here / kind)
    for i in range(methods):
        (place / "methods" / f"synthetic_{i:03d}.py").write_text(METHOD.format(i=i))
    return place


def _suite(place: Path, i: int) -> Path:
    """The demo suite under another name."""
    file = place / f"synthetic-{i:02d}.toml"
    file.write_text((Path(suites.__file__).parent / "suites" / "demo.toml").read_text().partition("\n[methods.")[0])
    return file


def _record(runs: Path, own: list[Path], methods: int, seeds: int) -> None:
    for file in own:
        suite = suites.load(str(file))
        for i in range(methods):
            made = stored.result(suite, f"synthetic-{i:03d}")
            for seed in range(seeds):
                target = runs / f"evaluate-{suite.name}-{i}-s{seed}" / "result.json"
                target.parent.mkdir(parents=True)
                columns = {
                    key: {**number, "value": number["value"] + (7 * i + 3 * seed) % 13}
                    for key, number in made["columns"].items()
                }
                target.write_text(json.dumps({**made, "seed": seed, "columns": columns}))


def _plain(runs: Path) -> list[Any]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(runs.glob("*/result.json"))]


if __name__ == "__main__":
    main()
