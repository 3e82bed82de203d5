import pytest
import torch

from bench.data.colour import lab_to_rgb, rgb_to_lab


def pixel(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((1, 1, 0), (97.14, -21.55, 94.48)),
    ],
)
def test_reference_values(rgb, lab):
    found = rgb_to_lab(pixel(*rgb)).flatten()
    assert found.tolist() == pytest.approx(lab, abs=0.02)


def test_greys_are_neutral_and_rise():
    lab = rgb_to_lab(torch.linspace(0, 1, 256).view(1, 1, 1, -1).expand(1, 3, 1, 256))
    assert lab[:, 1:].abs().max() < 1e-3
    assert (lab[0, 0, 0].diff() > 0).all()


def test_dark_colours_are_on_the_straight_line():
    # linear luminance Y = 0.03 / 12.92, below (6/29)^3: L = 903.3 Y
    assert rgb_to_lab(pixel(0.03, 0.03, 0.03))[0, 0].item() == pytest.approx(903.296 * 0.03 / 12.92, abs=1e-3)


def test_round_trip_over_the_whole_cube():
    steps = torch.linspace(0, 1, 18)
    cube = torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 18 * 18, 18)
    assert (lab_to_rgb(rgb_to_lab(cube)) - cube).abs().max() < 2e-5


def test_what_srgb_cannot_show_is_clipped():
    rgb = lab_to_rgb(pixel(50, 127, -127))
    assert rgb.isfinite().all()
    assert 0 <= rgb.min() <= rgb.max() <= 1


def test_batches_pixel_by_pixel_and_stays_float32_under_autocast():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    whole = rgb_to_lab(images)
    assert torch.allclose(whole[1:, :, 2:3, 3:4], rgb_to_lab(images[1:, :, 2:3, 3:4]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rgb_to_lab(images), whole)
