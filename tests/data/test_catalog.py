"""Which data sets there are, what was found of them, and what a wrong name, root or folder says."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bench.data import catalog
from bench.data.base import Dataset
from bench.data.catalog import DataCard, card, names, open_dataset, status
from bench.errors import BenchError


def fill(folder, classes=("",), each=1):
    """``each`` tiny images in each class folder."""
    for wnid in classes:
        (folder / wnid).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            Image.fromarray(np.full((4, 4, 3), i, dtype=np.uint8)).save(folder / wnid / f"{i}.png")


@pytest.fixture
def where(tmp_path):
    return {"root": tmp_path / "data", "cache": tmp_path / "cache"}


@pytest.fixture
def toy_dataset(monkeypatch):
    """A known data set of two classes with three images each, and two unlabelled ones."""
    made = DataCard("Toy", None, "none", {"train": 6, "unlabelled": 2}, 2, "as ever", fetchable=True)
    monkeypatch.setitem(catalog._BUILT_IN, "toy", made)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Installs a distribution of third-party data sets: its entry points and its module."""

    def install(entry_points, source):
        info = tmp_path / "site" / "third_party_data-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-data\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[bench.datasets]\n" + entry_points)
        (tmp_path / "site" / "third_party_data.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.delitem(sys.modules, "third_party_data", raising=False)

    yield install
    sys.modules.pop("third_party_data", None)


class TestCards:
    def test_the_built_in_ones(self):
        assert {"imagenet", "tiny-imagenet", "tiny-imagenet-50", "scenes"} <= set(names())
        assert names() == sorted(names())
        assert card("imagenet").splits == {"train": 1_281_167, "val": 50_000}

    def test_an_unknown_name(self):
        with pytest.raises(BenchError, match="unknown data set 'tiny-imagnet': did you mean tiny-imagenet"):
            card("tiny-imagnet")

    def test_nothing_heavy_is_imported(self, where):
        code = (
            "import sys; from pathlib import Path; from bench.data import catalog; "
            f"catalog.status(Path({str(where['root'])!r}), Path({str(where['cache'])!r})); "
            "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestThirdParties:
    CARD = "from bench.data.catalog import DataCard\nmine = DataCard('Mine', None, 'CC0', {'train': 2}, 1, 'as ever')\n"

    def test_image_folders_need_only_a_card(self, distribution, where):
        distribution("my-data = third_party_data:mine\n", self.CARD)
        assert "my-data" in names()
        fill(where["root"] / "my-data/train", ["ant"], 2)
        data = open_dataset("my-data", ("train",), **where)
        assert (data.name, len(data)) == ("my-data/train", 2)
        assert [f.state for f in status(**where, name="my-data")] == ["complete"]

    def test_others_open_themselves(self, distribution, where):
        distribution(
            "my-data = third_party_data:mine\n",
            self.CARD + "mine = DataCard('Mine', None, 'CC0', {}, 1, '', open=lambda s, **k: (s, k))\n",
        )
        assert open_dataset("my-data", ("x",), **where, size=3) == (("x",), {**where, "size": 3})

    def test_a_name_that_is_taken(self, distribution):
        distribution("imagenet = third_party_data:mine\n", self.CARD)
        with pytest.raises(BenchError, match="two data sets are called 'imagenet'"):
            names()

    @pytest.mark.parametrize("source", ["mine = 3", "import nothing_of_that_name", "other = 3"])
    def test_one_that_does_not_load(self, distribution, source):
        distribution("my-data = third_party_data:mine\n", source)
        assert "my-data" in names()
        with pytest.raises(
            BenchError, match=r"data set 'my-data' (does not load|is no DataCard).*third_party_data:mine"
        ):
            card("my-data")


@pytest.mark.usefixtures("toy_dataset")
class TestOpening:
    def test_a_known_one(self, where, recwarn):
        fill(where["root"] / "toy/train", ["ant", "bee"], 3)
        fill(where["root"] / "toy/unlabelled", each=2)
        data = open_dataset("toy", ("train", "unlabelled"), **where)
        assert isinstance(data, Dataset)
        assert data.name == "toy/train+unlabelled"
        assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
        assert not recwarn.list

    def test_nothing_is_written_under_the_data_root(self, where):
        fill(where["root"] / "toy/train", ["ant", "bee"], 3)
        before = {path: path.stat().st_mtime_ns for path in where["root"].rglob("*")}
        open_dataset("toy", ("train",), **where, skip_corrupt=True)
        status(**where)
        assert {path: path.stat().st_mtime_ns for path in where["root"].rglob("*")} == before

    def test_an_incomplete_one_warns(self, where):
        fill(where["root"] / "toy/train", ["ant", "bee"], 2)
        with pytest.warns(UserWarning, match="toy/train has 4 images instead of 6"):
            open_dataset("toy", ("train",), **where)

    def test_by_path(self, where, tmp_path, monkeypatch):
        fill(tmp_path / "photos/train", ["ant", "bee"], 2)
        fill(tmp_path / "photos/new", each=3)
        data = open_dataset(str(tmp_path / "photos"), ("train", "new"), **where)
        assert data.name == "photos/train+new"
        monkeypatch.chdir(tmp_path)
        assert open_dataset("./photos", ("train", "new"), **where).digest == data.digest
        monkeypatch.chdir(tmp_path / "photos")
        assert open_dataset(".", ("train", "new"), **where).digest == data.digest
        with pytest.raises(BenchError, match=r"no split 'val' .*it has: new, train"):
            open_dataset(str(tmp_path / "photos"), ("val",), **where)
        with pytest.raises(BenchError, match="No such file"):
            open_dataset(str(tmp_path / "nothing"), ("train",), **where)

    def test_a_link_does_not_change_the_name(self, where, tmp_path):
        fill(tmp_path / "scratch/t/train", ["ant", "bee"], 3)
        where["root"].mkdir()
        (where["root"] / "toy").symlink_to(tmp_path / "scratch/t")
        assert open_dataset("toy", ("train",), **where).name == "toy/train"

    def test_the_root_is_missing(self, where):
        with pytest.raises(BenchError, match=r"no such data root .*BENCH_DATA, or run: bench data prepare toy"):
            open_dataset("toy", ("train",), **where)

    def test_the_data_set_is_missing(self, where):
        where["root"].mkdir()
        with pytest.raises(BenchError, match=r"the data root has no toy .*data/toy.*run: bench data prepare toy"):
            open_dataset("toy", ("train",), **where)
        with pytest.raises(BenchError, match="bench data prepare imagenet, which says what to do by hand"):
            open_dataset("imagenet", ("train",), **where)

    def test_the_split_is_missing(self, where):
        fill(where["root"] / "toy/train", ["ant"])
        with pytest.raises(BenchError, match=r"toy lacks its split 'unlabelled' .*toy/unlabelled"):
            open_dataset("toy", ("unlabelled",), **where)
        with pytest.raises(BenchError, match="unknown split of toy 'trian': did you mean train"):
            open_dataset("toy", ("trian",), **where)

    @pytest.mark.parametrize("splits", [(), ("train", "train")])
    def test_splits_are_named_once(self, where, splits):
        with pytest.raises(BenchError, match="each once"):
            open_dataset("toy", splits, **where)

    def test_an_empty_class_folder(self, where):
        fill(where["root"] / "toy/train", ["ant", "bee"])
        (where["root"] / "toy/train/cow").mkdir()
        with pytest.raises(BenchError, match="class folder 'cow' has no images"):
            open_dataset("toy", ("train",), **where)

    def test_unknown_names_and_options(self, where):
        fill(where["root"] / "photos/train", ["ant"])
        with pytest.raises(BenchError, match=r"unknown data set 'photos': open it by its path: .*data/photos"):
            open_dataset("photos", ("train",), **where)
        with pytest.raises(BenchError, match="unknown data set 'imagnet': did you mean imagenet"):
            open_dataset("imagnet", ("train",), **where)
        fill(where["root"] / "toy/train", ["ant", "bee"], 3)
        with pytest.raises(BenchError, match="unknown option of toy 'skip_corupt': did you mean skip_corrupt"):
            open_dataset("toy", ("train",), **where, skip_corupt=True)


class TestScenes:
    def test_opened_with_its_options(self, where):
        data = open_dataset("scenes", ("train", "val"), **where, size=3, side=32, classes=4)
        assert isinstance(data, Dataset)
        assert len(data) == 6
        assert data[0].image.shape == (3, 32, 32)
        assert len(data.classes) == 4
        assert not where["root"].exists()

    def test_wrong_options(self, where):
        with pytest.raises(BenchError, match="scenes need the option 'size'"):
            open_dataset("scenes", ("train",), **where)
        with pytest.raises(BenchError, match="unknown option of scenes 'sice': did you mean"):
            open_dataset("scenes", ("train",), **where, sice=3)


@pytest.mark.usefixtures("toy_dataset")
class TestStatus:
    def found(self, where):
        return {f.split: f for f in status(**where, name="toy")}

    def test_complete_incomplete_missing(self, where):
        missing = self.found(where)
        assert {f.state for f in missing.values()} == {"missing"}
        assert missing["train"].mend == "run: bench data prepare toy"
        fill(where["root"] / "toy/train", ["ant", "bee"], 2)
        found = self.found(where)
        assert (found["train"].state, found["train"].images, found["train"].expected) == ("incomplete", 4, 6)
        assert "move" in found["train"].mend
        assert found["unlabelled"].state == "missing"
        fill(where["root"] / "toy/train", ["ant", "bee"], 3)
        fill(where["root"] / "toy/unlabelled", each=2)
        found = self.found(where)
        assert {f.state for f in found.values()} == {"complete"}
        assert (found["train"].classes, found["unlabelled"].classes) == (2, 0)
        assert found["train"].mend == ""

    def test_the_right_count_in_the_wrong_number_of_classes(self, where):
        fill(where["root"] / "toy/train", ["ant"], 6)
        assert self.found(where)["train"].state == "incomplete"

    def test_every_data_set_is_there_and_is_plain_json(self, where):
        found = status(**where)
        assert {f.dataset for f in found} == set(names())
        assert json.loads(json.dumps([dataclasses.asdict(f) for f in found]))
        assert [f.state for f in found if f.dataset == "scenes"] == ["complete"]

    def test_real_images(self, bench_data, tmp_path):
        found = [f for f in status(bench_data, tmp_path) if f.dataset == "tiny-imagenet-50"]
        assert [(f.split, f.images, f.classes, f.state) for f in found] == [
            ("train", 10_000, 50, "complete"),
            ("val", 2_500, 50, "complete"),
            ("unlabelled", 10_000, 0, "complete"),
        ]
