"""Images a second of every method's input pipeline, and what its training step costs against the bare backbone.

    python tests/benchmarks/bench_pretext_throughput.py
    python tests/benchmarks/bench_pretext_throughput.py rotation jigsaw --backbone alexnet --side 256 --device cuda

``view/s``: ``view()`` alone, on decoded images in memory, on one core. ``step/s``: images through losses, backward and
optimiser, in batches as the loader hands them over. ``x bare``: the time of that step over forward + backward of the
backbone alone on as many of its own crops; a method that shows each image four times cannot be below 4.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from toydata import ToyImages

from bench import registry
from bench.backbones.base import Backbone, build
from bench.data.batch import Batch
from bench.data.loader import collate, sample_generator
from bench.methods.base import PretextTask, Recipe, make
from bench.training.task import Step

TARGETS = {"crop": 2000, "patch": 400, "clip": 200}
"""Images a second and core at 64 px, by what a view is."""


class Row(NamedTuple):
    """What was measured of one method; rates in images a second."""

    method: str
    kind: str
    view: float
    step: float
    ratio: float

    def __str__(self) -> str:
        target = TARGETS[self.kind]
        said = "met" if self.view >= target else "MISSED"
        columns = f"{self.method:<24}{self.kind:<7}{self.view:>9,.0f}{f'>= {target:,}':>10} {said:<8}"
        return columns + f"{self.step:>9,.0f}{self.ratio:>8.2f}"


HEADER = f"{'method':<24}{'view':<7}{'view/s':>9}{'target':>10} {'':<8}{'step/s':>9}{'x bare':>8}"


def trained() -> dict[str, Recipe]:
    """The registered methods that train, with their recipes."""
    return {e.key: e.facts["recipe"] for e in registry.entries("methods") if e.facts.get("recipe") is not None}


def measure(method: str, recipe: Recipe, *, backbone: str, side: int, size: int, rounds: int, device: str) -> Row:
    """One method, on ``size`` toy images of ``side`` pixels as one batch; the best of ``rounds``."""
    data = ToyImages(size, side)
    task = make(method, backbone, {}, seed=0)
    task.setup(data)
    task.to(device).to(memory_format=torch.channels_last)
    task.prepare(data, torch.Generator().manual_seed(0))
    samples = [data[i] for i in range(size)]
    views: list[Any] = []

    def view() -> None:
        views[:] = [task.view(sample, sample_generator(0, 0, sample.index)) for sample in samples]

    view_seconds = min(_timed(view, device) for _ in range(rounds))
    kind = "patch" if any(leaf.ndim > 3 for leaf in _leaves(views[0])) else "crop"
    kind = "clip" if "clip" in task.needs else kind  # optical flow
    order = task.order(0, size, torch.Generator().manual_seed(0))
    batch = Batch(collate([views[i] for i in order.tolist()]), order, torch.from_numpy(data.labels)[order]).to(device)
    step = _step(task.train(), recipe, batch)
    bare = _bare(build(backbone).to(device).to(memory_format=torch.channels_last), size, device)
    seconds = [(_timed(bare, device), _timed(step, device)) for _ in range(1 + rounds)][1:]  # the first warms up
    bare_seconds, step_seconds = (min(of_one) for of_one in zip(*seconds, strict=True))
    return Row(method, kind, size / view_seconds, size / step_seconds, step_seconds / bare_seconds)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print, a row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all that train, unless named")
    parser.add_argument("--backbone", default="alexnet-mini")
    parser.add_argument("--side", type=int, default=64, help="pixels of an image")
    parser.add_argument("--size", type=int, default=64, help="images in the batch")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipes = trained()
    print(f"{chosen.backbone}, {chosen.side}-px images, batch {chosen.size}, one core, {chosen.device}")
    print(HEADER)
    rows = []
    for method in chosen.methods or recipes:
        how = {key: getattr(chosen, key) for key in ("backbone", "side", "size", "rounds", "device")}
        rows.append(measure(method, recipes[method], **how))
        print(rows[-1], flush=True)
    return rows


def _step(task: PretextTask, recipe: Recipe, batch: Batch) -> Callable[[], None]:
    specs = task.optimisers(recipe)
    optimisers = {name: task.optimiser_of(name, specs[name], ps) for name, ps in task.parameters_of().items()}
    generator = torch.Generator(batch.index.device).manual_seed(0)

    def step() -> None:
        for name, loss in task.losses(batch, Step(0, 0, 1), generator):
            optimisers[name].zero_grad()
            loss.total.backward()
            optimisers[name].step()

    return step


def _bare(backbone: Backbone, size: int, device: str) -> Callable[[], None]:
    side = backbone.input_side
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, device=device)

    def bare() -> None:
        backbone.zero_grad()
        backbone(images, backbone.stages[-1:])[backbone.stages[-1]].sum().backward()

    return bare


def _leaves(view: Any) -> Iterator[Tensor]:
    if isinstance(view, Tensor):
        yield view
    elif isinstance(view, dict | tuple | list):
        for part in view.values() if isinstance(view, dict) else view:
            yield from _leaves(part)


def _timed(work: Callable[[], None], device: str) -> float:
    """Seconds that the work takes: of the CPU, whatever else it does meanwhile, or by the clock on another device."""
    on_cpu = device == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    started = clock()
    work()
    if not on_cpu:
        torch.accelerator.synchronize()
    return clock() - started


if __name__ == "__main__":
    main()
