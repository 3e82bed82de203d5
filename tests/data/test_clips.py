"""Clips from files, and generated ones: which frames a sample holds, and what is wrong in one line."""

import hashlib
import pickle

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import catalog, moving, scenes_motion
from bench.data.base import Dataset
from bench.data.clips import CorruptClipError, open_clips
from bench.data.images import CorruptImageError
from bench.data.loader import Loader
from bench.data.moving import Moving, compose
from bench.data.scenes import Scenes, render
from bench.data.scenes_motion import MOBILE, MovingScenes, film
from bench.errors import BenchError

GOLDEN = "fd24dbd248697d0d8ef91f8736ea4a687fa89995f0893b303326b3cb4dced9de"
"""sha256 of clips of ``scenes``."""
BRIGHTNESS = [[158.79, 157.95, 157.11], [134.52, 133.76, 133.36], [181.63, 181.89, 181.57], [161.11, 161.61, 162.17]]
"""Means of the frames of four clips of ``moving``."""


def frame(number, side=(24, 32)):
    return np.full((*side, 3), (10 * number, 255 - 10 * number, 40), np.uint8)


def frames_in(folder, count, name="{}.png"):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(frame(number)).save(folder / name.format(number))


def video(path, count, codec="MJPG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (32, 24))
    for number in range(count):
        writer.write(frame(number)[..., ::-1])
    writer.release()


def numbers(clip):
    """The numbers of the frames that a clip holds."""
    return [round(float(red) / 10) for red in clip[:, 0].float().mean((1, 2))]


@pytest.fixture
def opened(tmp_path):
    def make(splits=("train",), **options):
        return open_clips("mine", tmp_path / "mine", splits, tmp_path / "cache", **options)

    return make


class TestFiles:
    def test_folders_of_frames_in_the_order_of_their_numbers(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "b", 12)
        frames_in(tmp_path / "mine" / "train" / "a", 3)
        data = opened(frames=2)
        assert isinstance(data, Dataset)
        assert data.ids == ["train/a#000", "train/b#000"]
        assert (data.name, data.classes, data.labels.tolist()) == ("mine/train", (), [-1, -1])
        sample = data[1]
        assert (sample.index, sample.label, sample.clip.dtype) == (1, -1, torch.uint8)
        assert sample.clip.shape == (2, 3, 24, 32)
        assert torch.equal(sample.image, sample.clip[0])
        assert numbers(sample.clip) == [5, 6]

    def test_moments_are_evenly_spread_and_never_past_the_end(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "a", 12)
        data = opened(frames=3, step=2, moments=4)
        assert data.ids == [f"train/a#{moment:03d}" for moment in range(4)]
        assert [numbers(data[i].clip) for i in range(4)] == [[1, 3, 5], [3, 5, 7], [5, 7, 9], [7, 9, 11]]

    @pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mp4", "mp4v")])
    def test_videos_give_the_frames_that_folders_do(self, opened, tmp_path, suffix, codec):
        frames_in(tmp_path / "mine" / "frames" / "a", 20)
        video(tmp_path / "mine" / "videos" / f"a.{suffix}", 20, codec)
        ours, theirs = (opened((split,), frames=3, step=3, moments=3) for split in ("videos", "frames"))
        assert ours.ids == [f"videos/a.{suffix}#{moment:03d}" for moment in range(3)]
        for i in range(3):
            assert numbers(ours[i].clip) == numbers(theirs[i].clip)
            assert (ours[i].clip.int() - theirs[i].clip.int()).abs().float().mean() < 5

    def test_videos_in_class_folders_beside_folders_of_frames(self, opened, tmp_path):
        video(tmp_path / "mine" / "train" / "jumping" / "x.avi", 4)
        frames_in(tmp_path / "mine" / "train" / "y", 2)
        frames_in(tmp_path / "mine" / "val" / "z", 2)
        assert opened(("train", "val")).ids == ["train/jumping/x.avi#000", "train/y#000", "val/z#000"]

    def test_the_digest_tells_files_and_options(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "a", 6)
        old = opened().digest
        assert opened().digest == old
        assert len({old, opened(step=2).digest, opened(frames=3).digest, opened(moments=2).digest}) == 4
        frames_in(tmp_path / "mine" / "train" / "b", 6)
        assert opened().digest != old

    def test_pickles_for_the_loader_s_workers(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "a", 6)
        data = pickle.loads(pickle.dumps(opened()))
        with Loader(data, lambda sample, generator: sample.clip, seed=0, batch=1, workers=0) as loader:
            (batch,) = loader.in_order()
        assert batch.views.shape == (1, 2, 3, 24, 32)


class TestWrongFiles:
    def test_too_short(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "a", 3)
        with pytest.raises(CorruptClipError, match="corrupt clip: 3 frames, and a moment spans 4") as error:
            opened(frames=2, step=3)[0]
        assert str(tmp_path / "mine" / "train" / "a") in str(error.value)
        assert pickle.loads(pickle.dumps(error.value)).reason == error.value.reason

    def test_no_video(self, opened, tmp_path):
        video(tmp_path / "mine" / "train" / "a.avi", 6)
        (tmp_path / "mine" / "train" / "b.avi").write_bytes(b"no video at all")
        data = opened()
        assert numbers(data[0].clip) == [2, 3]
        with pytest.raises(CorruptClipError, match=r"corrupt clip: not a video.*b\.avi"):
            data[1]
        (tmp_path / "mine" / "train" / "a.avi").unlink()
        with pytest.raises(BenchError, match="cannot read the video: No such file"):
            data[0]

    def test_a_damaged_frame_is_named(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "a", 2)
        (tmp_path / "mine" / "train" / "a" / "1.png").write_bytes(b"")
        with pytest.raises(CorruptImageError, match=r"corrupt image: an empty file.*1\.png"):
            opened()[0]

    def test_frames_of_two_sizes(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "a", 2)
        Image.fromarray(frame(0, (30, 30))).save(tmp_path / "mine" / "train" / "a" / "1.png")
        with pytest.raises(CorruptClipError, match="its frames differ in size"):
            opened()[0]

    def test_corrupt_clips_can_be_left_out(self, opened, tmp_path):
        for name in "abc":
            frames_in(tmp_path / "mine" / "train" / name, 1 if name == "b" else 3)
        with pytest.warns(UserWarning, match="1 of 3 .* are corrupt and left out: train/b#000"):
            data = opened(skip_corrupt=True)
        assert data.ids == ["train/a#000", "train/c#000"]
        assert numbers(data[1].clip) == [1, 2]
        assert data.digest != opened().digest

    def test_images_that_are_no_clips(self, opened, tmp_path):
        frames_in(tmp_path / "mine" / "train", 2)
        with pytest.raises(BenchError, match=r"images lie where clips should, '0\.png' the first"):
            opened()

    @pytest.mark.parametrize(
        ("option", "value"),
        [("frames", 1), ("frames", "2"), ("step", 0), ("step", 1.5), ("moments", 0), ("moments", 1000)],
    )
    def test_options_out_of_range(self, opened, option, value):
        with pytest.raises(BenchError, match=f"clips of mine cannot have {option} = {value!r}"):
            opened(**{option: value})


class TestCatalog:
    def test_any_folder_by_its_path(self, tmp_path):
        frames_in(tmp_path / "mine" / "train" / "a", 4)
        where = {"root": tmp_path, "cache": tmp_path / "cache"}
        data = catalog.open_dataset(str(tmp_path / "mine"), ("train",), frames=3, **where)
        assert data.name == "mine/train"
        assert data[0].clip.shape[0] == 3
        with pytest.raises(BenchError, match="moment"):
            catalog.open_dataset(str(tmp_path / "mine"), ("train",), frames=3, moment=1, **where)

    def test_what_is_named(self, tmp_path):
        where = {"root": tmp_path, "cache": tmp_path / "cache"}
        with pytest.raises(BenchError, match=r"no 'train' of yfcc-clips.*bench data prepare yfcc-clips"):
            catalog.open_dataset("yfcc-clips", ("train",), **where)
        frames_in(tmp_path / "yfcc-clips" / "train" / "a", 4)
        assert catalog.open_dataset("yfcc-clips", ("train",), moments=2, **where).ids == ["train/a#000", "train/a#001"]
        found = {split.split: split for split in catalog.status(tmp_path, tmp_path / "cache", "yfcc-clips")}
        assert (found["train"].state, found["train"].images, found["heldout"].state) == ("complete", 1, "missing")

    def test_generated_ones(self, tmp_path):
        where = {"root": tmp_path, "cache": tmp_path / "cache"}
        scenes = catalog.open_dataset("scenes", ("train",), size=3, side=32, frames=2, **where)
        over = catalog.open_dataset("moving", ("train",), over="scenes", size=3, side=32, frames=3, **where)
        assert scenes[0].clip.shape == (2, 3, 32, 32)
        assert over[0].clip.shape == (3, 3, 32, 32)
        for over in ({}, {"over": 3}):
            with pytest.raises(BenchError, match="moving needs the option 'over'"):
                catalog.open_dataset("moving", ("train",), **over, **where)
        for name, more in (("scenes", {}), ("moving", {"over": "scenes"})):
            for frames in (1, 2.5, "2"):
                with pytest.raises(BenchError, match=f"clips of {name} cannot have {frames!r} frames"):
                    catalog.open_dataset(name, ("train",), size=3, frames=frames, **more, **where)

    def test_which_motion_is_made_by_a_program(self):
        flagged = [
            name
            for name in ("scenes", "moving", "yfcc-clips", "imagenet", "./mine")
            if catalog.has_synthetic_motion(name)
        ]
        assert flagged == ["scenes", "moving"]


class TestScenes:
    def test_a_clip_starts_with_the_scene_itself(self, tmp_path):
        still, clips = Scenes(("train",), 6, 32), MovingScenes(("train",), 6, 3, 32, cache=tmp_path)
        assert (clips.ids, clips.labels.tolist(), clips.classes) == (still.ids, still.labels.tolist(), still.classes)
        assert clips.digest != still.digest
        for i in range(6):
            assert torch.equal(clips[i].image, still[i].image)
            assert torch.equal(clips[i].clip[0], still[i].image)
            assert torch.equal(clips[i].clip, clips[i].clip), "drawn and then read from the cache"

    def test_what_is_mobile_moves_and_the_rest_does_not(self):
        moved, stood = 0, 0
        for index in range(40):
            first, second = film("train", index, 2)
            for box, later in zip(first.boxes, second.boxes, strict=False):
                away = abs(box.x1 - later.x1) + abs(box.y1 - later.y1)
                if MOBILE[box.label] and len(first.boxes) == len(second.boxes) == 1:
                    moved += away >= 1
                elif not MOBILE[box.label] and len(first.boxes) == 1:
                    stood += away <= 2
                    assert away <= 3
        assert moved >= 5
        assert stood >= 3

    def test_pixels_belong_to_the_version(self):
        pixels = b"".join(scene.image.tobytes() for i in range(20) for scene in film("train", i, 3, 48))
        assert scenes_motion.VERSION == 1
        assert hashlib.sha256(pixels).hexdigest() == GOLDEN, "bump VERSION of scenes_motion, or restore the pixels"

    def test_the_length_does_not_change_the_frames(self):
        short, long = film("val", 7, 2, 32), film("val", 7, 4, 32)
        assert all(np.array_equal(a.image, b.image) for a, b in zip(short, long, strict=False))


class TestMoving:
    def test_keeps_the_photograph_its_id_and_label(self):
        still = Scenes(("train", "unlabelled"), 5, 32)
        data = Moving(still)
        assert isinstance(data, Dataset)
        assert data.name == "moving/train+unlabelled"
        assert (data.ids, data.labels.tolist()) == (still.ids, still.labels.tolist())
        for i in range(len(data)):
            sample = data[i]
            assert torch.equal(sample.image, still[i].image)
            assert (sample.index, sample.label) == (i, still.labels[i])
            assert sample.clip.shape == (2, 3, 32, 32)
            assert not torch.equal(sample.clip[0], sample.image)

    def test_a_function_of_the_photograph_and_its_id(self):
        image = render("train", 0).image
        first, again, other = (compose(image, name, 2)[0] for name in ("a", "a", "b"))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_the_digest_tells_what_lies_under_it_and_the_length(self):
        a, b = Scenes(("train",), 5, 32), Scenes(("train",), 6, 32)
        assert len({Moving(a).digest, Moving(b).digest, Moving(a, 3).digest, a.digest}) == 4
        assert Moving(a).digest == Moving(Scenes(("train",), 5, 32)).digest

    def test_pixels_belong_to_the_version(self):
        clips = [compose(render("train", i).image, f"train/{i:06d}", 3)[0] for i in range(4)]
        assert moving.VERSION == 1
        # not to the bit: processors round an interpolation differently
        assert np.stack(clips).mean((2, 3, 4)) == pytest.approx(np.array(BRIGHTNESS), abs=0.05)

    def test_photographs_of_any_shape(self):
        clip, mobile = compose(np.full((40, 90, 3), 128, np.uint8), "wide", 4)
        assert clip.shape == (4, 40, 90, 3)
        assert mobile.shape == (40, 90)

    def test_most_clips_show_something_mobile_and_some_nothing(self):
        image = render("train", 0).image
        shares = np.array([compose(image, f"{i}", 2)[1].mean() for i in range(80)])
        assert 0.6 < (shares > 0.01).mean() < 0.98
        assert 0.02 < shares.mean() < 0.3
