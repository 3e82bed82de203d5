"""Motion segmentation: what moves in a video is an object; tell from one frame alone what will.

Pixels that move together belong together, so motion segments videos without labels. A network that is shown a single
frame, and must predict that segmentation, has to know what an object looks like, and which objects move.

Paper: Pathak, Girshick, Dollár, Darrell, Hariharan, "Learning Features by Watching Objects Move", CVPR 2017, sections
3 to 5; the network from the authors' released ``motionseg/DeepMaskAlexNet.lua``. No training code was released.

Shapes: a clip (T, 3, H, W) gives one view, its first frame (3, S, S) and the mask (1, G, G) of what moves in it, G =
S // 4; the network predicts logits (B, G, G). AlexNet at 224 px: conv5 -> pool5, fc6, fc7 of 4,096 -> 56 x 56.

The masks come from optical flow (:mod:`bench.data.flow`), each a trimap: 0 static, 1 moving, 255 ignored. The loss is
the logistic loss of each pixel, a mean over those that are not ignored. Frame and mask are jittered together, in scale
(a square of 0.7 to 1 of the short side) and translation, and mirrored.

Pretext metric: ``explained``, 1 - (logistic loss) / (logistic loss of the mean mask) over held-out pixels that are not
ignored. The mean mask is taken over ``PRIOR_CLIPS`` clips of the training data, crops as in training: it knows where in
a frame things move, and does not look at the frame. So it scores 0, and always naming the commoner of both less.
(Balanced accuracy has no such zero: knowing only that things move near the middle scores well above one half.) Beside
it, ``iou``: of the pixels that are predicted to move, or do, the share that are both.

Deviations from the paper:
- Masks by uNLC (section 5.1: saliency and superpixels, grouped over whole videos) are approximated by dense flow less
  the camera's motion, within one clip of a few frames. Clips in which that finds nothing to move, or too much, are
  ignored pixel by pixel; the paper keeps frames by other criteria (unconfirmed).
- The clips are the suite's, in the role ``clips``; the paper's are 1.6 million frames of 205,000 videos of YFCC100M.
  Drawn objects that move over photographs (``moving``), or with their drawn scene (``scenes``), stand in for videos at
  the small suites. Drawn things are told from photographs by their edges and flat paint, without knowing any object:
  a shortcut, although some of them stand still, and must be told from those that move. A row that was trained so is
  marked *synthetic motion* and left out of rankings.
- The jitter's extent, batch, rates and number of updates are unconfirmed. Optimiser and weight decay are DeepMask's,
  which the released network is built on; rate and drops are ours, for a network with BatchNorm.
- The trunk is ours, with BatchNorm and without dropout; the paper's comes with and without BatchNorm.
- Trunks with ``global_pool`` (ResNet, NIN) have no fc6 and fc7: the released variant without them, a 1 x 1 convolution
  to 128 channels and one linear layer over the map, here averaged to 8 x 8 where it is larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.heads import Top
from bench.data import flow, transforms
from bench.errors import BenchError
from bench.methods._dense import explained
from bench.methods.base import SGD, Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.data.base import Dataset, Sample

CROPS = (0.7, 1.0)
"""The side of a crop, relative to the frame's short side."""
PRIOR_CLIPS = 300


class MotionSegmentation(PretextTask):
    """No options."""

    title, citation, version = "Motion segmentation", "pathak2017learning", 1
    needs = {"clip"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=10,
        batch=96,
        optimiser=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, schedule=MultiStep(at=(0.6, 0.9))),
        source="Pathak et al. 2017, section 5 (unconfirmed); facebookresearch/deepmask train.lua",
    )
    metric, chance = "explained", 0.0
    prior: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.grid = backbone.input_side // 4
        self.head = MaskHead(backbone, self.grid)
        self.register_buffer("prior", torch.zeros(self.grid, self.grid))

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """The logits of the mean mask.

        Raises:
            BenchError: nothing moves in the clips.
        """
        drawn = torch.randperm(len(dataset), generator=generator)[:PRIOR_CLIPS].tolist()
        masks = torch.cat([self.view(dataset[i], np.random.default_rng(i))[1] for i in drawn])
        moving, valid = (masks == flow.MOVING).sum(0), (masks != flow.IGNORED).sum(0)
        if not moving.any():
            raise BenchError(
                f"nothing was seen to move in {len(masks)} clips, so there is nothing to learn",
                where=dataset.name,
                mend="let frames lie further apart (the option step), or take other clips",
            )
        usual = (moving.sum() / valid.sum().clamp(min=1)).clamp(0.01, 0.99)
        self.prior.copy_(torch.logit((moving + usual) / (valid + 1)))

    def view(self, sample: Sample, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The clip's first frame, uint8 (3, S, S), and what moves in it, uint8 (1, G, G), cropped alike.

        Raises:
            BenchError: the data set has no clips.
        """
        frame, mask = watched(sample)
        both = torch.cat([frame, mask])
        low, high = CROPS
        side = round(min(frame.shape[1:]) * (low + (high - low) * generator.random()))
        crop = transforms.flip(transforms.random_crop(both, side, generator), generator)
        large, small = (self.backbone.input_side,) * 2, (self.grid, self.grid)
        return transforms.resize(crop[:-1], large), transforms.resize(crop[-1:], small, "nearest")

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """The mean logistic loss of the pixels that are not ignored; where all are, it is 0, and so are the metrics."""
        frames, masks = batch.views
        masks = masks.squeeze(1)
        valid, moving = masks != flow.IGNORED, masks == flow.MOVING
        logits = self.predict(frames)
        loss, trivial = (_logistic(guess, moving, valid) for guess in (logits, self.prior.expand_as(logits)))
        guessed = (logits.detach() > 0) & valid
        iou = (guessed & moving).sum() / (guessed | moving).sum().clamp(min=1)
        share = torch.where(valid.any(), explained(loss, trivial), 0.0)
        yield "main", Loss(loss, {"explained": share, "iou": iou})

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each frame, what moves in it (grey: ignored), and what the network thinks of it."""
        frames, masks = batch.views
        shown = torch.where(masks == flow.IGNORED, 0.5, masks.float())
        guessed = self.predict(frames).sigmoid()[:, None]
        maps = [F.interpolate(x, frames.shape[-2:]).expand_as(frames) for x in (shown, guessed)]
        return torch.stack([frames, *((255 * x).round().byte() for x in maps)], 1)

    def predict(self, frames: Tensor) -> Tensor:
        """Frames, uint8 (B, 3, S, S) -> the logits (B, G, G) that a pixel moves, float32."""
        last = self.backbone.stages[-1:]
        logits: Tensor = self.head(self.backbone(frames, last)).float()
        return logits


class MaskHead(nn.Module):
    """{last stage: (B, C, h, w)} -> logits (B, ``side``, ``side``), each of which sees the whole map."""

    def __init__(self, backbone: Backbone, side: int) -> None:
        super().__init__()
        self.side = side
        self.top = NarrowTop(backbone) if backbone.global_pool else Top(backbone)
        self.out = nn.Linear(self.top.width, side**2)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """See the class."""
        return self.out(self.top(features)).unflatten(1, (self.side, self.side))


class NarrowTop(nn.Module):
    """{last stage: (B, C, h, w)} -> (B, ``width``): a 1 x 1 convolution to ``channels``, at 8 x 8 places at most."""

    def __init__(self, backbone: Backbone, channels: int = 128) -> None:
        super().__init__()
        self.stage = backbone.stages[-1]
        shape = backbone.shapes()[self.stage]
        side = min(shape.height, 8)
        self.width = channels * side**2
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(side),
            nn.Conv2d(shape.channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """See the class."""
        return self.layers(features[self.stage])


def watched(sample: Sample) -> tuple[Tensor, Tensor]:
    """A clip's first frame, uint8 (3, H, W), and the trimap of what moves in it, uint8 (1, H, W), by optical flow.

    Raises:
        BenchError: the sample has no clip, or one of a single frame.
    """
    if sample.clip is None or len(sample.clip) < 2:
        raise BenchError("motion segmentation needs clips, and these data have none", mend="see [roles.clips]")
    mask = flow.motion_mask(sample.clip.permute(0, 2, 3, 1).numpy())
    return sample.clip[0], torch.from_numpy(mask)[None]


def _logistic(logits: Tensor, moving: Tensor, valid: Tensor) -> Tensor:
    """The mean over the valid pixels; 0 where there are none."""
    each = F.binary_cross_entropy_with_logits(logits, moving.float(), reduction="none")
    return (each * valid).sum() / valid.sum().clamp(min=1)
