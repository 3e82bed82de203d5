"""A method that lives outside the package: it predicts whether an image was mirrored upside down."""

import torch
import torch.nn.functional as F
from torch import nn

from bench.backbones.heads import Top
from bench.data import transforms
from bench.methods.base import SGD, Cosine, Loss, PretextTask, Recipe


class Outsider(PretextTask):
    title, citation, version = "Outsider", "gidaris2018unsupervised", 3
    needs = {"image"}
    recipe = Recipe(epochs=2, batch=32, optimiser=SGD(lr=0.01, schedule=Cosine(), warmup=0.1))

    def __init__(self, backbone):
        super().__init__(backbone)
        self.top = Top(backbone)
        self.classifier = nn.Linear(self.top.width, 2)

    def view(self, sample, generator):
        return transforms.random_crop(sample.image, self.backbone.input_side, generator)

    def losses(self, batch, step, generator):
        images = torch.cat([batch.views, batch.views.flip(2)])
        label = torch.arange(2, device=images.device).repeat_interleave(len(batch))
        logits = self.classifier(self.top(self.backbone(images, self.backbone.stages[-1:])))
        yield "main", Loss(F.cross_entropy(logits, label), {"accuracy": (logits.argmax(1) == label).float().mean()})
