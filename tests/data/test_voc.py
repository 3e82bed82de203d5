"""Devkits as data sets: real ones, generated ones, and broken ones."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from bench.data import scenes, voc
from bench.data.annotation import AnnotatedDataset, presence
from bench.data.base import Dataset
from bench.data.catalog import annotated_splits, card, open_dataset, splits_there, status
from bench.data.loader import Loader
from bench.data.scenes_voc import ScenesVoc
from bench.data.voc import Voc
from bench.data.voc_lists import count
from bench.data.voc_xml import CLASSES
from bench.errors import BenchError

YEAR = "VOC2007"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "voc2007"
    scenes.write_voc_devkit(root, train=40, test=20, side=48)
    return root


@pytest.fixture
def devkit(generated, tmp_path):
    """A copy to break, old enough to be cached."""
    folder = tmp_path / "data/voc2007"
    shutil.copytree(generated, folder)
    for file in (folder / "VOCdevkit" / YEAR / "Annotations").iterdir():
        os.utime(file, (1_000_000_000, 1_000_000_000))
    return folder


@pytest.fixture
def opened(devkit, tmp_path):
    def open_(splits=("trainval",), **options):
        return Voc("voc2007", devkit, YEAR, splits, tmp_path / "cache", **options)

    return open_


class TestContents:
    def test_it_is_an_annotated_data_set(self, opened):
        data = opened()
        assert isinstance(data, Dataset)
        assert isinstance(data, AnnotatedDataset)
        assert (data.name, len(data), data.classes) == ("voc2007/trainval", 40, CLASSES)
        assert data.ids == sorted(data.ids) == [f"{i:06d}" for i in range(1, 41)]
        assert (data.labels == -1).all()
        assert data.labels.dtype == np.int64

    def test_images_boxes_and_masks_are_those_of_the_scenes(self, opened):
        data = opened()
        for index in (0, 7, 39):
            scene = scenes.render("trainval", index, 48)
            sample, known = data[index], data.annotations[index]
            assert (sample.index, sample.label, sample.clip) == (index, -1, None)
            assert np.abs(sample.image.permute(1, 2, 0).numpy().astype(int) - scene.image).mean() < 5
            assert known.boxes.tolist() == [[b.x1, b.y1, b.x2 + 1, b.y2 + 1] for b in scene.boxes]
            assert known.labels.tolist() == [b.label for b in scene.boxes]
            assert np.array_equal(data.mask(index), scenes.with_borders(scene, scene.mask))

    def test_splits(self, opened):
        assert len(opened(("test",))) == 20
        assert opened(("train", "val")).ids == opened().ids
        assert opened(("train", "test")).name == "voc2007/train+test"
        digests = {opened(splits).digest for splits in (("train",), ("val",), ("trainval",), ("test",))}
        assert len(digests) == 4
        assert opened(lists="Segmentation").name == "voc2007/Segmentation/trainval"
        assert opened(lists="Segmentation").ids == opened().ids

    def test_presence_agrees_with_the_lists(self, opened, devkit):
        data = opened(("test",))
        found = presence(data.annotations, 20)
        for label, name in enumerate(CLASSES):
            text = (devkit / f"VOCdevkit/{YEAR}/ImageSets/Main/{name}_test.txt").read_text()
            marks = np.array([int(row.split()[1]) for row in text.splitlines()])
            assert np.array_equal(found[:, label], np.select([marks == 1, marks == 0], [1, -1], 0))

    def test_it_goes_through_a_loader_of_processes(self, opened):
        data = opened()
        again = pickle.loads(pickle.dumps(data))
        assert (again.digest, again[3].index) == (data.digest, 3)

        def view(sample, generator):
            return {"image": sample.image[:, :32, :32]}

        with Loader(data, view, seed=0, batch=8, workers=2) as loader:
            assert len(list(loader.epoch(0, torch.arange(40)))) == 5


class TestCache:
    def test_annotations_are_parsed_once(self, opened, monkeypatch):
        first = opened()
        monkeypatch.setattr(voc, "read_annotation", lambda file: pytest.fail("it was parsed again"))
        second = opened()
        assert (first.digest, len(first.annotations)) == (second.digest, 40)
        for a, b in zip(first.annotations, second.annotations, strict=True):
            assert all(np.array_equal(x, y) and type(x) is type(y) for x, y in zip(a, b, strict=True))
        opened(("train",))

    def test_a_changed_file_is_parsed_again(self, opened, devkit):
        before = opened()
        file = devkit / f"VOCdevkit/{YEAR}/Annotations/000001.xml"
        text = file.read_text()
        file.write_text(text.replace("<difficult>0</difficult>", "<difficult>1</difficult>", 1))
        after = opened()
        assert after.annotations[0].difficult[0]
        assert not before.annotations[0].difficult[0]
        assert after.digest != before.digest

    def test_a_file_that_may_still_change_is_not_cached(self, opened, devkit, tmp_path):
        (devkit / f"VOCdevkit/{YEAR}/Annotations/000001.xml").touch()
        opened()
        index = json.loads(next((tmp_path / "cache/indices").glob("voc-*.json")).read_text())
        assert len(index) == 39
        assert "000001" not in index

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"000001": {}}', '{"000001": null}'])
    def test_a_damaged_cache_is_made_again(self, opened, tmp_path, text):
        digest = opened().digest
        next((tmp_path / "cache/indices").glob("voc-*.json")).write_text(text)
        assert opened().digest == digest

    def test_a_changed_image_changes_the_digest(self, opened, devkit):
        before = opened().digest
        with (devkit / f"VOCdevkit/{YEAR}/JPEGImages/000002.jpg").open("ab") as file:
            file.write(b"\0")
        assert opened().digest != before

    def test_a_mask_counts_where_masks_are_used(self, opened, devkit):
        before = opened().digest, opened(lists="Segmentation").digest
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(devkit / f"VOCdevkit/{YEAR}/SegmentationClass/000002.png")
        assert opened().digest == before[0]
        assert opened(lists="Segmentation").digest != before[1]


class TestBroken:
    def broken(self, action, match):
        with pytest.raises(BenchError, match=match) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert caught.value.where is not None

    def test_lists(self, opened, devkit):
        sets = devkit / f"VOCdevkit/{YEAR}/ImageSets/Main"
        self.broken(lambda: opened(("trainval", "train")), r"image 000001 is listed twice .*Main/train\.txt")
        self.broken(lambda: opened(("nothing",)), r"cannot read the list of images: No such file .*Main/nothing\.txt")
        (sets / "empty.txt").write_text("\n \n")
        self.broken(lambda: opened(("empty",)), "the list names no image")
        (sets / "bad.txt").write_text("../../secret\n")
        self.broken(lambda: opened(("bad",)), r"'\.\./\.\./secret' is no image's name")
        (sets / "bad.txt").write_bytes(b"\xff\xfe")
        self.broken(lambda: opened(("bad",)), "not a text file")
        (sets / "bad.txt").write_bytes(b"0000\x0001\n")
        self.broken(lambda: opened(("bad",)), r"'0000\\x0001' is no image's name")
        with pytest.raises(BenchError, match="unknown kind of lists 'Segments': did you mean Segmentation"):
            opened(lists="Segments")

    def test_what_is_missing(self, opened, devkit):
        kit = devkit / "VOCdevkit" / YEAR
        (kit / "SegmentationClass/000003.png").unlink()
        self.broken(lambda: opened(lists="Segmentation"), r"the mask is missing: No such file .*000003\.png")
        self.broken(lambda: opened().mask(2), r"cannot read the mask: No such file .*000003\.png")
        (kit / "JPEGImages/000002.jpg").unlink()
        self.broken(opened, r"the image is missing: No such file .*000002\.jpg")
        (kit / "Annotations/000001.xml").unlink()
        self.broken(opened, r"the annotation is missing: No such file .*000001\.xml")

    def test_an_annotation(self, opened, devkit):
        (devkit / f"VOCdevkit/{YEAR}/Annotations/000004.xml").write_text("<annotation>")
        self.broken(opened, r"malformed XML.*000004\.xml")

    def test_an_image(self, opened, devkit):
        data, file = opened(), devkit / f"VOCdevkit/{YEAR}/JPEGImages/000001.jpg"
        Image.new("RGB", (50, 48)).save(file)
        self.broken(lambda: data[0], "the image has 50 x 48 pixels, its annotation says 48 x 48")
        file.write_bytes(b"no image")
        self.broken(lambda: data[0], r"corrupt image: not an image .*000001\.jpg")

    @pytest.mark.parametrize(
        ("picture", "match"),
        [
            (Image.new("RGB", (48, 48)), "cannot use the mask: mode RGB"),
            (Image.new("1", (48, 48)), "cannot use the mask: mode 1"),
            (Image.new("P", (48, 47)), "the mask has 48 x 47 pixels, its image 48 x 48"),
            (Image.new("L", (48, 48), 21), "the mask has the value 21, which is no class"),
        ],
    )
    def test_a_mask(self, opened, devkit, picture, match):
        data, file = opened(), devkit / f"VOCdevkit/{YEAR}/SegmentationClass/000001.png"
        picture.save(file)
        self.broken(lambda: data.mask(0), match)
        file.write_bytes(file.read_bytes()[:40])
        self.broken(lambda: data.mask(0), "cannot (read|use) the mask")
        file.write_bytes(b"")
        self.broken(lambda: data.mask(0), "cannot read the mask: not an image")


class TestFurtherSplits:
    def test_sbd(self, opened, devkit):
        (devkit / "sbd/cls").mkdir(parents=True)
        (devkit / "sbd/train.txt").write_text("000005\n000009\n")
        masks = {i: np.full((48, 48), label, np.uint8) for i, label in (("000005", 3), ("000009", 7))}
        for i, mask in masks.items():
            boundaries = np.empty((20, 1), object)
            boundaries[:] = [[np.zeros((2, 2))]] * 20
            stored = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": mask[:1, :1]}
            savemat(devkit / f"sbd/cls/{i}.mat", {"GTcls": stored})
        data = opened(("sbd-train",))
        assert data.ids == ["000005", "000009"]
        assert np.array_equal(data.mask(1), masks["000009"])
        assert data[1].image.shape == (3, 48, 48)
        (devkit / "sbd/cls/000009.mat").write_bytes(b"not a mat file" * 20)
        with pytest.raises(BenchError, match=r"cannot use the mask: .*000009\.mat"):
            data.mask(1)
        (devkit / "sbd/cls/000009.mat").unlink()
        with pytest.raises(BenchError, match=r"the mask is missing.*000009\.mat"):
            opened(("sbd-train",))

    def test_trainaug_and_seg11valid(self, opened, devkit):
        kit = devkit / "VOCdevkit" / YEAR
        (kit / "SegmentationClassAug").mkdir()
        Image.fromarray(np.full((48, 48), 4, np.uint8)).save(kit / "SegmentationClassAug/000001.png")
        (kit / "ImageSets/Segmentation/trainaug.txt").write_text("000001\n")
        (kit / "ImageSets/Segmentation/seg11valid.txt").write_text("000021\n000022\n")
        assert (opened(("trainaug",)).mask(0) == 4).all()
        assert opened(("seg11valid",)).ids == ["000021", "000022"]
        with pytest.raises(
            BenchError, match=r"cannot read the list of images: No such file .*sbd/train\.txt.*: put cls"
        ):
            opened(("sbd-train",))


class TestCatalog:
    def test_it_is_opened_by_name(self, devkit, tmp_path):
        where = {"root": tmp_path / "data", "cache": tmp_path / "cache"}
        data = open_dataset("voc2007", ("test",), lists="Segmentation", **where)
        assert data.name == "voc2007/Segmentation/test"
        with pytest.raises(BenchError, match="unknown option of voc2007 'list': did you mean lists"):
            open_dataset("voc2007", ("test",), list="Main", **where)
        with pytest.raises(BenchError, match="unknown split of voc2007 'tests': did you mean test"):
            open_dataset("voc2007", ("tests",), **where)
        with pytest.raises(BenchError, match=r"the data root has no voc2012.*run: bench data prepare voc2012"):
            open_dataset("voc2012", ("train",), **where)

    def test_status(self, devkit, tmp_path):
        found = {split.split: split for split in status(tmp_path / "data", tmp_path / "cache", "voc2007")}
        assert list(found) == list(card("voc2007").splits)
        assert (found["test"].state, found["test"].images, found["test"].expected) == ("incomplete", 20, 4952)
        (devkit / f"VOCdevkit/{YEAR}/ImageSets/Main/val.txt").unlink()
        (devkit / f"VOCdevkit/{YEAR}/ImageSets/Segmentation/val.txt").unlink()
        found = {split.split: split for split in status(tmp_path / "data", tmp_path / "cache", "voc2007")}
        assert (found["val"].state, found["val"].mend) == ("missing", "run: bench data prepare voc2007")
        assert annotated_splits("voc2007", tmp_path / "data") == ("train", "trainval", "test")

    def test_counting(self, devkit):
        (devkit / f"VOCdevkit/{YEAR}/JPEGImages/000041.jpg").unlink()
        assert count(YEAR, devkit, "test") == 19
        assert count(YEAR, devkit, "sbd-train") == 0
        assert count(YEAR, devkit / "nowhere", "test") == 0

    def test_it_is_not_packed(self, devkit, tmp_path):
        with pytest.raises(BenchError, match="voc2007 is no folders of images"):
            splits_there("voc2007", tmp_path / "data")
        with pytest.raises(BenchError, match="scenes is no devkit"):
            annotated_splits("scenes", tmp_path / "data")
        with pytest.raises(BenchError, match=r"has no voc2012.*run: bench data prepare voc2012"):
            annotated_splits("voc2012", tmp_path / "data")


class TestScenesVoc:
    def test_it_is_what_the_devkit_says(self, opened, tmp_path):
        """But for the JPEG: pixels agree closely, all else exactly."""
        written, drawn = opened(), ScenesVoc(("trainval",), 40, 48, tmp_path / "cache")
        assert isinstance(drawn, AnnotatedDataset)
        assert (drawn.name, drawn.ids[:2]) == ("scenes-voc/trainval", ["trainval/000000", "trainval/000001"])
        for index in range(40):
            assert np.array_equal(written.mask(index), drawn.mask(index))
            for a, b in zip(written.annotations[index], drawn.annotations[index], strict=True):
                assert np.array_equal(a, b)
        difference = (written[5].image.int() - drawn[5].image.int()).abs().float().mean()
        assert difference < 5

    @pytest.mark.parametrize("side", [16, 32, 64])
    def test_every_class_is_in_every_split(self, side):
        data = ScenesVoc(("test", "trainval"), 20, side)
        found = presence(data.annotations, 20)
        assert (found[:20] == 1).any(axis=0).all()
        assert (found[20:] == 1).any(axis=0).all()

    def test_the_cache_gives_the_same(self, tmp_path):
        fresh, cached = ScenesVoc(("test",), 20, 32), ScenesVoc(("test",), 20, 32, tmp_path)
        for _ in range(2):
            assert np.array_equal(fresh[7].image, cached[7].image)
            assert np.array_equal(fresh.mask(7), cached.mask(7))
        assert [file.name for file in tmp_path.iterdir()] == [f"scenes-voc-{fresh.digest}.bin"]
        assert fresh.digest != ScenesVoc(("test",), 20, 48).digest

    def test_bad_arguments(self, tmp_path):
        with pytest.raises(BenchError, match="19 scenes do not show all 20 classes"):
            ScenesVoc(("test",), 19)
        with pytest.raises(BenchError, match="cannot have side 8"):
            ScenesVoc(("test",), 20, 8)
        with pytest.raises(IndexError):
            ScenesVoc(("test",), 20, 32)[20]
        where = {"root": tmp_path, "cache": tmp_path}
        with pytest.raises(BenchError, match="scenes-voc needs the option 'size'"):
            open_dataset("scenes-voc", ("test",), **where)
        with pytest.raises(BenchError, match="unknown option of scenes-voc 'sides': did you mean side"):
            open_dataset("scenes-voc", ("test",), sides=3, **where)
        assert len(open_dataset("scenes-voc", ("test",), size=20, side=32, **where)) == 20


class TestVocMini:
    def test_counts_are_those_of_its_readme(self, bench_data, tmp_path):
        where = {"root": bench_data, "cache": tmp_path}
        for split, images, boxes, hard in (("trainval", 535, 1197, 172), ("test", 545, 1206, 147)):
            data = open_dataset("voc-mini", (split,), **where)
            difficult = np.concatenate([known.difficult for known in data.annotations])
            assert (len(data), (~difficult).sum(), difficult.sum()) == (images, boxes, hard)
            assert (presence(data.annotations, 20) == 1).any(axis=0).all()
        assert {found.state for found in status(bench_data, tmp_path, "voc-mini")} == {"complete"}

    def test_images_and_masks(self, bench_data, tmp_path):
        data = open_dataset("voc-mini", ("val",), root=bench_data, cache=tmp_path, lists="Segmentation")
        for index in range(0, len(data), 60):
            mask, known = data.mask(index), data.annotations[index]
            assert data[index].image.shape == (3, known.height, known.width)
            assert mask.shape == (known.height, known.width)
            assert set(np.unique(mask)) - {0, 255} <= set(known.labels + 1)
