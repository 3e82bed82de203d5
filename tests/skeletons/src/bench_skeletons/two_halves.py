"""The shape of Split-Brain: it trains a small network on half the channels and exports another, whole one."""

import torch
import torch.nn.functional as F
from torch import nn

from bench.data import transforms
from bench.methods.base import SGD, Loss, PretextTask, Recipe


class TwoHalves(PretextTask):
    title, citation, version = "Two halves", "zhang2017split", 1
    needs = {"image"}
    recipe = Recipe(epochs=2, batch=32, optimiser=SGD(lr=0.01, clip=1.0))

    def __init__(self, backbone):
        super().__init__(backbone)
        first = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
        self._whole = (backbone,)
        del self.backbone
        half = first.out_channels // 2
        settings = {"kernel_size": first.kernel_size, "stride": first.stride, "padding": first.padding}
        self.halves = nn.ModuleList(
            [nn.Conv2d(1, half, **settings), nn.Conv2d(2, first.out_channels - half, **settings)]
        )
        self.to_other = nn.ModuleList([nn.Conv2d(half, 2, 1), nn.Conv2d(first.out_channels - half, 1, 1)])

    def view(self, sample, generator):
        return transforms.random_crop(sample.image, self._whole[0].input_side, generator)

    def losses(self, batch, step, generator):
        images = batch.views.float() / 255
        groups = images[:, :1], images[:, 1:]
        total = 0
        for half, head, own, other in zip(self.halves, self.to_other, groups, groups[::-1], strict=True):
            guess = head(F.relu(half(own)))
            total = total + F.mse_loss(guess, F.adaptive_avg_pool2d(other, guess.shape[-2:]))
        yield "main", Loss(total)

    @torch.no_grad()
    def export(self):
        whole = self._whole[0]
        first = next(m for m in whole.modules() if isinstance(m, nn.Conv2d))
        first.weight.zero_()
        half = self.halves[0].out_channels
        first.weight[:half, :1] = self.halves[0].weight
        first.weight[half:, 1:] = self.halves[1].weight
        first.bias.copy_(torch.cat([self.halves[0].bias, self.halves[1].bias]))
        return whole
