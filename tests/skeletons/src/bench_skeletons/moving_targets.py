"""The shape of NAT and DeepCluster: a target for each image, re-assigned at every epoch and in every batch."""

import torch
import torch.nn.functional as F
from torch import nn

from bench.data import transforms
from bench.methods.base import SGD, Loss, PretextTask, Recipe


class MovingTargets(PretextTask):
    title, citation, version = "Moving targets", "bojanowski2017unsupervised", 1
    needs = {"image"}
    recipe = Recipe(epochs=4, batch=32, optimiser=SGD(lr=0.05))

    def __init__(self, backbone, dim: int = 8):
        super().__init__(backbone)
        self.dim = dim
        self.head = nn.LazyLinear(dim)
        side = backbone.input_side
        self(torch.zeros(2, 3, side, side, dtype=torch.uint8))

    def setup(self, dataset):
        self.register_buffer("targets", torch.zeros(len(dataset), self.dim))
        self.register_buffer("epochs_begun", torch.zeros((), dtype=torch.int64))

    def prepare(self, dataset, generator):
        self.targets.copy_(F.normalize(torch.randn(len(dataset), self.dim, generator=generator), dim=1))

    def forward(self, images):
        last = self.backbone.stages[-1]
        return F.normalize(self.head(self.backbone(images, (last,))[last].flatten(1)), dim=1)

    def view(self, sample, generator):
        return transforms.random_crop(sample.image, self.backbone.input_side, generator)

    def order(self, epoch, size, generator):
        # drawn with replacement, by a buffer that training moves: a resume must not draw it anew
        weight = (self.targets[:, 0].cpu() + 1.5).clamp(min=0.1)
        return torch.multinomial(weight, size, replacement=True, generator=generator)

    def on_epoch_start(self, epoch, embed):
        self.epochs_begun += 1
        if epoch:
            features = embed(lambda batch: self(batch.views))
            self.targets.copy_(F.normalize(features.roll(1, 0) + 0.1 * self.targets.cpu(), dim=1))

    def losses(self, batch, step, generator):
        features = self(batch.views)
        with torch.no_grad():
            swapped = self.targets[batch.index].roll(1, 0)
            closer = (features * swapped).sum(1).mean() > (features * self.targets[batch.index]).sum(1).mean()
            if closer:
                self.targets[batch.index] = swapped
        noise = 0.01 * torch.randn(features.shape, generator=generator, device=features.device)
        yield "main", Loss((features + noise - self.targets[batch.index]).square().sum(1).mean())
