"""Context encoder: fill in the part of an image that was cut out.

To fill a hole from what surrounds it, a network must understand the whole scene. An encoder (the backbone) looks at
the image with a region dropped, a layer fully connected within each channel spreads what it found over the whole
image, and a decoder paints the image; the loss is the squared error where pixels were dropped.

Paper: Pathak, Krähenbühl, Donahue, Darrell, Efros, "Context Encoders: Feature Learning by Inpainting", CVPR 2016,
sections 3.1-3.3 and 5.2; masks from the authors' released code, ``train_random.lua`` and ``train.lua``.

Shapes: crops (B, 3, S, S) in [0, 1]; the last stage after pool5 is (B, C, m, m), the decoder's start (B, C, d, d),
its end (B, 3, S, S). AlexNet at 224 px: m 6, d 7, and five up-convolutions to 128, 64, 64, 32 and 3 channels.

Masks (option ``mask``):

- ``random-region``: a grid of uniform noise, 7.68 cells a side, up-sampled (bicubic) and cut at 0.25; drawn again
  until it drops 20-30 % of the image. The paper's features come from it.
- ``centre``: the central square of S / 2. Its outer band, S / 32 wide, stays visible, and its error weighs ten times
  as much, so that the filling fits its surroundings.

Dropped pixels get the mean colour of the data.

Adversarial loss (option ``adversarial``, its weight; 0 for the paper's features, 0.001 for its inpainting): DCGAN's
discriminator learns to tell painted images from real ones, by cross-entropy, and the context encoder learns to be
taken for real. It sees the central square alone (band included), or the whole image with ``random-region``. The loss
is (1 - weight) times the squared error, plus weight times the cross-entropy of the label "real". The discriminator
steps first, at a tenth of the rate, and judges again after its step.

Pretext metric: ``explained``, 1 - (squared error) / (squared error of the mean colour) over the dropped pixels;
painting the mean colour scores 0.

Deviations from the paper:
- With the adversarial loss, the squared error is in the release's units (pixels in [-1, 1], the mean over the square
  without regard to the band's weight), so that 0.001 weighs the same; but it stays that of dropped pixels where the
  released ``train_random.lua`` takes all. The release gives the context encoder a gradient of which one half is from
  before the discriminator's step. The discriminator narrows with the backbone; its convolutions have no biases
  (the release sets them to 0 ahead of each step).
- The channel-wise layer maps m x m onto d x d, such that doublings reach the crop, which is then cut out of the
  middle; the paper maps 6 x 6 onto 6 x 6 and resizes the last map to 227 px (unconfirmed). Up-convolutions are
  4 x 4 with stride 2 and BatchNorm, as in the released code. The channels are the paper's (unconfirmed), narrower in
  proportion to the backbone's last stage, and smaller images need fewer doublings.
- The mean colour is that of the data; the released constants are ImageNet's with the channels in another order.
- Every image of a batch has its own mask; in the released code they share one.
- ``centre`` paints the whole image, not only the hole: one decoder does for both masks.
- About 100,000 updates (unconfirmed) of 128 images (the released inpainting: 64), on crops of 224/256, mirrored.
- Trunks with ``global_pool`` (ResNet, NIN) have no pool5: the last stage itself, averaged to 8 x 8 where it is larger,
  and the 1 x 1 convolution narrows it to AlexNet's 256 channels.
- Adam as released for the generator, 2e-3 with beta1 0.5; the rate of the features' training is unconfirmed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data import draws, transforms
from bench.errors import BenchError, did_you_mean
from bench.methods._gan import Discriminator, seems_real, told_apart
from bench.methods.base import Adam, Backbone, Batch, Loss, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from torch.nn import Parameter

    from bench.data.base import Dataset, Sample
    from bench.training.recipe import Optimiser

MASKS = ("random-region", "centre")
CELLS = 0.06 * 128
"""Cells of noise along a side: the released pattern has 0.06 a pixel, and crops of 128."""
DENSITY = 0.25
AREA = (0.2, 0.3)
"""The least and largest share of an image that a random region drops."""
BAND_WEIGHT = 10.0


class ContextEncoder(PretextTask):
    """Options: ``mask``, ``random-region`` or ``centre``; ``adversarial``, the weight of that loss, 0 for none."""

    title, citation, version = "Context encoder", "pathak2016context", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=10,
        batch=128,
        optimiser=Adam(lr=2e-3, betas=(0.5, 0.999)),
        source="Pathak et al. 2016, section 5.2; pathak22/context-encoder train_random.lua",
    )
    metric, chance = "explained", 0.0
    mean: Tensor

    def __init__(self, backbone: Backbone, mask: str = "random-region", adversarial: float = 0.0) -> None:
        super().__init__(backbone)
        if mask not in MASKS:
            raise did_you_mean("mask of context-encoder", mask, list(MASKS))
        if not 0 <= adversarial < 1:
            raise BenchError(
                f"the adversarial loss of context-encoder cannot weigh {adversarial!r}",
                mend="choose 0 for none, or a weight below 1, such as 0.001",
            )
        self.mask, self.adversarial = mask, adversarial
        self.edge = backbone.input_side // 4 if mask == "centre" else 0
        shape = backbone.shapes()[backbone.stages[-1]]
        small = min(shape.height, 8) if backbone.global_pool else (shape.height - 3) // 2 + 1
        self.pool = nn.AdaptiveAvgPool2d(small) if backbone.global_pool else nn.MaxPool2d(3, 2)
        doublings = min(5, int(math.log2(backbone.input_side / small)))
        start, width = math.ceil(backbone.input_side / 2**doublings), min(shape.channels, 256)
        self.across = nn.Sequential(
            ChannelwiseLinear(shape.channels, small, start), nn.Conv2d(shape.channels, width, 1), nn.ReLU()
        )
        self.decoder = _decoder(width, doublings)
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.discriminate: Discriminator | None = None
        if adversarial:
            self.discriminate = Discriminator(backbone.input_side - 2 * self.edge, max(8, width // 4), kernel=4)

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """The mean colour, over 1,000 images."""
        images = draws.batches(dataset, self.backbone.input_side, count=10, size=100, generator=generator)
        means = torch.stack([batch.float().mean((0, 2, 3)) / 255 for batch in images])
        self.mean.copy_(means.mean(0).view(1, 3, 1, 1))

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): short side to 256/224 of S, random crop, perhaps mirrored."""
        return transforms.mirrored_crop(sample.image, self.backbone.input_side, generator)

    def optimisers(self, recipe: Recipe) -> dict[str, Optimiser]:
        """The discriminator learns as the rest does, ten times slower (the release's ``lr`` and ``lr * 10``)."""
        given = recipe.optimisers()
        if self.discriminate is None:
            return given
        return given | {"discriminator": dataclasses.replace(given["main"], lr=given["main"].lr / 10)}

    def parameters_of(self) -> dict[str, Iterable[Parameter]]:
        """The discriminator has an optimiser of its own."""
        if self.discriminate is None:
            return super().parameters_of()
        main = [p for name, p in self.named_parameters() if not name.startswith("discriminate.")]
        return {"main": main, "discriminator": self.discriminate.parameters()}

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """The weighted squared error of what is painted into the hole; with the adversary, its loss first."""
        images = batch.views.float() / 255
        dropped, weight = self._draw_masks(len(images), generator)
        painted = self.paint(images, dropped)
        error = (painted - images) ** 2
        of_mean = (dropped * (self.mean - images) ** 2).sum()
        metrics = {"explained": 1 - (dropped * error.detach()).sum() / of_mean.clamp(min=1e-6)}
        if self.discriminate is None:
            yield "main", Loss((weight * error).sum() / (3 * weight.sum()), metrics)
            return
        real, made = (self._judged(x) for x in (images, painted))
        yield "discriminator", Loss(told_apart(real=self.discriminate(real), made=self.discriminate(made.detach())))
        squared = 4 * (weight * error).sum() / (3 * (weight > 0).sum())
        taken = seems_real(self.discriminate(made))
        yield "main", Loss((1 - self.adversarial) * squared + self.adversarial * taken, metrics)

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image with its hole, filled by the network, and as it was."""
        images = batch.views.float() / 255
        dropped, _ = self._draw_masks(len(images), generator)
        filled = torch.where(dropped, self.paint(images, dropped), images)
        columns = torch.stack([torch.where(dropped, self.mean, images), filled, images], 1)
        return (columns.clamp(0, 1) * 255).round().byte()

    def paint(self, images: Tensor, dropped: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] and the mask (B, 1, S, S) of what is hidden -> the whole, painted."""
        seen = torch.where(dropped, self.mean, images)
        features = self.backbone(seen, self.backbone.stages[-1:])[self.backbone.stages[-1]]
        painted = self.decoder(self.across(self.pool(features)))
        margin, side = (painted.shape[-1] - images.shape[-1]) // 2, images.shape[-1]
        return self.mean + painted[..., margin : margin + side, margin : margin + side].float()

    def _judged(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] -> what the discriminator sees of them, in [-1, 1]."""
        inner = slice(self.edge, images.shape[-1] - self.edge)
        return 2 * images[..., inner, inner] - 1

    def _draw_masks(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is dropped, bool (B, 1, S, S), and the weight of each pixel's error, as large."""
        if self.mask == "random-region":
            dropped = random_regions(count, self.backbone.input_side, generator)
            return dropped, dropped.float()
        dropped, weight = (x.to(generator.device).expand(count, -1, -1, -1) for x in centre(self.backbone.input_side))
        return dropped, weight


class ChannelwiseLinear(nn.Module):
    """(B, C, m, m) -> (B, C, d, d): fully connected within each channel, nothing between channels (section 3.1)."""

    def __init__(self, channels: int, side: int, out: int) -> None:
        super().__init__()
        self.out = out
        self.weight = nn.Parameter(torch.randn(channels, side**2, out**2) / side)
        self.bias = nn.Parameter(torch.zeros(channels, out**2))

    def forward(self, x: Tensor) -> Tensor:
        """Each channel's map, times its own matrix."""
        mixed = torch.einsum("bci,cij->bcj", x.flatten(2), self.weight) + self.bias
        return mixed.unflatten(2, (self.out, self.out))


def random_regions(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Random regions of arbitrary shape, bool (count, 1, side, side): True is dropped, 20-30 % of each."""
    regions = torch.zeros(count, 1, side, side, dtype=torch.bool, device=generator.device)
    missing = torch.arange(count, device=generator.device)
    while len(missing):
        drawn = _pattern(len(missing), side, generator) < DENSITY
        regions[missing] = drawn
        area = drawn.float().mean((1, 2, 3))
        missing = missing[(area < AREA[0]) | (area > AREA[1])]
    return regions


def centre(side: int) -> tuple[Tensor, Tensor]:
    """The central quarter: what is dropped, bool (1, 1, side, side), and the weight of each pixel's error."""
    band, edge = round(side / 32), side // 4
    dropped = torch.zeros(1, 1, side, side, dtype=torch.bool)
    weight = torch.zeros(1, 1, side, side)
    weight[..., edge : side - edge, edge : side - edge] = BAND_WEIGHT
    inner = slice(edge + band, side - edge - band)
    dropped[..., inner, inner] = True
    weight[dropped] = 1.0
    return dropped, weight


def _pattern(count: int, side: int, generator: torch.Generator) -> Tensor:
    """A window (count, 1, side, side) at a random place of up-sampled noise; two cells are left at its border."""
    cells = math.ceil(CELLS) + 5
    noise = torch.rand(count, 1, cells, cells, generator=generator, device=generator.device)
    theta = torch.zeros(count, 2, 3, device=generator.device)
    theta[:, 0, 0] = theta[:, 1, 1] = CELLS / cells
    room = 1 - (CELLS + 4) / cells
    theta[:, :, 2] = room * (2 * torch.rand(count, 2, generator=generator, device=generator.device) - 1)
    grid = F.affine_grid(theta, [count, 1, side, side], align_corners=False)
    return F.grid_sample(noise, grid, mode="bicubic", align_corners=False)


def _decoder(channels: int, doublings: int) -> nn.Sequential:
    """Up-convolutions (B, C, d, d) -> (B, 3, d * 2^doublings, ...), ReLU and BatchNorm but after the last."""
    layers: list[nn.Module] = []
    widths = [channels, *(max(8, channels // part) for part in (2, 4, 4, 8)[: doublings - 1])]
    for wider, width in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(wider, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1))
