"""Packed stores: the same pixels, resumed after a kill, refused where damaged, and used by probes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from smoke import bench

from bench import workflow
from bench.data import catalog, pack, transforms
from bench.data.base import Dataset
from bench.data.images import open_images, subset
from bench.data.loader import Loader, sample_generator
from bench.data.pack import Geometry, Packed, headers, packed, store
from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.paths import cache_root

SHORT = Geometry(32)
GEOMETRIES = [
    SHORT,
    Geometry(32, antialias=False),
    Geometry(32, kernel="bicubic"),
    Geometry(32, kernel="nearest"),
    Geometry(32, "square"),
    Geometry(17, "square", "bicubic", antialias=False),
]
SHAPES = [(48, 64), (64, 48), (32, 32), (32, 50), (20, 31), (33, 32), (40, 200), (61, 37), (64, 64), (90, 45)]


def fill(folder, shapes, classes=("ant", "bee")):
    """Photographs' likes, JPEG and PNG, colour and grey, of the given heights and widths."""
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(shapes):
        place = folder / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        picture = small.resize((width, height), Image.Resampling.BICUBIC)
        picture = picture.convert("L") if i % 4 == 3 else picture
        picture.save(place / f"{i:03d}.{'png' if i % 3 == 2 else 'jpg'}")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(pack, "CHUNK", 4)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path, cache):
    fill(tmp_path / "toy/train", SHAPES)
    return open_images("toy", tmp_path / "toy", ("train",), cache)


@pytest.fixture
def chunks(images, cache):
    """The chunks of a complete store, in order."""
    return sorted(pack.pack(images, SHORT, cache, workers=0).glob("*.chunk"))


class TestPixels:
    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
    def test_packed_equals_unpacked(self, images, cache, geometry):
        pack.pack(images, geometry, cache, workers=0)
        stored = packed(images, geometry, cache)
        assert isinstance(stored, Packed)
        for sample in images:
            image = stored[sample.index].image
            assert image.dtype == torch.uint8
            assert torch.equal(image, geometry.resize(sample.image))
            assert geometry.resize(image) is image, "resizing it again does nothing"
            assert stored[sample.index][1:] == sample[1:]

    def test_real_photographs(self, bench_data, tmp_path, cache):
        jpegs = sorted((bench_data / "voc-mini/VOCdevkit").glob("*/JPEGImages/*.jpg"))[:12]
        if not jpegs:
            pytest.skip("BENCH_DATA has no voc-mini")
        (tmp_path / "voc/train").mkdir(parents=True)
        for file in jpegs:
            (tmp_path / "voc/train" / file.name).symlink_to(file)
        images = open_images("voc", tmp_path / "voc", ("train",), cache)
        geometry = Geometry(256)
        pack.pack(images, geometry, cache, workers=0)
        stored = packed(images, geometry, cache)
        assert all(torch.equal(stored[i].image, geometry.resize(images[i].image)) for i in range(len(images)))

    def test_a_views_crops_are_the_same(self, images, cache):
        def view(sample, generator):
            resized = transforms.resize_short(sample.image, 32)
            return transforms.flip(transforms.random_crop(resized, 28, generator), generator)

        pack.pack(images, SHORT, cache, workers=0)
        stored = packed(images, SHORT, cache)
        for index in range(len(images)):
            for epoch in range(4):
                a, b = (view(data[index], sample_generator(0, epoch, index)) for data in (images, stored))
                assert torch.equal(a, b)

    def test_the_loader_gives_the_same_batches_from_processes(self, images, cache):
        def view(sample, generator):
            return transforms.random_crop(SHORT.resize(sample.image), 28, generator)

        pack.pack(images, SHORT, cache, workers=0)
        batches = []
        for data in (images, packed(images, SHORT, cache)):
            with Loader(data, view, seed=0, batch=5, workers=2, drop_last=False) as loader:
                batches.append(list(loader.in_order()))
        for a, b in zip(*batches, strict=True):
            assert torch.equal(a.views, b.views)
            assert torch.equal(a.label, b.label)


class TestIdentity:
    def test_all_but_the_images_is_the_data_sets_own(self, images, cache):
        pack.pack(images, SHORT, cache, workers=0)
        stored = packed(images, SHORT, cache)
        assert isinstance(stored, Dataset)
        assert (stored.name, stored.ids, stored.classes, stored.digest, len(stored)) == (
            images.name, images.ids, images.classes, images.digest, len(images),
        )  # fmt: skip
        assert np.array_equal(stored.labels, images.labels)
        part = subset(stored, [1, 6])
        assert part.digest == subset(images, [1, 6]).digest
        assert torch.equal(part[1].image, stored[6].image)

    def test_it_pickles_without_its_pixels(self, images, cache):
        pack.pack(images, SHORT, cache, workers=0)
        stored = packed(images, SHORT, cache)
        stored[0]
        pickled = pickle.dumps(stored)
        assert len(pickled) < 3000
        assert torch.equal(pickle.loads(pickled)[9].image, stored[9].image)

    def test_without_a_fitting_store_it_is_the_data_set_itself(self, images, cache):
        assert packed(images, SHORT, cache) is images
        pack.pack(images, SHORT, cache, workers=0)
        assert packed(images, None, cache) is images
        for other in GEOMETRIES[1:]:
            assert packed(images, other, cache) is images

    def test_other_images_do_not_get_the_store(self, images, tmp_path, cache):
        pack.pack(images, SHORT, cache, workers=0)
        fill(tmp_path / "toy/train/ant/..", [(80, 80)] * 11)
        changed = open_images("toy", tmp_path / "toy", ("train",), cache)
        assert changed.digest != images.digest
        assert packed(changed, SHORT, cache) is changed


class TestWriting:
    def test_processes_write_the_same(self, images, tmp_path):
        progress = []
        one = pack.pack(images, SHORT, tmp_path / "one", workers=0)
        two = pack.pack(images, SHORT, tmp_path / "two", workers=2, progress=progress.append)
        assert progress == [0, 4, 8, 10]
        assert {f.name: f.read_bytes() for f in one.iterdir()} == {f.name: f.read_bytes() for f in two.iterdir()}

    def test_it_writes_nothing_beside_the_cache(self, images, tmp_path, cache):
        before = sorted((tmp_path / "toy").rglob("*"))
        pack.pack(images, SHORT, cache, workers=0)
        assert sorted((tmp_path / "toy").rglob("*")) == before

    def test_a_killed_one_goes_on_where_it_was(self, images, tmp_path, cache):
        script = f"""
            import os, signal
            from pathlib import Path
            from bench.data import pack
            from bench.data.images import open_images
            pack.CHUNK = 4
            kill = lambda done: done == 4 and os.kill(os.getpid(), signal.SIGKILL)
            cache = Path({str(cache)!r})
            images = open_images("toy", Path({str(tmp_path / "toy")!r}), ("train",), cache)
            pack.pack(images, pack.Geometry(32), cache, workers=0, progress=kill)
        """
        assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == -9
        folder = store(images, SHORT, cache)
        (first,) = folder.glob("*.chunk")
        (folder / ".00001.chunk.torn.tmp").write_bytes(b"half")
        assert packed(images, SHORT, cache) is images, "it is not complete"
        written, progress = first.stat().st_mtime_ns, []
        pack.pack(images, SHORT, cache, workers=0, progress=progress.append)
        assert progress == [4, 8, 10]
        assert first.stat().st_mtime_ns == written
        unbroken = pack.pack(images, SHORT, tmp_path / "other", workers=0)
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
            f.name: f.read_bytes() for f in unbroken.iterdir()
        }

    def test_only_one_process_packs(self, images, cache):
        def second(done):
            with pytest.raises(BenchError, match="another process is packing this"):
                pack.pack(images, SHORT, cache, workers=0)

        pack.pack(images, SHORT, cache, workers=0, progress=second)
        pack.pack(images, SHORT, cache, workers=0)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_corrupt_image_is_named(self, images, tmp_path, cache, workers):
        (tmp_path / "toy/train/bee/005.png").write_bytes(b"no image")
        with pytest.raises(BenchError, match=r"corrupt image: not an image .*bee/005\.png"):
            pack.pack(images, SHORT, cache, workers=workers)
        assert headers(cache) == []
        assert packed(images, SHORT, cache) is images

    def test_a_process_that_dies_is_one_line(self, images, cache):
        class Deadly:
            ids, digest, name, labels, classes = images.ids, images.digest, "deadly", images.labels, images.classes

            def __len__(self):
                return len(images)

            def __getitem__(self, index):
                if multiprocessing.parent_process() is not None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return images[index]

        with pytest.raises(BenchError, match="a worker process died.*it goes on where it was"):
            pack.pack(Deadly(), SHORT, cache, workers=1)

    def test_wrong_geometries(self, images, cache):
        with pytest.raises(BenchError, match="unknown mode 'shrt': did you mean short"):
            Geometry(32, "shrt")
        with pytest.raises(BenchError, match="resized to 0 pixels"):
            Geometry(0)
        with pytest.raises(BenchError, match="unknown resize kernel 'bilinar': did you mean bilinear"):
            pack.pack(images, Geometry(32, kernel="bilinar"), cache, workers=0)
        assert not (cache / "packed").exists()


class TestDamage:
    @pytest.mark.parametrize("damage", ["cut", "lengthen", "remove"])
    def test_sizes_are_looked_at_when_it_is_opened(self, images, cache, chunks, damage):
        whole = chunks[1].read_bytes()
        if damage == "remove":
            chunks[1].unlink()
        else:
            chunks[1].write_bytes(whole[:-5] if damage == "cut" else whole + b"12345678")
        with pytest.raises(BenchError, match="damaged: 00001.chunk is missing or not whole.*bench data pack"):
            packed(images, SHORT, cache)
        pack.pack(images, SHORT, cache, workers=0)
        assert chunks[1].read_bytes() == whole
        assert torch.equal(packed(images, SHORT, cache)[5].image, SHORT.resize(images[5].image))

    def test_chunks_of_another_store(self, images, cache, chunks):
        chunks[0].write_bytes(chunks[1].read_bytes())
        with pytest.raises(BenchError, match="not those of its header"):
            packed(images, SHORT, cache)

    def test_a_flipped_bit_is_found_by_the_check(self, images, cache, chunks):
        pack.check(images, SHORT, cache)
        whole = bytearray(chunks[2].read_bytes())
        whole[1000] ^= 1
        chunks[2].write_bytes(whole)
        packed(images, SHORT, cache)
        with pytest.raises(BenchError, match="1 of 3 chunks do not match their checksums and were removed"):
            pack.check(images, SHORT, cache)
        pack.pack(images, SHORT, cache, workers=0)
        pack.check(images, SHORT, cache)

    def test_a_check_of_nothing(self, images, cache):
        with pytest.raises(BenchError, match="toy/train has no packed store"):
            pack.check(images, SHORT, cache)

    @pytest.mark.parametrize(("key", "value"), [("schema", 2), ("images", 9), ("digest", "0" * 16), ("chunk", 8)])
    def test_a_header_that_is_another_data_sets(self, images, cache, chunks, key, value):
        file = chunks[0].parent / "pack.json"
        write_json(file, {**read_json(file), key: value})
        with pytest.raises(BenchError, match=f"the packed store has {key} {value!r}"):
            packed(images, SHORT, cache)


class TestCommand:
    def test_pack_and_check(self, tmp_path):
        fill(tmp_path / "toy/train", SHAPES)
        fill(tmp_path / "toy/val", SHAPES[:3])
        runs = tmp_path / "runs"
        packing = ("data", "pack", tmp_path / "toy", "--side", 16, "--workers", 1, "--runs", runs)
        train, val = bench(*packing).stdout.splitlines()
        assert train.startswith("toy/train: 10 images are packed: ")
        assert val.startswith("toy/val: 3 images are packed: ")
        assert {header["dataset"] for header in headers(runs / ".cache")} == {"toy/train", "toy/val"}
        assert bench(*packing, "--check").stdout.count("match their checksums") == 2

    def test_status_names_the_stores_of_a_known_data_set(self, tmp_path, cache, monkeypatch):
        made = catalog.DataCard("Toy", None, "none", {"train": 10, "val": 3}, 2, "as ever")
        monkeypatch.setitem(catalog._BUILT_IN, "toy", made)
        where = {"root": tmp_path, "cache": cache}
        fill(tmp_path / "toy/train", SHAPES)
        assert catalog.splits_there("toy", tmp_path) == ("train",)
        pack.pack(catalog.open_dataset("toy", ("train",), **where), SHORT, cache, workers=0)
        train, val = catalog.status(**where, name="toy")
        assert re.fullmatch(r"short32-bilinear, 5\.\d+e-05 GB", train.packed)
        assert val.packed == ""
        fill(tmp_path / "toy/train", [(32, 32)] * 11)
        assert catalog.status(**where, name="toy")[0].packed.endswith("GB, stale")

    def test_what_has_no_image_files_is_refused(self, tmp_path):
        with pytest.raises(BenchError, match="scenes has no image files"):
            catalog.splits_there("scenes", tmp_path)
        with pytest.raises(BenchError, match="no splits"):
            catalog.splits_there(f"{tmp_path}/", tmp_path)

    def test_importing_it_imports_no_torch(self):
        code = "import sys, bench.data.pack; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_probe_from_the_store_is_the_same_probe(tmp_path):
    """Same evidence to the byte, and the result says where its images came from."""
    for split, count in (("train", 40), ("val", 16)):
        fill(tmp_path / "toy" / split, [(40, 60)] * count)
    role = f'dataset = "{tmp_path}/toy"\ntrain = ["train"]'
    suite = f"""
        title = "Toy"
        description = "For this test."
        backbone = "alexnet-smoke"
        [roles.pretrain]
        {role}
        [roles.imagenet]
        {role}
        test = ["val"]
        [protocols.imagenet-linear]
        features = 64
        batch = 16
        epochs = 2
        steps = [1]
        rates = [0.01, 0.1]
        heldout = 0.2
    """
    (tmp_path / "toy.toml").write_text("\n".join(line.strip() for line in suite.splitlines()))
    cell = workflow.Cell(str(tmp_path / "toy.toml"), "random", "{}", "imagenet-linear", "standard", None, 0)
    results = {}
    for runs in (tmp_path / "plain", tmp_path / "packed"):
        for split in ("train", "val") if runs.name == "packed" else ():
            images = open_images("toy", tmp_path / "toy", (split,), cache_root(runs))
            pack.pack(images, SHORT, cache_root(runs), workers=0)
        ids = workflow.ids_of_cell(cell, runs, tmp_path)
        assert workflow.launch(ids, "inline", runs, tmp_path, workflow.How(workers=0), print) == []
        results[runs.name] = json.loads((runs / ids[-1] / "result.json").read_text())
        said = (runs / ids[-1] / "out.log").read_text() if (runs / ids[-1] / "out.log").is_file() else ""
        assert said.count("images come from the packed store") == (2 if runs.name == "packed" else 0)
    plain, stored = results["plain"], results["packed"]
    assert [part.pop("packed") for part in plain["data"].values()] == [False, False]
    assert [part.pop("packed") for part in stored["data"].values()] == [True, True]
    for key in ("data", "columns", "selection", "evidence"):
        assert plain[key] == stored[key]
