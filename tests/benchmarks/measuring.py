"""What the benchmarks share: CPU time, photographs, data sets of them, and lines that people can read.

CPU time is user + system of this process and its children. Everything runs in this process on OMP_NUM_THREADS threads
(1 unless it is set), so the numbers count work, not waiting; both sides of a ratio are measured in the same run.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from PIL import Image

from bench.backbones.base import Backbone, build
from bench.data import scenes
from bench.data.images import ImageDataset, open_images, subset
from bench.data.loader import Loader
from bench.data.pack import Geometry, pack, packed
from bench.data.transforms import center_crop
from bench.protocols.definitions import Variant, load
from bench.protocols.heads import LinearHeads
from bench.protocols.imagenet_linear import ImageNetLinear
from bench.training.device import fabric
from bench.training.task import Step

GEOMETRY = Geometry(256)
RATES = [0.001, 0.003, 0.01, 0.03, 0.1]
"""Those of ``standard``."""


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """The command line: one whole number an option, each with its default."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds that ``work`` takes."""
    started = _used()
    work()
    return _used() - started


def _used() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def heading(text: str) -> None:
    """What is measured, and on what."""
    threads, load_ = torch.get_num_threads(), os.getloadavg()[0]
    print(f"\n{text}\n{threads} thread(s), load average {load_:.1f}, torch {torch.__version__}", flush=True)


def ratio(what: str, more: float, less: float, target: str = "") -> None:
    """Print one ratio of CPU times, with the two."""
    goal = f"  (target {target})" if target else ""
    print(f"  {what:<58} {more / less:6.2f} x{goal}   {more:.2f} s / {less:.2f} s", flush=True)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as made:
        yield Path(made)


def bench_data() -> Path:
    """The folder of real images; one that is not there without BENCH_DATA."""
    return Path(os.environ.get("BENCH_DATA") or "no-data")


def photographs(place: Path, count: int) -> list[Path]:
    """JPEGs of about 500 x 375 pixels: PASCAL VOC's from BENCH_DATA, without it generated scenes."""
    found = sorted(bench_data().glob("voc-mini/VOCdevkit/*/JPEGImages/*.jpg"))
    if len(found) >= count:
        print(f"{count} photographs of PASCAL VOC")
        return found[:count]
    print(f"{count} generated scenes (BENCH_DATA has no PASCAL VOC)")
    files = [place / f"{i:05d}.jpg" for i in range(count)]
    place.mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(files):
        scene = Image.fromarray(scenes.render("train", i, 256).image)
        scene.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)
    return files


def labelled(place: Path, files: list[Path], classes: int = 50) -> ImageDataset:
    """A data set of these files, dealt out to classes: the labels mean nothing, the work is the same."""
    for i, file in enumerate(files):
        home = place / "train" / f"{i % classes:04d}"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{i:05d}.jpg").symlink_to(file)
    return open_images("photographs", place, ("train",), place / "cache")


def packed_too(place: Path, images: ImageDataset) -> Any:
    """The same data set from its packed store."""
    pack(images, GEOMETRY, place / "cache", workers=0)
    return packed(images, GEOMETRY, place / "cache")


def few(data: Any) -> Any:
    """The first images, to warm up on."""
    return subset(data, range(min(16, len(data))))


def crops(data: Any) -> torch.Tensor:
    """The images' central crops: uint8 (N, 3, 224, 224)."""
    return torch.stack([center_crop(GEOMETRY.resize(data[i].image), 224) for i in range(len(data))])


class UpTo(Backbone):
    """A backbone that ends at one stage, as a run for that stage alone has it."""

    def __init__(self, whole: Backbone, stage: str) -> None:
        super().__init__()
        self.whole, self.stages = whole, (stage,)
        self.preprocess, self.config, self.input_side = whole.preprocess, whole.config, whole.input_side

    def trunk(self, x: torch.Tensor, stages: tuple[str, ...] | None = None) -> dict[str, torch.Tensor]:
        return self.whole.trunk(x, self.stages)


def alexnet() -> Backbone:
    """The Rotation paper's AlexNet at 224 px, with fresh weights."""
    torch.manual_seed(0)
    return build("alexnet")


def standard(rates: list[float], **changes: Any) -> ImageNetLinear:
    """The probe under ``standard``, at these rates."""
    definition = load("imagenet-linear").variant("standard").definition
    changed = definition | {"rates": rates} | changes
    return ImageNetLinear(Variant("imagenet-linear", ImageNetLinear.version, "standard", changed))


def epoch(backbone: Backbone, rates: list[float], data: Any, classes: int) -> float:
    """CPU seconds of one epoch of training heads on all stages at all rates: load, forward, backward, step."""
    protocol = standard(rates)
    recipe = protocol.recipe(len(data)).optimisers()["main"]
    heads = LinearHeads(backbone, protocol.probe, classes, fabric())
    optimiser = heads.optimiser_of("main", recipe, heads.parameters())
    generator = torch.Generator().manual_seed(0)

    def train() -> None:
        with Loader(data, heads.view, seed=0, batch=protocol.probe.batch, workers=0, drop_last=False) as loader:
            for batch in loader.epoch(0, torch.randperm(len(data), generator=generator)):
                for _, loss in heads.losses(batch, Step(0, 0, 1), generator):
                    optimiser.zero_grad()
                    loss.total.backward()
                    optimiser.step()

    return cpu_seconds(train)
