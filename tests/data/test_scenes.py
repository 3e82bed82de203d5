"""The embedded data set: the same bytes everywhere, true labels, boxes and masks, whole files or none."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from bench.data import scenes
from bench.data.base import Dataset
from bench.data.scenes import CLASSES, Scenes, contact_sheet, labels_of, render, sprite
from bench.data.scenes_draw import Pen, paste, shade_from_above
from bench.errors import BenchError

GOLDEN = "54132f9cdd14fefaf6f22ffc4888aa4c34282e45923cb90bb6734a2099cd82aa"
"""sha256 of the scenes of ``everything``; see :func:`test_pixels_belong_to_the_version`."""


def python(code: str, **environment: str) -> str:
    """What that program prints, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return done.stdout.strip()


def luminance(images: np.ndarray) -> np.ndarray:
    return images.astype(float) @ (0.299, 0.587, 0.114)


@pytest.fixture(scope="module")
def some() -> list[scenes.Scene]:
    return [render("look", index) for index in range(240)]


def everything() -> str:
    digest = hashlib.sha256()
    for index in range(40):
        scene = render("train", index)
        digest.update(scene.image.tobytes() + scene.mask.tobytes() + repr(scene.boxes).encode())
    return digest.hexdigest()


# The same bytes


def test_the_same_in_any_process_on_any_number_of_threads():
    code = """
import sys; sys.path.insert(0, {here!r})
import cv2; cv2.setNumThreads({threads})
from test_scenes import everything; print(everything())
"""
    here = str(Path(__file__).parent)
    expected = everything()
    for threads in (1, 3):
        assert python(code.format(here=here, threads=threads), OMP_NUM_THREADS=str(threads)) == expected


def test_pixels_belong_to_the_version():
    assert (scenes.VERSION, everything()) == (1, GOLDEN), "bump VERSION (and GOLDEN here) or restore the pixels"


def test_a_scene_does_not_depend_on_what_was_drawn_before():
    first = render("val", 7).image
    render("val", 8)
    assert np.array_equal(first, render("val", 7).image)


def test_splits_and_indices_differ():
    pictures = {render(split, index).image.tobytes() for split in ("train", "val", "test") for index in range(20)}
    assert len(pictures) == 60


def test_every_side_shows_the_same_scene():
    for index in range(30):
        small, large = render("train", index, 64), render("train", index, 128)
        halved = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(halved - small.image).mean() < 6
        assert small.label == large.label
        for box, twice in zip(small.boxes, large.boxes, strict=True):
            assert box.label == twice.label
            assert np.abs(np.array(box[1:]) - np.array(twice[1:]) / 2).max() <= 3


@pytest.mark.parametrize("side", [32, 45, 256])
def test_sides(side: int):
    scene = render("train", 3, side)
    assert scene.image.shape == (side, side, 3)
    assert scene.mask.shape == scene.instances.shape == (side, side)
    assert scene.image.dtype == scene.mask.dtype == scene.instances.dtype == np.uint8


def test_importing_needs_no_torch():
    assert python("import sys, bench.data.scenes; print('torch' in sys.modules)") == "False"


# Labels, boxes and masks


@pytest.mark.parametrize(("split", "classes"), [("train", 20), ("val", 10), ("unlabelled", 3), ("test", 1)])
def test_labels_need_no_rendering(split: str, classes: int):
    labels = labels_of(split, 30, classes)
    assert labels.dtype == np.int64
    assert [render(split, index, 32, classes).label for index in range(30)] == labels.tolist()


def test_every_block_of_labels_holds_every_class_in_an_order_of_its_own():
    labels = labels_of("train", 1000).reshape(-1, 20)
    assert (np.sort(labels, axis=1) == np.arange(20)).all()
    assert len({tuple(block) for block in labels.tolist()}) == 50
    assert np.array_equal(labels_of("train", 33), labels_of("train", 1000)[:33])


def test_classes_are_those_of_pascal_voc():
    assert list(CLASSES) == sorted(CLASSES)
    assert (len(CLASSES), CLASSES[0], CLASSES[14], CLASSES[19]) == (20, "aeroplane", "person", "tvmonitor")


def test_boxes_are_the_extents_of_the_instances(some: list[scenes.Scene]):
    for scene in some:
        assert scene.boxes[0].label == scene.label
        assert len(scene.boxes) == len(scene.truncated) == len(scene.shown) == scene.instances.max()
        for number, box in enumerate(scene.boxes, 1):
            rows, columns = np.nonzero(scene.instances == number)
            assert box == (box.label, columns.min(), rows.min(), columns.max(), rows.max())
            assert (scene.mask[rows, columns] == box.label + 1).all()
        assert np.array_equal(scene.mask > 0, scene.instances > 0)


def test_the_main_object_is_whole_and_large(some: list[scenes.Scene]):
    assert all(scene.shown[0] == 1 for scene in some)
    areas = [np.count_nonzero(scene.instances == 1) for scene in some]
    assert min(areas) > 100
    assert 0.12 < np.mean(areas) / 64**2 < 0.4


def test_the_number_of_objects_varies(some: list[scenes.Scene]):
    counts = np.bincount([len(scene.boxes) for scene in some], minlength=4)
    assert counts[0] == 0
    assert (counts[1:4] > 15).all()
    assert 10 < sum(any(scene.truncated) for scene in some) < 120
    assert 10 < sum(min(scene.shown) < 0.95 for scene in some) < 120


def test_the_mask_lies_on_the_object():
    """Its colour is not that of what surrounds it."""
    contrasts = []
    for index in range(60):
        scene = render("val", index)
        main, empty = scene.image[scene.instances == 1], scene.image[scene.instances == 0]
        contrasts.append(np.abs(main.mean(0) - empty.mean(0)).max())
    assert np.median(contrasts) > 20


def test_fewer_classes_draw_only_those():
    assert {box.label for index in range(60) for box in render("train", index, 32, 4).boxes} == {0, 1, 2, 3}


# What can be learned


def test_light_comes_from_above(some: list[scenes.Scene]):
    light = luminance(np.stack([scene.image for scene in some]))
    upper, lower = light[:, :32].mean((1, 2)), light[:, 32:].mean((1, 2))
    assert (upper > lower).mean() > 0.8
    left, right = light[:, :, :32].mean((1, 2)), light[:, :, 32:].mean((1, 2))
    assert 0.3 < (left > right).mean() < 0.7


@pytest.mark.parametrize("label", range(20))
def test_each_object_is_drawn_and_lit_from_above(label: int):
    pictures = [sprite(label, seed, 64) for seed in range(12)]
    assert len({picture.tobytes() for picture in pictures}) == 12
    assert all(picture.shape == (64, 64, 4) and picture.dtype == np.uint8 for picture in pictures)
    shares = [np.mean(picture[..., 3] > 127) for picture in pictures]
    assert min(shares) > 0.07
    assert max(shares) < 0.7
    for picture in pictures:
        assert len(np.unique(picture[picture[..., 3] > 0][:, :3], axis=0)) > 20
        assert picture[[0, -1], :, 3].max() < 128, "cut off"


@pytest.mark.parametrize("tilt", [0, 10, 90])
@pytest.mark.parametrize("flip", [False, True])
def test_shapes_are_lit_from_above_however_they_are_turned(tilt: float, flip: bool):
    canvas = np.zeros((64, 64, 4), np.uint8)
    pen = Pen(canvas, flip=flip, tilt=tilt)
    pen.disc(0.5, 0.5, 0.35, 0.35, (120, 120, 120), lit=0.3)
    shade_from_above(canvas)
    assert (canvas[..., :3] <= canvas[..., 3:]).all()
    column = canvas[:, 32, 0].astype(int)
    assert column[13] > column[32] > column[50]
    row = canvas[32, :, 0].astype(int)
    assert abs(row[16] - row[47]) <= 2


def test_shapes_lie_where_they_are_drawn():
    canvas = np.zeros((100, 100, 3), np.uint8)
    pen = Pen(canvas)
    pen.box(0.2, 0.3, 0.6, 0.4, (255, 0, 0))
    pen.limb((0.2, 0.8), (0.6, 0.8), 0.1, (0, 255, 0), thin=0.5)
    pen.ring(0.8, 0.2, 0.15, 0.05, (0, 0, 255))
    rows, columns = np.nonzero(canvas[..., 0] > 127)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((30, 39, 20, 59), abs=1)
    thick, thin = (np.count_nonzero(canvas[:, x, 1] > 127) for x in (20, 59))
    assert (thick, thin) == pytest.approx((10, 5), abs=1)
    assert canvas[20, 80, 2] == 0
    assert canvas[20, 92, 2] == 255


def test_a_tilted_pen_turns_clockwise_and_a_flipped_one_mirrors():
    def middle(**how: float) -> tuple[float, float]:
        canvas = np.zeros((100, 100, 3), np.uint8)
        Pen(canvas, **how).disc(0.9, 0.5, 0.05, 0.05, (255, 255, 255))
        rows, columns = np.nonzero(canvas[..., 0])
        return rows.mean(), columns.mean()

    assert middle() == pytest.approx((49.5, 89.5), abs=0.6)
    assert middle(tilt=90) == pytest.approx((89.5, 49.5), abs=0.6)
    assert middle(flip=True) == pytest.approx((49.5, 9.5), abs=0.6)
    assert middle(width=0.5) == pytest.approx((49.5, 69.5), abs=0.6)


def test_paste_blends_and_cuts():
    canvas = np.full((4, 4, 3), 200, np.uint8)
    sprite_of_half = np.zeros((2, 2, 4), np.uint8)
    sprite_of_half[..., 0] = sprite_of_half[..., 3] = 128
    alpha = paste(canvas, sprite_of_half, left=3, top=-1)
    assert canvas[0, 3].tolist() == [round(128 + 200 * 127 / 255), round(200 * 127 / 255), round(200 * 127 / 255)]
    assert (alpha > 0).sum() == 1
    assert (canvas != 200).any(2).sum() == 1
    assert paste(canvas, sprite_of_half, left=4, top=0).sum() == 0


def test_sprite_at_two_sides_is_one_drawing():
    for label in range(20):
        small, large = sprite(label, 5, 48), sprite(label, 5, 96)
        alpha = large[..., 3].reshape(48, 2, 48, 2).mean((1, 3))
        assert np.abs(alpha - small[..., 3]).mean() < 12


def test_a_picture_tells_which_way_is_up(some: list[scenes.Scene]):
    """The mean picture at each of the four rotations, as a classifier: well above one in four."""
    thumbs = np.stack([scene.image for scene in some]).reshape(-1, 8, 8, 8, 8, 3).mean((2, 4))
    thumbs -= thumbs.mean((1, 2), keepdims=True)
    learn, test = thumbs[:160], thumbs[160:]
    means = np.stack([np.rot90(learn, k, (1, 2)).mean(0) for k in range(4)])
    right = [np.argmax((np.rot90(test, k, (1, 2))[:, None] * means).sum((2, 3, 4)), axis=1) == k for k in range(4)]
    assert 0.6 < np.mean(right) < 0.99


def test_mean_colour_does_not_give_the_class_away():
    scenes_of = [render("train", index, 32) for index in range(600)]
    labels = np.array([scene.label for scene in scenes_of])
    colours = np.stack([scene.image.mean((0, 1)) for scene in scenes_of])
    means = np.stack([colours[:400][labels[:400] == label].mean(0) for label in range(20)])
    nearest = np.argmin(((colours[400:, None] - means) ** 2).sum(2), axis=1)
    assert np.mean(nearest == labels[400:]) < 0.25


def test_contact_sheet():
    sheet = contact_sheet("val", 2, 3, side=32)
    assert sheet.shape == (2 * 34 + 2, 3 * 34 + 2, 3)
    assert np.array_equal(sheet[36:68, 2:34], render("val", 3, 32).image)
    assert (sheet[:2] == 255).all()


# The data set


def test_it_is_a_data_set():
    data = Scenes(("unlabelled", "train"), size=30, side=32, classes=10)
    assert isinstance(data, Dataset)
    assert data.name == "scenes/train+unlabelled"
    assert len(data) == len(data.ids) == len(data.labels) == 60
    assert data.ids == sorted(set(data.ids))
    assert (data.ids[12], data.ids[30]) == ("train/000012", "unlabelled/000000")
    assert data.classes == CLASSES[:10]
    assert data.labels.dtype == np.int64
    assert (data.labels[30:] == -1).all()
    assert set(data.labels[:30]) == set(range(10))


@pytest.mark.parametrize("index", [0, 12, 29, 30, 59])
def test_samples_are_the_scenes(index: int):
    data = Scenes(("train", "unlabelled"), size=30, side=32, classes=10)
    sample = data[index]
    scene = render("train" if index < 30 else "unlabelled", index % 30, 32, 10)
    assert sample.image.shape == (3, 32, 32)
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), scene.image)
    assert (sample.index, sample.label) == (index, scene.label if index < 30 else -1)


def test_an_unlabelled_set_has_no_classes():
    assert Scenes(("unlabelled",), size=5).classes == ()


@pytest.mark.parametrize("index", [-1, 5])
def test_there_is_nothing_beyond_the_end(index: int):
    with pytest.raises(IndexError):
        Scenes(("train",), size=5)[index]


def test_the_digest_follows_what_can_move_a_number(monkeypatch: pytest.MonkeyPatch):
    def digest(splits: tuple[str, ...] = ("train",), size: int = 20, **more: int) -> str:
        return Scenes(splits, size, **more).digest

    digests = [
        digest(), digest(("val",)), digest(("train", "val")), digest(size=21), digest(side=32), digest(classes=10),
    ]  # fmt: skip
    assert digest(("val", "train")) == digest(("train", "val"))
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    digests.append(digest())
    assert len(set(digests)) == 7
    assert all(len(d) == 16 and int(d, 16) >= 0 for d in digests)


@pytest.mark.parametrize(
    ("splits", "more", "message"),
    [
        ((), {}, "splits"),
        (("train", "train"), {}, "train, train"),
        (("../up",), {}, "../up"),
        (("train",), {"size": 0}, "size 0"),
        (("train",), {"size": 10**7}, "size 10000000"),
        (("train",), {"side": 8}, "side 8"),
        (("train",), {"classes": 21}, "classes 21"),
        (("train",), {"classes": 0}, "classes 0"),
    ],
)
def test_bad_arguments_are_one_clear_line(splits: tuple[str, ...], more: dict[str, int], message: str):
    with pytest.raises(BenchError, match=message) as error:
        Scenes(splits, **{"size": 10, **more})
    assert "\n" not in str(error.value)


# The cache


def cached(folder: Path, size: int = 12) -> Scenes:
    return Scenes(("train", "unlabelled"), size, side=32, classes=10, cache=folder)


def pixels(data: Scenes) -> bytes:
    return b"".join(data[index].image.numpy().tobytes() for index in range(len(data)))


def test_the_cache_changes_nothing_and_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = pixels(Scenes(("train", "unlabelled"), 12, side=32, classes=10))
    assert pixels(cached(tmp_path)) == plain
    monkeypatch.setattr(scenes, "render", None)
    again = cached(tmp_path)
    assert pixels(again) == plain
    assert (again[3].label, again[20].label) == (int(labels_of("train", 12, 10)[3]), -1)
    again[0].image.zero_()
    assert pixels(cached(tmp_path)) == plain


def test_other_sets_have_other_files(tmp_path: Path):
    first, second = cached(tmp_path, 5), cached(tmp_path, 6)
    pixels(first), pixels(second)
    assert len(list(tmp_path.iterdir())) == 2
    assert not list((tmp_path / "none").parent.glob("*.tmp"))


def test_opening_a_cached_set_makes_no_file(tmp_path: Path):
    cached(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_image_is_drawn_again(tmp_path: Path):
    plain = pixels(cached(tmp_path))
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content[:-700])
    assert pixels(cached(tmp_path)) == plain
    assert len(file.read_bytes()) == len(content)


def test_a_cached_set_goes_to_other_processes(tmp_path: Path):
    torch_data = pytest.importorskip("torch.utils.data")
    data = cached(tmp_path)
    first = data[0].image
    copy = pickle.loads(pickle.dumps(data))
    assert (copy[0].image == first).all()
    loader = torch_data.DataLoader(data, batch_size=4, num_workers=2, collate_fn=lambda batch: batch)
    images = [sample.image.numpy().tobytes() for batch in loader for sample in batch]
    assert b"".join(images) == pixels(Scenes(("train", "unlabelled"), 12, side=32, classes=10))


FILL = """
from pathlib import Path
from bench.data.scenes import Scenes
data = Scenes(("train",), {size}, side=32, cache=Path({folder!r}))
while True:
    for index in range(len(data)): data[index]
    if {once}: break
"""


def test_processes_fill_one_cache_at_once_and_may_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def start(once: bool) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", FILL.format(size=150, folder=str(tmp_path), once=once)])

    killed, other = start(once=False), start(once=True)
    plain = pixels(Scenes(("train",), 150, side=32))
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    assert pixels(Scenes(("train",), 150, side=32, cache=tmp_path)) == plain
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert other.wait(60) == 0
    monkeypatch.setattr(scenes, "render", None)
    assert pixels(Scenes(("train",), 150, side=32, cache=tmp_path)) == plain


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot write"):
        cached(tmp_path / "file")[0]


# Writing


def test_image_folder(tmp_path: Path):
    torchvision = pytest.importorskip("torchvision.datasets")
    root = tmp_path / "scenes"
    root.mkdir()
    scenes.write_image_folder(root, ("train", "unlabelled"), size=25, side=32, classes=5)
    folder = torchvision.ImageFolder(root / "train")
    assert tuple(folder.classes) == CLASSES[:5]
    assert len(folder) == 25
    for path, label in folder.samples:
        scene = render("train", int(Path(path).stem), 32, 5)
        assert label == scene.label
        assert np.array_equal(np.asarray(Image.open(path)), scene.image)
    assert len(list((root / "unlabelled").glob("*.png"))) == 25
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenes"]


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc") / "kit"
    scenes.write_voc_devkit(root, train=40, test=20, side=96)
    return root


def listed(devkit: Path, name: str) -> list[str]:
    return (devkit / "VOCdevkit/VOC2007/ImageSets/Main" / f"{name}.txt").read_text().splitlines()


def test_voc_devkit_loads_as_detection(devkit: Path):
    torchvision = pytest.importorskip("torchvision.datasets")
    for split, count, stream in (("trainval", 40, "trainval"), ("test", 20, "test")):
        data = torchvision.VOCDetection(devkit, year="2007", image_set=split)
        assert len(data) == count
        seen = set()
        for index, (image, target) in enumerate(data):
            annotation = target["annotation"]
            scene = render(stream, index, 96)
            assert np.abs(np.asarray(image).astype(int) - scene.image).mean() < 4
            size = annotation["size"]
            assert (size["width"], size["height"], size["depth"]) == ("96", "96", "3")
            for thing, box in zip(annotation["object"], scene.boxes, strict=True):
                corners = [int(thing["bndbox"][corner]) for corner in ("xmin", "ymin", "xmax", "ymax")]
                assert corners == [value + 1 for value in box[1:]]
                assert min(corners) >= 1
                assert max(corners) <= 96
                assert thing["name"] == CLASSES[box.label]
                assert {thing["difficult"], thing["truncated"], thing["occluded"]} <= {"0", "1"}
            seen.add(annotation["object"][0]["name"])
        assert seen == set(CLASSES)


def test_voc_devkit_loads_as_segmentation(devkit: Path):
    torchvision = pytest.importorskip("torchvision.datasets")
    data = torchvision.VOCSegmentation(devkit, year="2007", image_set="val")
    assert len(data) == 20
    for index, (_, target) in enumerate(data, 20):
        scene = render("trainval", index, 96)
        mask = np.asarray(target)
        assert target.mode == "P"
        assert target.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert target.getpalette()[255 * 3 :] == [224, 224, 192]
        inside = mask != 255
        assert np.array_equal(mask[inside], scene.mask[inside])
        assert 0 < np.mean(~inside) < 0.25
        edge = scene.instances[:, 1:] != scene.instances[:, :-1]
        assert (mask[:, 1:][edge] == 255).all()
        assert scene.label + 1 in mask


def test_voc_instances_and_sets(devkit: Path):
    root = devkit / "VOCdevkit/VOC2007"
    train, val, trainval, test = (listed(devkit, split) for split in ("train", "val", "trainval", "test"))
    assert train + val == trainval
    assert not set(trainval) & set(test)
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject"):
        assert sorted(path.stem for path in (root / name).iterdir()) == sorted(trainval + test)
    for split in ("train", "val", "trainval", "test"):
        assert (root / f"ImageSets/Segmentation/{split}.txt").read_text().split() == listed(devkit, split)
    for name in test:
        objects = np.asarray(Image.open(root / f"SegmentationObject/{name}.png"))
        boxes = ElementTree.parse(root / f"Annotations/{name}.xml").findall("object")
        assert objects[objects < 255].max() <= len(boxes)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_voc_class_lists_agree_with_the_annotations(devkit: Path, split: str):
    for class_name in CLASSES:
        marks = {line.split()[0]: int(line.split()[1]) for line in listed(devkit, f"{class_name}_{split}")}
        assert list(marks) == listed(devkit, split)
        assert 1 in marks.values()
        for name, mark in marks.items():
            tree = ElementTree.parse(devkit / f"VOCdevkit/VOC2007/Annotations/{name}.xml")
            flags = [o.findtext("difficult") for o in tree.findall("object") if o.findtext("name") == class_name]
            assert mark == (-1 if not flags else 1 if "0" in flags else 0)


@pytest.mark.parametrize("train", [41, 50, 70])
def test_train_and_val_both_show_every_class(tmp_path: Path, train: int):
    scenes.write_voc_devkit(tmp_path / "kit", train=train, test=20, side=16)
    labels = labels_of("trainval", train)
    for split in ("train", "val"):
        assert {int(labels[int(name) - 1]) for name in listed(tmp_path / "kit", split)} == set(range(20))


@pytest.mark.parametrize("write", [
    lambda folder: scenes.write_image_folder(folder, ("train",), 4, 16, 2),
    lambda folder: scenes.write_voc_devkit(folder, 20, 20, 16),
])  # fmt: skip
def test_writers_refuse_what_is_there_and_leave_nothing_half(tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("keep")
    for folder in (taken, taken / "mine.txt"):
        with pytest.raises(BenchError, match="already"):
            write(folder)
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]

    drawn = iter(range(3))
    whole = scenes.render
    monkeypatch.setattr(scenes, "render", lambda *a, **k: whole(*a, **k) if next(drawn) < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(BenchError, match="No space left"):
        scenes.write_image_folder(tmp_path / "new", ("train",), 4, 16, 2)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BenchError, match="No space left"):
        cached(tmp_path)[0]


@pytest.mark.parametrize(("train", "test"), [(19, 20), (20, 5), (0, 20)])
def test_too_few_images_for_all_classes(tmp_path: Path, train: int, test: int):
    with pytest.raises(BenchError):
        scenes.write_voc_devkit(tmp_path / "kit", train, test)
    with pytest.raises(BenchError, match="all 20 classes"):
        scenes.write_image_folder(tmp_path / "folder", ("train",), 19)
    assert not list(tmp_path.iterdir())
