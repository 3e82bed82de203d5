"""Selective Search, its cache, and published proposals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.io import savemat

from bench import cli
from bench.data import proposals, published_proposals, scenes
from bench.data.catalog import open_dataset
from bench.data.proposals import Proposals, SelectiveSearch, compute, load
from bench.data.scenes_voc import ScenesVoc
from bench.errors import BenchError
from bench.metrics.proposal_recall import recall

SEARCH = SelectiveSearch()


@pytest.fixture
def data():
    return ScenesVoc(("test",), 20, 48)


@pytest.fixture
def image():
    return torch.from_numpy(scenes.render("test", 3, 96).image.transpose(2, 0, 1).copy())


def equal(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


class TestSearch:
    def test_boxes_lie_in_the_image_sorted_and_once(self, image):
        boxes = SEARCH.boxes(image)
        assert (boxes.dtype, boxes.shape[1]) == (np.float32, 4)
        assert len(boxes) > 50
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= 96).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert np.array_equal(boxes, np.unique(boxes, axis=0))

    def test_the_same_in_any_process(self, image):
        code = (
            "import sys, torch, numpy as np; from bench.data import scenes; "
            "from bench.data.proposals import SelectiveSearch; "
            "image = torch.from_numpy(scenes.render('test', 3, 96).image.transpose(2, 0, 1).copy()); "
            "SelectiveSearch(keep=30).boxes(image[:, :50]); "
            "sys.stdout.buffer.write(SelectiveSearch(keep=30).boxes(image).tobytes())"
        )
        found = SelectiveSearch(keep=30).boxes(image)
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == found.tobytes()
        assert len(found) == 30

    def test_what_stays_of_too_many_are_the_large_ones(self, image):
        def area(boxes):
            return np.median((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))

        assert area(SelectiveSearch(keep=40).boxes(image)) > area(SEARCH.boxes(image))

    def test_a_smaller_image_gives_boxes_in_the_pixels_of_the_whole(self, image):
        wide = torch.cat([image, image], dim=2)
        boxes = SelectiveSearch(short=32).boxes(wide)
        assert boxes[:, 2].max() == 192
        assert boxes[:, 3].max() == 96
        assert len(boxes) < len(SEARCH.boxes(wide))
        assert equal(boxes / 3, np.round(boxes / 3))
        assert np.array_equal(SelectiveSearch(short=96).boxes(image), SEARCH.boxes(image))
        assert np.array_equal(SelectiveSearch(short=500).boxes(image), SEARCH.boxes(image))

    def test_one_colour(self):
        assert SEARCH.boxes(torch.zeros(3, 20, 30, dtype=torch.uint8)).tolist() == [[0, 0, 30, 20]]

    def test_bad_arguments(self):
        with pytest.raises(BenchError, match="unknown mode of Selective Search 'fasst': did you mean fast"):
            SelectiveSearch("fasst")
        for bad in ({"keep": 0}, {"short": 0}):
            with pytest.raises(BenchError, match="at least one"):
                SelectiveSearch(**bad)

    def test_an_opencv_without_it(self, image, monkeypatch):
        import cv2

        monkeypatch.setattr(cv2, "ximgproc", object())
        with pytest.raises(BenchError, match="no Selective Search: run: bench install opencv-contrib"):
            SEARCH.boxes(image)


class TestCompute:
    def test_serial_parallel_and_loaded_are_the_same(self, data, tmp_path):
        seen = []
        serial = compute(data, SEARCH, tmp_path / "a", workers=0, progress=seen.append)
        assert seen[-1] == len(data) == len(serial)
        parallel = compute(data, SEARCH, tmp_path / "b", workers=2)
        assert equal(serial, parallel)
        assert equal(serial, load(data, SEARCH, tmp_path / "b"))
        assert equal(serial, [SEARCH.boxes(data[index].image) for index in range(20)])
        assert serial.digest == parallel.digest
        assert serial.digest != compute(data, SelectiveSearch(short=24), tmp_path / "a", workers=0).digest

    def test_it_goes_on_where_it_was(self, data, tmp_path, monkeypatch):
        searched = []
        plain = SelectiveSearch.boxes

        def fails_at_8(self, image):
            if len(searched) == 8:
                raise BenchError("the disk is full")
            searched.append(1)
            return plain(self, image)

        monkeypatch.setattr(SelectiveSearch, "boxes", fails_at_8)
        with pytest.raises(BenchError, match="the disk is full"):
            compute(data, SEARCH, tmp_path, workers=0)
        with pytest.raises(BenchError, match="not of image test/000008"):
            load(data, SEARCH, tmp_path)
        monkeypatch.setattr(SelectiveSearch, "boxes", lambda self, image: searched.append(1) or plain(self, image))
        whole = compute(data, SEARCH, tmp_path, workers=0)
        assert len(searched) == 20
        assert equal(compute(data, SEARCH, tmp_path, workers=0), whole)
        assert len(searched) == 20
        assert not list(tmp_path.rglob("*.tmp"))

    def test_data_sets_that_share_images_share_the_work(self, data, tmp_path):
        """Other data set, other digest: the boxes are put together from those that are there."""
        both = ScenesVoc(("test", "train"), 20, 48)
        found = compute(both, SEARCH, tmp_path, workers=0)
        assert equal(load(data, SEARCH, tmp_path), list(found)[:20])

    def test_what_is_missing_names_the_command(self, data, tmp_path):
        with pytest.raises(BenchError, match=r"no proposals.*run: bench data proposals scenes-voc --split test$"):
            load(data, SEARCH, tmp_path)
        with pytest.raises(BenchError, match=r"--split test --mode quality --short 32$"):
            load(data, SelectiveSearch("quality", 32), tmp_path)

    def test_a_damaged_file_is_one_line(self, data, tmp_path):
        compute(data, SEARCH, tmp_path, workers=0)
        file = next(tmp_path.rglob(f"{data.digest}.npz"))
        file.write_bytes(file.read_bytes()[:200])
        with pytest.raises(BenchError, match=r"the proposals are damaged.*remove the file"):
            load(data, SEARCH, tmp_path)
        file.unlink()
        next(tmp_path.rglob("*.npy")).write_bytes(b"half")
        with pytest.raises(BenchError, match=r"the proposals are damaged.*\.npy"):
            load(data, SEARCH, tmp_path)

    def test_a_killed_worker_is_one_line(self, data, tmp_path, monkeypatch):
        monkeypatch.setattr(SelectiveSearch, "boxes", lambda self, image: os._exit(1))
        with pytest.raises(BenchError, match="a worker process died.*it goes on where it was"):
            compute(data, SEARCH, tmp_path, workers=2)

    def test_recall_on_photographs(self, bench_data, tmp_path):
        """Few and small, so that it is quick: most objects are reached."""
        from bench.data.images import subset

        voc = open_dataset("voc-mini", ("test",), root=bench_data, cache=tmp_path)
        some = subset(voc, range(0, 545, 110))
        found = compute(some, SelectiveSearch(short=128), tmp_path, workers=0)
        known = [voc.annotations[index] for index in range(0, 545, 110)]
        assert recall(found, known) > 0.75


class TestPublished:
    """Three boxes in the conventions of each format: all are edges 10, 20, 110, 220 and so on."""

    EDGES = [[10, 20, 40, 45], [0, 0, 48, 48]]

    @pytest.fixture
    def write(self, tmp_path, data):
        def write_(suffix, content):
            file = tmp_path / f"published{suffix}"
            if suffix == ".mat":
                savemat(file, content)
            else:
                file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
            return file

        return write_

    @pytest.fixture
    def numbered(self, data, monkeypatch):
        """The generated set under VOC's ids."""
        monkeypatch.setattr(data, "ids", [f"2008_{i:06d}" for i in range(20)])
        return data

    def columns(self, *shifts):
        return [np.array(self.EDGES) + shifts for _ in range(20)]

    @pytest.mark.parametrize("key", ["indexes", "ids"])
    def test_detectron(self, write, numbered, key):
        boxes = [each.astype(np.uint16) for each in self.columns(0, 0, -1, -1)]
        ids = [2008000000 + i for i in range(20)][::-1]
        found = published_proposals.read(write(".pkl", {key: ids, "boxes": boxes, "scores": boxes}), numbered)
        assert equal(found, [np.array(self.EDGES, np.float32)] * 20)

    def test_detectron2(self, write, numbered):
        boxes = [each.astype(np.float32) for each in self.columns(0, 0, 0, 0)]
        stored = {"ids": numbered.ids, "boxes": boxes, "objectness_logits": [np.zeros(2)] * 20, "bbox_mode": 0}
        assert equal(published_proposals.read(write(".pkl", stored), numbered), boxes)

    def test_fast_rcnn(self, write, numbered):
        cells, names = np.empty((1, 20), object), np.empty((20, 1), object)
        for index, each in enumerate(self.columns(1, 1, 0, 0)):
            cells[0, index], names[index, 0] = each[:, [1, 0, 3, 2]].astype(np.float64), numbered.ids[index]
        found = published_proposals.read(write(".mat", {"boxes": cells, "images": names}), numbered)
        assert equal(found, [np.array(self.EDGES, np.float32)] * 20)

    def test_boxes_are_cut_to_the_image(self, write, numbered):
        boxes = [np.array([[-5.0, 3, 400, 20]])] * 20
        stored = {"ids": numbered.ids, "boxes": boxes, "objectness_logits": boxes}
        assert published_proposals.read(write(".pkl", stored), numbered)[0].tolist() == [[0, 3, 48, 20]]

    def test_a_missing_image(self, write, numbered, monkeypatch):
        stored = {"ids": numbered.ids[1:], "boxes": self.columns(0, 0, 0, 0)[1:], "objectness_logits": []}
        with pytest.raises(BenchError, match="the proposals lack image 2008_000000 of scenes-voc/test"):
            published_proposals.read(write(".pkl", stored), numbered)
        monkeypatch.setattr(numbered, "ids", [f"test/{i:06d}" for i in range(20)])
        with pytest.raises(BenchError, match="the proposals lack image test/000000 of scenes-voc/test"):
            published_proposals.read(write(".pkl", stored), numbered)

    def test_what_is_no_number(self, write, numbered):
        boxes = [np.array([[0.0, 3, np.nan, 20]])] * 20
        stored = {"ids": numbered.ids, "boxes": boxes, "objectness_logits": boxes}
        with pytest.raises(BenchError, match="proposals of image 2008_000000 are not all finite numbers"):
            published_proposals.read(write(".pkl", stored), numbered)

    @pytest.mark.parametrize("suffix", [".pkl", ".mat"])
    def test_another_file(self, write, numbered, suffix, tmp_path):
        file = tmp_path / f"published{suffix}"
        for content in (b"", b"something else entirely", pickle.dumps([1]), pickle.dumps({"boxes": 1})):
            file.write_bytes(content)
            with pytest.raises(BenchError, match="not a file of proposals"):
                published_proposals.read(file, numbered)

    def test_no_file_and_no_format(self, numbered, tmp_path):
        with pytest.raises(BenchError, match="cannot read the proposals: No such file"):
            published_proposals.read(tmp_path / "a.pkl", numbered)
        with pytest.raises(BenchError, match="unknown format of proposals '.json'"):
            published_proposals.read(tmp_path / "a.json", numbered)

    def test_a_pickle_runs_nothing(self, write, numbered, tmp_path):
        touched = tmp_path / "touched"

        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {touched}",)

        for module, name in (("builtins", "eval"), ("numpy", "save"), ("numpy.core.multiarray", "fromfile")):
            with pytest.raises(BenchError, match=f"it holds {module}.{name}, which is no array"):
                published_proposals.read(write(".pkl", f"c{module}\n{name}\n.".encode()), numbered)
        with pytest.raises(BenchError, match=r"it holds \w+\.system, which is no array"):
            published_proposals.read(write(".pkl", {"ids": [Evil()]}), numbered)
        with pytest.raises(BenchError, match="it holds text in zlib"):
            published_proposals.read(write(".pkl", b"c_codecs\nencode\n(Vx\nVzlib\ntR."), numbered)
        assert not touched.exists()


def test_proposals_are_a_sequence():
    made = Proposals([np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32)])
    assert (len(made), len(made[0]), len(made[1])) == (2, 2, 0)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            made[index]


class TestCommand:
    @pytest.fixture
    def command(self, tmp_path, monkeypatch, capsys):
        def run(*words):
            where = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--workers", "0"]
            monkeypatch.setattr(sys, "argv", ["bench", "data", "proposals", *words, *where])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            return ended.value.code, *map(str.splitlines, capsys.readouterr())

        return run

    def test_all_splits_that_are_there(self, command, tmp_path):
        scenes.write_voc_devkit(tmp_path / "data/voc2007", 20, 20, 32)
        status, lines, _ = command("voc2007")
        assert not status
        splits = ["train", "val", "trainval", "test"]
        assert [line.partition(":")[0] for line in lines] == [f"voc2007/{split}" for split in splits]
        assert all("proposals an image reach" in line for line in lines)
        data = open_dataset("voc2007", ("test",), root=tmp_path / "data", cache=tmp_path / "runs/.cache")
        assert len(load(data, SEARCH, tmp_path / "runs/.cache")) == 20

    def test_one_line_for_what_is_not_there(self, command):
        for words, reason in (
            (["voc2012", "--split", "train"], "the data root has no voc2012"),
            (["voc2012", "--mode", "slow"], "unknown mode of Selective Search 'slow'"),
            (["scenes"], "scenes is no devkit of PASCAL VOC"),
        ):
            status, printed, errors = command(*words)
            assert (status, printed, len(errors)) == (2, [], 1)
            assert reason in errors[0]


def test_versions_are_in_the_folder(data, tmp_path):
    compute(data, SEARCH, tmp_path, workers=0)
    assert [folder.name for folder in (tmp_path / "proposals").iterdir()] == [f"fast-full-2000-v{proposals._VERSION}"]
