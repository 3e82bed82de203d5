"""DCGAN's parts: shapes at every side in use, a code that is heard, and a loss that is cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.methods._gan import Block, Discriminator, doubling, seems_real, told_apart


def test_the_discriminator_at_64_px_is_dcgans():
    judge = Discriminator(64, 64, kernel=5, codes=200)
    convolutions = [m for m in judge.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256, 512]
    assert judge.last.in_features == 512 * 4 * 4
    assert len([m for m in judge.modules() if isinstance(m, nn.BatchNorm2d)]) == 3, "none after the first"
    assert all(m.bias is None for m in convolutions)


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("side", [14, 16, 28, 32, 56, 64, 112, 115, 128, 224])
def test_every_side_ends_in_one_logit_an_image(side, kernel):
    judge = Discriminator(side, 2, kernel)
    assert judge(torch.rand(3, 3, side, side)).shape == (3,)
    assert judge.last.in_features <= 16 * 7**2


def test_the_width_stops_growing_at_eight_times():
    wide = [m.out_channels for m in Discriminator(224, 4, kernel=4).modules() if isinstance(m, nn.Conv2d)]
    assert wide == [4, 8, 16, 32, 32, 32]


def test_a_code_is_added_at_every_position_ahead_of_batch_norm():
    block = Block(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Identity(), codes=4).eval()
    maps, code = torch.rand(2, 2, 5, 5), torch.rand(2, 4)
    added = block(maps, code) - block(maps, torch.zeros(2, 4))
    expected = block.of_code(code)[..., None, None].expand(-1, -1, 5, 5)
    torch.testing.assert_close(added, expected / math.sqrt(1 + block.norm.eps))
    shifted = block.train()(maps, torch.ones(2, 4))
    torch.testing.assert_close(shifted, block(maps, torch.zeros(2, 4)), atol=1e-4, rtol=1e-4)


def test_weights_start_small_and_those_of_codes_as_strong_as_a_kernel():
    judge = Discriminator(64, 64, kernel=5, codes=200)
    block = judge.blocks[0]
    assert block.convolution.weight.detach().std() == pytest.approx(0.02, rel=0.05)
    assert block.of_code.weight.detach().std() == pytest.approx(0.02 * 25, rel=0.05)
    assert judge.last.weight.detach().std() == pytest.approx(0.02, rel=0.05)
    assert doubling(64, 32).weight.detach().std() == pytest.approx(0.02, rel=0.05)


def test_up_convolutions_double_the_side():
    assert doubling(2, 3)(torch.rand(1, 2, 7, 7)).shape == (1, 3, 14, 14)


def test_told_apart_is_the_mean_cross_entropy_of_both_kinds():
    real, made = torch.randn(6), torch.randn(6)
    logits, labels = torch.cat([real, made]), torch.cat([torch.ones(6), torch.zeros(6)])
    torch.testing.assert_close(told_apart(real, made), F.binary_cross_entropy_with_logits(logits, labels))
    assert float(told_apart(torch.zeros(2), torch.zeros(2))) == pytest.approx(math.log(2))
    assert float(seems_real(torch.tensor([30.0]))) == pytest.approx(0, abs=1e-6)
    assert float(told_apart(torch.full((2,), 200.0), torch.full((2,), 200.0))) == pytest.approx(100), "no overflow"
