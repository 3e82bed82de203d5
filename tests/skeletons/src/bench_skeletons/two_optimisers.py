"""The shape of BiGAN: two optimisers that take turns, the second seeing what the first has just done."""

import torch
import torch.nn.functional as F
from torch import nn

from bench.data import transforms
from bench.methods.base import Adam, Loss, PretextTask, Recipe


class TwoOptimisers(PretextTask):
    title, citation, version = "Two optimisers", "donahue2017adversarial", 1
    needs = {"image"}
    recipe = Recipe(
        epochs=3,
        batch=32,
        optimiser={"discriminator": Adam(lr=1e-3, betas=(0.5, 0.999)), "generator": Adam(lr=1e-3, betas=(0.5, 0.999))},
    )

    def __init__(self, backbone, noise: int = 4):
        super().__init__(backbone)
        self.noise = noise
        channels = self._features(torch.zeros(1, 3, backbone.input_side, backbone.input_side, dtype=torch.uint8))
        self.generate = nn.Linear(noise, channels.shape[1])
        self.judge = nn.Sequential(
            nn.Linear(channels.shape[1], 16), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(16, 1)
        )

    def _features(self, images):
        last = self.backbone.stages[-1]
        return self.backbone(images, (last,))[last].mean((2, 3))

    def parameters_of(self):
        return {
            "discriminator": self.judge.parameters(),
            "generator": [*self.generate.parameters(), *self.backbone.parameters()],
        }

    def view(self, sample, generator):
        return transforms.random_crop(sample.image, self.backbone.input_side, generator)

    def losses(self, batch, step, generator):
        z = torch.rand(len(batch), self.noise, generator=generator, device=batch.index.device)
        real, fake = self._features(batch.views), self.generate(z)
        real_score, fake_score = self.judge(real.detach()), self.judge(fake.detach())
        ones, zeros = torch.ones_like(real_score), torch.zeros_like(fake_score)
        bce = F.binary_cross_entropy_with_logits
        before = [p.detach().clone() for p in self.judge.parameters()]
        yield "discriminator", Loss(bce(real_score, ones) + bce(fake_score, zeros), {"real": real_score.mean()})
        if torch.is_grad_enabled():
            pairs = zip(self.judge.parameters(), before, strict=True)
            assert any((p != q).any() for p, q in pairs), "the discriminator had not stepped"
        yield "generator", Loss(bce(self.judge(fake), ones) + bce(self.judge(real), zeros))
