"""What the adversarial tasks share: DCGAN's discriminator, the blocks it is made of, and their loss.

Paper: Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016. Images are (B, 3, s, s) in [-1, 1].
"""

from __future__ import annotations

import itertools
import math

import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
"""Slope of the discriminator's ReLUs below 0."""
STD = 0.02
"""Standard deviation of all weights at the start."""


class Block(nn.Module):
    """Convolution without bias, BatchNorm, activation. A code, where there is one, is added at every position.

    The code (B, ``codes``) goes through a linear layer of its own; the sum is what BatchNorm sees. That layer starts
    with the standard deviation times k * k, so that the code weighs as much as k * k pixels (BiGAN's release).
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module, codes: int = 0) -> None:
        super().__init__()
        channels, (height, width) = convolution.out_channels, convolution.kernel_size
        self.convolution, self.norm, self.activation = convolution, nn.BatchNorm2d(channels), activation
        self.of_code = nn.Linear(codes, channels, bias=False) if codes else None
        if self.of_code is not None:
            nn.init.normal_(self.of_code.weight, std=STD * height * width)

    def forward(self, maps: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, C, h, w) and perhaps (B, ``codes``) -> (B, C', h', w')."""
        maps = self.convolution(maps)
        if self.of_code is not None:
            maps = maps + self.of_code(code)[..., None, None]
        return self.activation(self.norm(maps))


class Discriminator(nn.Module):
    """Images (B, 3, ``side``, ``side``), perhaps with codes (B, ``codes``) -> how real each seems, logits (B,).

    Convolutions of stride 2 down to about 4 pixels, leaky ReLUs, BatchNorm but after the first, then one linear
    layer. At 64 px: ``width``, 2, 4 and 8 times ``width`` channels. Codes enter from the second convolution on.
    """

    def __init__(self, side: int, width: int, kernel: int, codes: int = 0) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(side / 4)))
        widths = [width * min(8, 2**i) for i in range(halvings)]
        self.first = nn.Sequential(_halving(3, width, kernel), nn.LeakyReLU(LEAK, inplace=True))
        self.blocks = nn.ModuleList(
            Block(_halving(narrow, wide, kernel), nn.LeakyReLU(LEAK, inplace=True), codes)
            for narrow, wide in itertools.pairwise(widths)
        )
        for _ in range(halvings):
            side = (side + 2 * ((kernel - 1) // 2) - kernel) // 2 + 1
        self.last = nn.Linear(widths[-1] * side**2, 1, bias=False)
        nn.init.normal_(self.last.weight, std=STD)

    def forward(self, images: Tensor, code: Tensor | None = None) -> Tensor:
        """Logits: above 0, the image is thought real."""
        maps = self.first(images)
        for block in self.blocks:
            maps = block(maps, code)
        return self.last(maps.flatten(1)).squeeze(1).float()


def told_apart(real: Tensor, made: Tensor) -> Tensor:
    """The mean cross-entropy of logits (B,) that should be above 0 for ``real`` and below 0 for ``made``."""
    return (seems_real(real) + F.softplus(made).mean()) / 2


def seems_real(logits: Tensor) -> Tensor:
    """The mean cross-entropy of logits (B,) that should be above 0."""
    return F.softplus(-logits).mean()


def doubling(channels: int, out: int) -> nn.ConvTranspose2d:
    """5 x 5 up-convolution without bias: twice the height and width."""
    layer = nn.ConvTranspose2d(channels, out, 5, 2, 2, output_padding=1, bias=False)
    nn.init.normal_(layer.weight, std=STD)
    return layer


def _halving(channels: int, out: int, kernel: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, kernel, 2, (kernel - 1) // 2, bias=False)
    nn.init.normal_(layer.weight, std=STD)
    return layer
