import numpy as np
import pytest

from bench.data import catalog
from bench.data.annotation import AnnotatedDataset
from bench.data.joined import Joined
from bench.data.scenes import write_voc_devkit
from bench.data.scenes_voc import ScenesVoc
from bench.errors import BenchError


def test_images_keep_their_pixels_objects_and_masks():
    one, other = ScenesVoc(("b",), 20, 64), ScenesVoc(("a", "c"), 20, 64)
    both = Joined([one, other])
    assert isinstance(both, AnnotatedDataset)
    assert both.ids == sorted(one.ids + other.ids)
    assert (len(both), both.name) == (60, "scenes-voc/b + scenes-voc/a+c")
    for index in (0, 19, 20, 25, 40, 59):
        part = one if both.ids[index] in one.ids else other
        own = part.ids.index(both.ids[index])
        sample = both[index]
        assert sample.index == index
        assert (sample.image == part[own].image).all()
        assert np.array_equal(both.annotations[index].boxes, part.annotations[own].boxes)
        assert np.array_equal(both.mask(index), part.mask(own))
    assert both.digest not in (one.digest, other.digest)


def test_an_image_in_both_is_refused():
    with pytest.raises(BenchError, match=r"scenes-voc/a \+ scenes-voc/a have images in common"):
        Joined([ScenesVoc(("a",), 20, 64), ScenesVoc(("a",), 20, 64)])


def test_other_classes_are_refused():
    other = ScenesVoc(("b",), 20, 64)
    other.classes = ("a", "b")
    with pytest.raises(BenchError, match="have different classes"):
        Joined([ScenesVoc(("a",), 20, 64), other])


def test_a_devkit_is_opened_with_another_ones_same_splits(tmp_path):
    for year in ("2007", "2012"):
        write_voc_devkit(tmp_path / f"voc{year}", 20, 20, 32)
    old = tmp_path / "voc2012/VOCdevkit/VOC2007"
    for file in [*old.glob("JPEGImages/*"), *old.glob("Annotations/*")]:
        file.rename(file.with_name(f"2008_{file.name}"))
    for split in ("trainval", "test"):
        listed = old / f"ImageSets/Main/{split}.txt"
        listed.write_text("".join(f"2008_{image}\n" for image in listed.read_text().split()))
    old.rename(old.with_name("VOC2012"))
    at = {"root": tmp_path, "cache": tmp_path / "cache"}
    both = catalog.open_dataset("voc2007", ("trainval",), **at, also="voc2012")
    assert (len(both), both.name) == (40, "voc2007/trainval + voc2012/trainval")
    assert both.ids[0] == "000001"
    assert both.ids[-1].startswith("2008_")
    assert both[39].image.shape == (3, 32, 32)
    with pytest.raises(BenchError, match="unknown devkit beside voc2007 'voc2021': did you mean voc2012"):
        catalog.open_dataset("voc2007", ("trainval",), **at, also="voc2021")
