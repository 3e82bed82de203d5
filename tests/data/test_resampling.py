"""Resizing as a matrix, held against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.resampling import KERNELS, matrix
from bench.errors import BenchError

PILLOW = {"box": "BOX", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("size", "to"), [(56, 28), (16, 5), (16, 15), (5, 16), (113, 64)])
def test_it_resizes_as_pillow_does(kernel, size, to):
    image = np.random.default_rng(0).random((size, size), dtype=np.float32)
    filtered = Image.fromarray(image).resize((to, to), getattr(Image.Resampling, PILLOW[kernel]))
    a = matrix(size, to, kernel)
    ours = a @ torch.from_numpy(image) @ a.T
    np.testing.assert_allclose(ours.numpy(), np.asarray(filtered), atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_constants_stay_and_the_same_size_changes_nothing(kernel):
    assert torch.allclose(matrix(31, 12, kernel).sum(1), torch.ones(12))
    torch.testing.assert_close(matrix(16, 16, kernel), torch.eye(16), atol=1e-6, rtol=0)


def test_halving_by_box_is_the_mean_of_two():
    assert matrix(4, 2, "box").tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


def test_an_unknown_kernel_is_refused():
    with pytest.raises(BenchError, match="bilinear"):
        matrix(4, 2, "bilinaer")
