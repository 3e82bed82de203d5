"""Geometry on single uint8 images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from bench.data import transforms
from bench.errors import BenchError


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def noise(height, width, seed=0):
    return torch.from_numpy(generator(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def ramp(height, width):
    """Every pixel tells where it was: channel 0 its row, channel 1 its column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)


class Fixed:
    """A generator whose ``random`` gives these numbers."""

    def __init__(self, *numbers):
        self.numbers = iter(numbers)

    def random(self):
        return next(self.numbers)


class TestResize:
    @pytest.mark.parametrize(
        ("kernel", "pillow", "tolerance"),
        [("bilinear", Image.BILINEAR, 1), ("bicubic", Image.BICUBIC, 2), ("nearest", Image.NEAREST, 0)],
    )
    @pytest.mark.parametrize("size", [(20, 31), (64, 48), (101, 90)])
    def test_as_pillow(self, kernel, pillow, tolerance, size):
        image = noise(51, 61)  # odd: no centre of a pixel falls between two
        expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], pillow))
        resized = transforms.resize(image, size, kernel)
        assert resized.dtype == torch.uint8
        assert np.abs(resized.permute(1, 2, 0).numpy().astype(int) - expected).max() <= tolerance

    def test_without_antialiasing_as_opencv(self):
        cv2 = pytest.importorskip("cv2")
        image = noise(50, 60)
        expected = cv2.resize(image.permute(1, 2, 0).numpy(), (31, 20), interpolation=cv2.INTER_LINEAR)
        resized = transforms.resize(image, (20, 31), antialias=False)
        assert np.abs(resized.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1

    def test_kernel_and_antialiasing_matter(self):
        image = noise(50, 60)
        outcomes = [transforms.resize(image, (20, 31), k, a) for k in ("bilinear", "bicubic") for a in (True, False)]
        assert len({o.numpy().tobytes() for o in outcomes}) == 4
        assert torch.equal(transforms.resize(image, (20, 31)), outcomes[0])
        nearest = [transforms.resize(image, (20, 31), "nearest", a) for a in (True, False)]
        assert torch.equal(*nearest)

    def test_the_memory_layout_does_not(self):
        image = noise(50, 60)
        decoded = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        assert torch.equal(transforms.resize(image, (20, 31)), transforms.resize(decoded, (20, 31)))

    def test_the_same_size_costs_nothing(self):
        image = noise(20, 31)
        assert transforms.resize(image, (20, 31)) is image
        assert transforms.resize_short(image, 20) is image

    def test_an_unknown_kernel(self):
        with pytest.raises(BenchError, match=r"unknown resize kernel 'bilnear': did you mean bilinear"):
            transforms.resize(noise(4, 4), (4, 4), "bilnear")

    @pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (64, 64), (99, 333), (256, 300)])
    def test_the_short_side(self, height, width):
        image = noise(height, width)
        resized = transforms.resize_short(image, 73)
        assert resized.shape == v2.Resize(73)(image).shape
        assert min(resized.shape[1:]) == 73


class TestCrops:
    @pytest.mark.parametrize(
        ("height", "width", "top", "left"), [(10, 12, 3, 4), (11, 12, 3, 4), (5, 4, 0, 0), (4, 5, 0, 0), (4, 7, 0, 1)]
    )
    def test_the_centre(self, height, width, top, left):
        crop = transforms.center_crop(ramp(height, width), 4)
        assert crop.shape == (3, 4, 4)
        assert crop[:2, 0, 0].tolist() == [top, left]

    def test_every_position_is_equally_likely(self):
        image, draws = ramp(6, 7), generator()
        corners = [tuple(transforms.random_crop(image, 4, draws)[:2, 0, 0].tolist()) for _ in range(6000)]
        counts = [corners.count((top, left)) for top in range(3) for left in range(4)]
        assert sum(counts) == 6000
        assert all(abs(count - 500) < 100 for count in counts)  # 4.7 standard deviations

    def test_the_last_position_is_reached_and_not_passed(self):
        nearly_one = np.nextafter(1, 0)
        crop = transforms.random_crop(ramp(6, 7), 4, Fixed(nearly_one, nearly_one))
        assert crop[:2, -1, -1].tolist() == [5, 6]
        assert crop.shape == (3, 4, 4)

    def test_crops_are_views(self):
        image = noise(8, 8)
        for crop in (transforms.center_crop(image, 4), transforms.random_crop(image, 4, generator())):
            assert crop.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()

    @pytest.mark.parametrize("crop", [transforms.center_crop, lambda i, s: transforms.random_crop(i, s, generator())])
    def test_too_small_an_image(self, crop):
        with pytest.raises(BenchError, match="a crop of 8 x 8 does not fit an image of 7 x 20"):
            crop(noise(7, 20), 8)

    def test_flip(self):
        image = noise(4, 5)
        assert transforms.flip(image, Fixed(0.5)) is image
        assert torch.equal(transforms.flip(image, Fixed(0.49)), image.flip(2))
        draws = generator()
        flipped = sum(transforms.flip(image, draws) is not image for _ in range(2000))
        assert abs(flipped - 1000) < 100

    @pytest.mark.parametrize(("crop", "short"), [(224, 256), (56, 64), (28, 32), (1, 1)])
    def test_the_short_side_ahead_of_a_crop(self, crop, short):
        assert transforms.short_side(crop) == short

    def test_a_mirrored_crop_is_of_the_image_at_that_short_side(self):
        image = ramp(64, 96)
        assert torch.equal(transforms.mirrored_crop(image, 56, Fixed(0.5, 0.999, 0.9)), image[:, 4:60, 40:96])
        assert torch.equal(transforms.mirrored_crop(image, 56, Fixed(0, 0, 0.1)), image[:, :56, :56].flip(2))
        large = transforms.mirrored_crop(noise(128, 192), 56, Fixed(0, 0, 0.9))
        assert torch.equal(large, transforms.resize(noise(128, 192), (64, 96))[:, :56, :56])


class TestRandomResizedCrop:
    def test_the_whole_image_when_scale_and_ratio_say_so(self):
        image = noise(40, 40)
        crop = transforms.random_resized_crop(image, 20, generator(), scale=(1, 1), ratio=(1, 1))
        assert torch.equal(crop, transforms.resize(image, (20, 20)))

    def test_kernel_and_antialiasing_are_handed_on(self):
        image = noise(40, 40)
        for kernel, antialias in (("bicubic", True), ("bilinear", False)):
            crop = transforms.random_resized_crop(image, 20, generator(), (1, 1), (1, 1), kernel, antialias)
            assert torch.equal(crop, transforms.resize(image, (20, 20), kernel, antialias))

    @given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32))
    @settings(max_examples=200)
    def test_rectangles_lie_within_the_image(self, height, width, seed):
        top, left, h, w = transforms._rectangle(height, width, generator(seed), (0.08, 1.0), (3 / 4, 4 / 3))
        assert 0 <= top <= top + h <= height
        assert 0 <= left <= left + w <= width
        assert h > 0
        assert w > 0

    def test_area_and_shape_are_distributed_as_torchvisions(self):
        draws, image = generator(), torch.empty(3, 375, 500)
        ours = np.array([transforms._rectangle(375, 500, draws, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)])
        torch.manual_seed(0)
        theirs = np.array(
            [v2.RandomResizedCrop(8).make_params([image]) for _ in range(3000)],
        )
        theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in theirs])
        for name, of in {"area": lambda r: r[:, 2] * r[:, 3], "shape": lambda r: np.log(r[:, 3] / r[:, 2])}.items():
            mine, other = of(ours), of(theirs)
            error = np.hypot(mine.std(), other.std()) / np.sqrt(3000)
            assert abs(mine.mean() - other.mean()) < 4 * error, name
            assert abs(mine.std() / other.std() - 1) < 0.07, name

    @pytest.mark.parametrize(
        ("height", "width", "expected"),
        [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10)), (30, 30, (0, 0, 30, 30))],
    )
    def test_the_way_out_is_torchvisions(self, height, width, expected):
        """No rectangle of twice the image's area fits: the largest central one within the ratios."""
        found = transforms._rectangle(height, width, generator(), (2, 2), (3 / 4, 4 / 3))
        assert found == expected
        theirs = v2.RandomResizedCrop(8, scale=(2, 2)).make_params([torch.empty(3, height, width)])
        assert found == (theirs["top"], theirs["left"], theirs["height"], theirs["width"])
