"""Hue, saturation and value against the standard library, and back."""

import colorsys

import torch

from bench.data.hsv import hsv_to_rgb, rgb_to_hsv


def _colours():
    levels = torch.linspace(0, 1, 6)
    return torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 6, 36)


def test_agrees_with_colorsys():
    rgb = _colours()
    found = rgb_to_hsv(rgb)[0].flatten(1).T
    expected = torch.tensor([colorsys.rgb_to_hsv(*pixel) for pixel in rgb[0].flatten(1).T.tolist()])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_goes_back():
    torch.testing.assert_close(hsv_to_rgb(rgb_to_hsv(_colours())), _colours(), atol=1e-5, rtol=0)


def test_hue_wraps_around():
    hsv = rgb_to_hsv(_colours())
    turned = hsv + torch.tensor([-1.0, 0, 0]).view(1, 3, 1, 1)
    torch.testing.assert_close(hsv_to_rgb(turned), _colours(), atol=1e-5, rtol=0)
