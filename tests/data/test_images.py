"""Image files: decoding, labels, corrupt files, digests, subsets."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.base import Dataset
from bench.data.images import CorruptImageError, check_images, open_images, read_image, subset
from bench.errors import BenchError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def picture(path, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).convert(mode).save(path, **options)
    return path


def as_array(image):
    return image.permute(1, 2, 0).numpy()


@pytest.fixture
def folder(tmp_path):
    """Two classes in train, one of them in val, three images unlabelled."""
    data = tmp_path / "toy"
    for name in ("train/ant/1.png", "train/ant/2.jpg", "train/bee/1.png", "val/bee/9.png"):
        picture(data / name)
    for name in ("x.png", "y.png", "z.png"):
        picture(data / "unlabelled" / name)
    return data


class TestDecoding:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_lossless_formats_keep_every_pixel(self, tmp_path, suffix, mode):
        options = {"lossless": True} if suffix == "webp" else {}
        image = read_image(str(picture(tmp_path / f"a.{suffix}", mode, **options)))
        assert image.dtype == torch.uint8
        assert image.shape == (3, 7, 9)
        assert np.array_equal(as_array(image), np.asarray(Image.fromarray(PIXELS).convert(mode).convert("RGB")))

    @pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "1"])
    def test_palettes_and_transparency_become_rgb(self, tmp_path, mode):
        path = picture(tmp_path / "a.png", mode)
        assert np.array_equal(as_array(read_image(str(path))), np.asarray(Image.open(path).convert("RGB")))

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_jpeg_is_what_pillow_reads(self, tmp_path, mode, progressive):
        path = picture(tmp_path / "a.jpg", mode, progressive=progressive)
        assert np.array_equal(as_array(read_image(str(path))), np.asarray(Image.open(path).convert("RGB")))

    def test_sixteen_bits_keep_the_upper_eight(self, tmp_path):
        grey = np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16)
        Image.fromarray(grey).save(tmp_path / "a.png")
        assert read_image(str(tmp_path / "a.png"))[:, 0].tolist() == [[0, 0, 1, 0x12, 0xFF]] * 3

    def test_thirty_two_bits_are_refused(self, tmp_path):
        Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(CorruptImageError, match="32 bits a channel"):
            read_image(str(tmp_path / "a.tif"))

    def test_the_content_decides_not_the_suffix(self, tmp_path):
        """As ImageNet's n02105855_2933.JPEG, which is a PNG."""
        picture(tmp_path / "a.png").rename(tmp_path / "a.JPEG")
        assert np.array_equal(as_array(read_image(str(tmp_path / "a.JPEG"))), PIXELS)

    def test_orientation_is_not_applied(self, tmp_path):
        turned = Image.Exif()
        turned[0x0112] = 6
        plain, tagged = picture(tmp_path / "a.jpg"), picture(tmp_path / "b.jpg", exif=turned)
        assert torch.equal(read_image(str(plain)), read_image(str(tagged)))

    def test_every_call_gives_the_same_bits(self, tmp_path):
        path = str(picture(tmp_path / "a.jpg"))
        assert torch.equal(read_image(path), read_image(path))


class TestCorruptFiles:
    def damage(self, tmp_path, kind):
        jpeg = picture(tmp_path / "good.jpg").read_bytes()
        png = bytearray(picture(tmp_path / "good.png").read_bytes())
        png[len(png) // 2] ^= 255
        contents = {
            "truncated": jpeg[: len(jpeg) // 2],
            "without its end": jpeg[:-2],
            "empty": b"",
            "a web page": b"<html>404</html>",
            "a jpeg's first bytes": b"\xff\xd8\xff",
            "a damaged png": bytes(png),
        }
        path = tmp_path / "bad.jpg"
        path.write_bytes(contents[kind])
        return str(path)

    @pytest.mark.parametrize(
        "kind", ["truncated", "without its end", "empty", "a web page", "a jpeg's first bytes", "a damaged png"]
    )
    def test_one_line_names_the_file(self, tmp_path, kind):
        path = self.damage(tmp_path, kind)
        with pytest.raises(CorruptImageError) as caught:
            read_image(path)
        line = str(caught.value)
        assert path in line
        assert "skip_corrupt" in line
        assert "0x" not in line  # no addresses: the line is the same every time
        assert "\n" not in line

    def test_it_survives_a_process_boundary(self):
        error = pickle.loads(pickle.dumps(CorruptImageError("an empty file", "a.jpg")))
        assert type(error) is CorruptImageError
        assert str(error) == str(CorruptImageError("an empty file", "a.jpg"))

    def test_a_file_that_is_gone_is_not_called_corrupt(self, folder, tmp_path):
        data = open_images("toy", folder, ("val",), tmp_path / "cache")
        (folder / "val/bee/9.png").unlink()
        with pytest.raises(BenchError, match="cannot read the image: No such file") as caught:
            data[0]
        assert not isinstance(caught.value, CorruptImageError)
        with pytest.raises(BenchError, match="cannot read"):
            check_images(data)

    def test_refused_when_it_is_met(self, folder, tmp_path):
        (folder / "train/ant/2.jpg").write_bytes(b"")
        data = open_images("toy", folder, ("train",), tmp_path / "cache")
        assert data[0].image.shape == (3, 7, 9)
        with pytest.raises(CorruptImageError, match=r"corrupt image: an empty file .*train/ant/2\.jpg"):
            data[1]
        for workers in (0, 1, 3):
            assert check_images(data, workers) == [("train/ant/2.jpg", "an empty file")]

    def test_left_out_counted_and_named_when_asked(self, folder, tmp_path):
        whole = open_images("toy", folder, ("train",), tmp_path / "cache")
        (folder / "train/ant/1.png").write_bytes(b"junk")
        with pytest.warns(
            UserWarning, match=r"1 of 3 images are corrupt and left out: train/ant/1.png \(not an image\)"
        ):
            data = open_images("toy", folder, ("train",), tmp_path / "fresh", skip_corrupt=True)
        assert data.ids == ["train/ant/2.jpg", "train/bee/1.png"]
        assert data.labels.tolist() == [0, 1]
        assert [data[i].label for i in range(2)] == [0, 1]
        assert data.digest != whole.digest
        (folder / "train/ant/1.png").unlink()
        assert data.digest == open_images("toy", folder, ("train",), tmp_path / "cache").digest

    def test_the_check_is_done_once(self, folder, tmp_path, monkeypatch):
        (folder / "train/ant/1.png").write_bytes(b"junk")
        with pytest.warns(UserWarning, match="left out"):
            open_images("toy", folder, ("train",), tmp_path / "cache", skip_corrupt=True)
        monkeypatch.setattr("bench.data.images.check_images", lambda *_: pytest.fail("checked twice"))
        with pytest.warns(UserWarning, match="left out"):
            assert len(open_images("toy", folder, ("train",), tmp_path / "cache", skip_corrupt=True)) == 2

    def test_nothing_is_said_where_all_is_well(self, folder, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = open_images("toy", folder, ("train",), tmp_path / "cache", skip_corrupt=True)
        assert data.digest == open_images("toy", folder, ("train",), tmp_path / "cache").digest

    def test_a_long_list_is_counted(self, tmp_path):
        for i in range(8):
            (tmp_path / "toy/train").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"toy/train/{i}.jpg").write_bytes(b"junk" * i)
        with pytest.raises(BenchError, match="none of the 8 images"):
            open_images("toy", tmp_path / "toy", ("train",), tmp_path / "cache", skip_corrupt=True)
        picture(tmp_path / "toy/train/9.png")
        with pytest.warns(UserWarning, match=r"8 of 9 images .* and 3 more"):
            open_images("toy", tmp_path / "toy", ("train",), tmp_path / "cache", skip_corrupt=True)


class TestDataSet:
    def test_labelled(self, folder, tmp_path):
        data = open_images("toy", folder, ("train",), tmp_path / "cache")
        assert isinstance(data, Dataset)
        assert data.name == "toy/train"
        assert data.ids == ["train/ant/1.png", "train/ant/2.jpg", "train/bee/1.png"]
        assert data.classes == ("ant", "bee")
        assert data.labels.dtype == np.int64
        assert data.labels.tolist() == [0, 0, 1]
        sample = data[2]
        assert (sample.index, sample.label, sample.clip) == (2, 1, None)
        assert np.array_equal(as_array(sample.image), PIXELS)

    def test_a_mixture(self, folder, tmp_path):
        data = open_images("my-data", folder, ("unlabelled", "train"), tmp_path / "cache")
        assert data.name == "my-data/unlabelled+train"
        assert data.ids == sorted(data.ids)
        assert data.labels.tolist() == [0, 0, 1, -1, -1, -1]
        assert data[4].label == -1
        assert data.classes == ("ant", "bee")

    def test_unlabelled(self, folder, tmp_path):
        data = open_images("toy", folder, ("unlabelled",), tmp_path / "cache")
        assert data.classes == ()
        assert data.labels.tolist() == [-1] * 3

    def test_train_fixes_the_labels_of_every_split(self, folder, tmp_path):
        """val lacks a class: alone, its bee would be 0."""
        assert open_images("toy", folder, ("val",), tmp_path / "cache").labels.tolist() == [1]
        picture(folder / "val/asp/1.png")
        with pytest.raises(BenchError, match="class folder 'asp' of 'val' is not in 'train'"):
            open_images("toy", folder, ("val",), tmp_path / "cache")

    def test_without_train_the_union_does(self, folder, tmp_path):
        (folder / "train").rename(folder / "first")
        picture(folder / "val/asp/1.png")
        data = open_images("toy", folder, ("first", "val"), tmp_path / "cache")
        assert data.classes == ("ant", "asp", "bee")
        assert data.labels.tolist() == [0, 0, 2, 1, 2]

    def test_readable_class_names(self, folder, tmp_path):
        (folder / "classes.tsv").write_text("ant\tArmy ant\nzebra\tZebra\n")
        assert open_images("toy", folder, ("train",), tmp_path / "cache").classes == ("Army ant", "bee")

    def test_the_digest_follows_the_data_and_not_the_place(self, folder, tmp_path):
        def digest():
            return open_images("toy", folder, ("train",), tmp_path / "cache").digest

        before = digest()
        assert len(before) == 16
        assert digest() == before
        moved = folder.parent / "elsewhere" / "toy"
        moved.parent.mkdir()
        folder.rename(moved)
        assert open_images("toy", moved, ("train",), tmp_path / "cache").digest == before
        moved.rename(folder)
        picture(folder / "train/bee/2.png")
        assert digest() != before
        (folder / "train/bee/2.png").unlink()
        assert digest() == before
        (folder / "train/bee/1.png").unlink()
        (folder / "train/bee/1.png").write_bytes(b"another size")
        assert digest() != before
        assert open_images("other", folder, ("train",), tmp_path / "cache").digest != digest()


class TestSubset:
    def test_it_is_a_data_set_of_its_own(self, folder, tmp_path):
        data = open_images("toy", folder, ("train", "unlabelled"), tmp_path / "cache")
        part = subset(data, [5, 0, 2])
        assert isinstance(part, Dataset)
        assert part.ids == ["train/ant/1.png", "train/bee/1.png", "unlabelled/z.png"]
        assert part.labels.tolist() == [0, 1, -1]
        assert part.classes == data.classes
        assert len(part) == 3
        assert part.name == f"{data.name}[3]"
        sample = part[1]
        assert (sample.index, sample.label) == (1, 1)
        assert torch.equal(sample.image, data[2].image)

    def test_the_digest_is_of_the_data_and_the_choice(self, folder, tmp_path):
        data = open_images("toy", folder, ("train", "unlabelled"), tmp_path / "cache")
        digests = {data.digest, subset(data, [0, 1]).digest, subset(data, [0, 2]).digest, subset(data, [0]).digest}
        assert len(digests) == 4
        assert subset(data, np.array([1, 0])).digest == subset(data, [0, 1]).digest

    def test_subsets_nest(self, folder, tmp_path):
        data = open_images("toy", folder, ("train", "unlabelled"), tmp_path / "cache")
        inner = subset(subset(data, [1, 3, 5]), [0, 2])
        assert inner.ids == [data.ids[1], data.ids[5]]
        assert inner[1].index == 1
        assert inner[1].label == -1

    def test_out_of_range_is_an_error(self, folder, tmp_path):
        data = open_images("toy", folder, ("val",), tmp_path / "cache")
        with pytest.raises(IndexError):
            subset(data, [0, 1])
        assert len(subset(data, [])) == 0


def test_real_images(bench_data, tmp_path):
    data = open_images("toy", bench_data / "tiny-imagenet-50", ("train", "unlabelled"), tmp_path)
    assert len(data) == 20_000
    assert np.bincount(data.labels + 1).tolist() == [10_000, *[200] * 50]
    assert data.classes[0] == "goldfish"
    assert {data[i].image.shape for i in range(0, 20_000, 400)} == {(3, 64, 64)}
