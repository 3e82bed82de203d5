"""BiGAN: a generative adversarial network that also learns the way back, from images to codes.

A generator turns codes into images, an encoder (the backbone) turns images into codes, and a discriminator sees pairs
of an image and a code and says which of the two was given. Generator and encoder can only fool it together by
inverting each other, so the encoder learns what the generator needs to know of an image.

Paper: Donahue, Krähenbühl, Darrell, "Adversarial Feature Learning", ICLR 2017, sections 3 and 4; figures from the
authors' released code, ``train_gan.py`` and ``train_imagenet_highres_encoder.sh`` ("generalized" BiGAN: the encoder
sees more pixels than the generator draws).

Shapes: crops x (B, 3, S, S), uint8; codes z (B, 200), uniform in [-1, 1]; small images (B, 3, s, s) in [-1, 1]. S is
112, or the backbone's side where that is smaller; s is 64 for S = 112, 32 for 56, 16 for 28. Nothing is mirrored.

- Encoder E: last stage -> linear layer to 200 -> sigmoid, stretched to [-1, 1]. The backbone is built anew with leaky
  ReLUs (slope 0.2) and without LRN, and is exported so.
- Generator G: linear layer to 4 x 4 maps, up-convolutions 5 x 5 of stride 2 to 256, 128, 64 and 3 channels, BatchNorm
  and ReLU between, a sigmoid stretched to [-1, 1] last.
- Discriminator D: convolutions 5 x 5 of stride 2 to 64, 128, 256 and 512 channels, then one linear layer. The code is
  added, through a linear layer of its own, to what every block's BatchNorm sees; so it is in the generator.

Loss: D learns to say 1 of (x, E(x)) and 0 of (G(z), z), by cross-entropy; E and G learn, by the same loss with the
labels swapped, to make it say the opposite. There is no other loss: nothing asks for G(E(x)) = x. All three are
updated at once, each by its gradient at the weights before; so E and G come first here, and D follows on the pairs
that they made before they stepped. BatchNorm sees the two kinds of pairs apart. The rate stays for the first half of
training, and falls exponentially to a hundredth in the second: the release's default, not its ``--linear_decay``.

Pretext metric: ``explained``, 1 - |x - G(E(x))|^2 / |x - mean image|^2 over small images; the mean image scores 0.
Reconstructions are known to be loose (right things in wrong places), so it can stay below 0 although much is learned.
``over_another`` says what the release prints: 1 - |x - G(E(x))|^2 / |x' - G(E(x))|^2 with another image x'; 0 where a
reconstruction has nothing to do with its image.

Option ``noise``: the dimensions of a code.

Deviations from the paper:
- The encoder is the suite's AlexNet, with its preprocessing, initial weights (He-normal, not N(0, 0.02)) and BatchNorm
  (the release has none after conv1); a backbone without BatchNorm gets none.
- All widths shrink in proportion to the backbone's last stage (64 for 256 channels), and smaller images need fewer
  convolutions.
- Small images are reduced with a bicubic antialiased kernel; the release has PIL's Lanczos.
- Weight decay is decoupled from Adam's steps (AdamW); the release adds 2.5e-5 times the weight to the gradient, and
  spares BatchNorm's gains.
- Running statistics of BatchNorm are moving averages; the release measures them afresh after training.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.base import twin
from bench.data import draws, transforms
from bench.errors import BenchError
from bench.methods._dense import explained
from bench.methods._gan import LEAK, STD, Block, Discriminator, doubling, told_apart
from bench.methods.base import Adam, Backbone, Batch, Exponential, Loss, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from torch.nn import Parameter

    from bench.data.base import Dataset, Sample

SIDE = 112
"""Pixels of the encoder's crops, at most; they come from images whose short side is 128."""
WIDTH = 64
"""Channels of the generator's last block and of the discriminator's first, for a backbone that ends in 256."""


class BiGAN(PretextTask):
    """Option: ``noise``, the dimensions of a code."""

    title, citation, version = "BiGAN", "donahue2017adversarial", 1
    needs = {"image"}
    supports = {"alexnet"}
    recipe = Recipe(
        epochs=100,
        batch=128,
        optimiser={
            "generator": Adam(
                lr=2e-4, betas=(0.5, 0.999), weight_decay=2.5e-5, schedule=Exponential(end=0.01, since=0.5)
            ),
            "discriminator": Adam(
                lr=2e-4, betas=(0.5, 0.999), weight_decay=2.5e-5, schedule=Exponential(end=0.01, since=0.5)
            ),
        },
        source="jeffdonahue/bigan train_gan.py and README (--epochs 50 --decay_epochs 50)",
    )
    metric, chance = "explained", 0.0
    mean: Tensor

    def __init__(self, backbone: Backbone, noise: int = 200) -> None:
        super().__init__(twin(backbone, lrn="none", leak=LEAK))
        if noise < 1:
            raise BenchError(f"codes of bigan cannot have {noise!r} dimensions", mend="choose at least 1")
        self.noise, self.side = noise, min(SIDE, backbone.input_side)
        doublings = max(1, round(math.log2(self.side / 7)))
        self.small_side = 4 * 2**doublings
        shape = self.backbone.shapes(self.side)[backbone.stages[-1]]
        width = max(8, round(WIDTH * shape.channels / 256))
        self.to_code = nn.Linear(math.prod(shape), noise, bias=False)
        nn.init.normal_(self.to_code.weight, std=STD)
        self.generate = Generator(noise, width, doublings)
        self.discriminate = Discriminator(self.small_side, width, kernel=5, codes=noise)
        self.register_buffer("mean", torch.zeros(1, 3, self.small_side, self.small_side))

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """The mean image, over 1,000 images."""
        images = draws.batches(dataset, self.side, count=10, size=100, generator=generator)
        self.mean.copy_(torch.cat([self.small(batch) for batch in images]).mean(0, keepdim=True))

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): short side to 128/112 of S, random crop."""
        image = transforms.resize_short(sample.image, round(self.side * 128 / 112))
        return transforms.random_crop(image, self.side, generator)

    def parameters_of(self) -> dict[str, Iterable[Parameter]]:
        """Generator and encoder learn as one."""
        return {
            "generator": [*self.generate.parameters(), *self.backbone.parameters(), *self.to_code.parameters()],
            "discriminator": self.discriminate.parameters(),
        }

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Of generator and encoder, then of the discriminator on the same pairs, as they were."""
        drawn = self.draw(len(batch), generator)
        given, made = (self.small(batch.views), self.encode(batch.views)), (self.generate(drawn), drawn)
        yield "generator", Loss(told_apart(real=self.discriminate(*made), made=self.discriminate(*given)))
        real, fake = (self.discriminate(image.detach(), code.detach()) for image, code in (given, made))
        yield "discriminator", Loss(told_apart(real=real, made=fake))

    def heldout(self, batch: Batch, step: Step, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses, and how well images are reconstructed."""
        images = self.small(batch.views)
        again = self.generate(self.encode(batch.views))
        error = F.mse_loss(again, images)
        return super().heldout(batch, step, generator) | {
            "explained": explained(error, F.mse_loss(self.mean.expand_as(images), images)),
            "over_another": explained(error, F.mse_loss(again, images.roll(1, 0))),
        }

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image, its reconstruction, and an image made of noise."""
        images = self.small(batch.views)
        again = self.generate(self.encode(batch.views))
        drawn = self.generate(self.draw(len(images), generator))
        return (127.5 * (1 + torch.stack([images, again, drawn], 1))).round().clamp(0, 255).byte()

    def encode(self, crops: Tensor) -> Tensor:
        """Crops (B, 3, S, S) -> codes (B, ``noise``) in [-1, 1]."""
        last = self.backbone.stages[-1]
        return 2 * self.to_code(self.backbone(crops, (last,))[last].flatten(1)).sigmoid() - 1

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Codes (``count``, ``noise``), uniform in [-1, 1]."""
        return 2 * torch.rand(count, self.noise, generator=generator, device=generator.device) - 1

    def small(self, crops: Tensor) -> Tensor:
        """Crops (B, 3, S, S), uint8 -> (B, 3, s, s) in [-1, 1]: what discriminator and generator know of an image."""
        size = (self.small_side, self.small_side)
        reduced = F.interpolate(crops.float(), size, mode="bicubic", antialias=True, align_corners=False)
        return reduced.clamp(0, 255) / 127.5 - 1


class Generator(nn.Module):
    """Codes (B, ``codes``) -> images (B, 3, s, s) in [-1, 1], s = 4 * 2^``doublings``.

    From 4 x 4 maps, whose every value has BatchNorm of its own; ``width`` channels ahead of the last up-convolution.
    """

    def __init__(self, codes: int, width: int, doublings: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in reversed(range(doublings))]
        linear = nn.Linear(codes, widths[0] * 16, bias=False)
        nn.init.normal_(linear.weight, std=STD)
        self.first = nn.Sequential(
            linear, nn.BatchNorm1d(widths[0] * 16), nn.ReLU(inplace=True), nn.Unflatten(1, (widths[0], 4, 4))
        )
        self.blocks = nn.ModuleList(
            Block(doubling(wide, narrow), nn.ReLU(inplace=True), codes) for wide, narrow in itertools.pairwise(widths)
        )
        self.last = doubling(widths[-1], 3)

    def forward(self, code: Tensor) -> Tensor:
        """What the code looks like."""
        maps = self.first(code)
        for block in self.blocks:
            maps = block(maps, code)
        return 2 * self.last(maps).sigmoid() - 1
