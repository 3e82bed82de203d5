"""Multi-task: four pretext tasks on one trunk, each with a head of its own.

Tasks that ask for different things share what they learn: relative position for the layout of things, colorization
for what they are made of, exemplar for which they are, motion segmentation for where they end.

Paper: Doersch, Zisserman, "Multi-task Self-Supervised Visual Learning", ICCV 2017, section 3. Its text was not at hand:
that it has the four tasks, ResNet-101 v2 up to block 3, harmonised inputs and the lasso is confirmed, the rest is
unconfirmed. The tasks are the methods ``context-prediction``, ``colorization``, ``exemplar`` and
``motion-segmentation``, which bring their views, heads, losses and metrics; see their files for shapes and deviations.

Harmonised inputs: every task sees grey images of three equal channels, L / 100 of CIE Lab, which the trunk normalises
as it does colour images. So the trunk cannot tell the tasks apart by their colours, and takes colour images afterwards.

- context prediction: its patches, shifted, pixelated and brought to one contrast, but with nothing done against
  chromatic aberration, for colour goes anyway;
- colorization: the lightness that it is about, in place of a trunk of one channel;
- exemplar: its copies, after all changes of colour, of which those of contrast and value are left;
- motion segmentation: the first frame; its mask comes from the clip as ever.

Mixture of layers: where ``lasso`` is above 0, a task reads sum_l a_l f_l over all stages of the trunk. f_l is stage l
(B, C_l, h_l, w_l), averaged down to the size of the last stage (h, w), taken to its C channels by a 1 x 1 convolution,
and normalised by BatchNorm without scale and shift, so that the coefficients alone say how much a stage counts. They
are of unit length, as the heads' own BatchNorm would undo any other scale, and ``lasso`` times sum_l |a_l|, between 1
(one stage) and the root of their number (all alike), is added to the task's loss. They start alike. With ``lasso`` 0
each task reads the last stage.

Training: one batch of images gives an update a task, in turn; every update trains the trunk and one head. Each task has
an RMSProp of its own, whose mean squares, the trunk's too, are of its gradients alone: so no loss needs a weight.

Pretext metric: ``skill``, the mean over the tasks of (m - chance) / (1 - chance), where m is the task's own metric; so
chance is 0, and 1 is perfect. Losses and metrics of each task stand beside it, as ``<metric>_<task>``.

Evaluation: the exported backbone is the trunk, without heads and coefficients. The probe ``imagenet-linear`` with its
variant ``multitask2017`` learns coefficients of its own.

Deviations from the paper (what it does is unconfirmed throughout):
- It mixes the 23 residual units of block 3, which have one shape; here it is the stages, which every backbone has. What
  it prints in its main table is without mixture and harmonisation.
- It harmonises context prediction and colorization; here it is all four.
- A set of GPUs works on each task there, and the gradients of a task are applied when that set is done. Here all
  processes work on one task after the other, with the same images.
- All tasks learn from the suite's role ``clips``: photographs for three, their clips for one. There it is ImageNet and,
  for motion, YFCC100M.
- Exemplar is its ``triplet`` variant, as in the paper, with eight copies of each seed.
- Rate, drops, batch and budget are ours. In the few hundred updates of a small suite the coefficients drift apart, but
  none gets to 0: an RMSProp moves each of them by its rate, about, an update.
- BatchNorm in the trunk takes the statistics of the batch of one task, in the test the mean over all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.base import Shape
from bench.backbones.preprocess import Preprocess
from bench.errors import BenchError, did_you_mean
from bench.methods.base import Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, RMSProp, Step
from bench.methods.colorization import Colorization
from bench.methods.context_prediction import ContextPrediction
from bench.methods.exemplar import Exemplar
from bench.methods.motion_segmentation import MotionSegmentation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from torch.nn import Parameter

    from bench.data.base import Dataset, Sample
    from bench.training.recipe import Optimiser

TASKS: dict[str, Callable[[Backbone], PretextTask]] = {
    "context-prediction": partial(ContextPrediction, chromatic="none"),
    "colorization": Colorization,
    "exemplar": partial(Exemplar, loss="triplet"),
    "motion-segmentation": MotionSegmentation,
}
COLUMNS = 3
"""Of each task's picture."""


class MultiTask(PretextTask):
    """Options: ``tasks``, one or several of the four, by default all; ``lasso``, the weight of the L1 penalty, or 0."""

    title, citation, version = "Multi-task", "doersch2017multi", 1
    needs = {"image", "clip"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=30,
        batch=64,
        optimiser=RMSProp(lr=1e-4, schedule=MultiStep(at=(0.6, 0.9))),
        source="Doersch & Zisserman 2017, section 4 (unconfirmed)",
    )
    metric, chance = "skill", 0.0

    def __init__(self, backbone: Backbone, tasks: Sequence[str] = tuple(TASKS), lasso: float = 0.1) -> None:
        super().__init__(backbone)
        for name in tasks:
            if name not in TASKS:
                raise did_you_mean("task of multi-task", name, list(TASKS))
        if not tasks or len(set(tasks)) < len(tasks):
            raise BenchError("multi-task trains each of one or more tasks once", mend=f"choose of {', '.join(TASKS)}")
        if not 0 <= lasso < math.inf:
            raise BenchError(f"the lasso of multi-task cannot weigh {lasso!r}", mend="choose 0 for none, or more")
        self.tasks = nn.ModuleDict({name: TASKS[name](Mixture(backbone, lasso)) for name in tasks})

    def setup(self, dataset: Dataset) -> None:
        """That of each task."""
        for task in self._tasks().values():
            task.setup(dataset)

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """That of each task."""
        for task in self._tasks().values():
            task.prepare(dataset, generator)

    def view(self, sample: Sample, generator: np.random.Generator) -> dict[str, Any]:
        """{task: its view}."""
        return {name: task.view(sample, generator) for name, task in self._tasks().items()}

    def parameters_of(self) -> dict[str, Iterable[Parameter]]:
        """Of each task the trunk's, and its own."""
        trunk = list(self.backbone.parameters())
        return {name: [*trunk, *task.parameters()] for name, task in self._tasks().items()}

    def optimisers(self, recipe: Recipe) -> dict[str, Optimiser]:
        """The recipe's, one of them a task."""
        return dict.fromkeys(self._tasks(), recipe.optimisers()["main"])

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Each task's loss and its penalty, in turn; ``skill`` is the task's part of the mean over tasks."""
        for name, task in self._tasks().items():
            for _, loss in task.losses(_part(batch, name), step, generator):
                mixture = cast("Mixture", task.backbone)
                metrics = {f"{key}_{name}": value for key, value in loss.metrics.items()}
                yield name, Loss(loss.total + mixture.penalty(), {**metrics, "skill": self._skill(task, loss.metrics)})

    def heldout(self, batch: Batch, step: Step, generator: torch.Generator) -> dict[str, Tensor]:
        """Each task's losses and metrics, and the mean ``skill``."""
        found: dict[str, Tensor] = {}
        skill = torch.zeros((), device=batch.index.device)
        for name, task in self._tasks().items():
            own = task.heldout(_part(batch, name), step, generator)
            found |= {f"{key}_{name}": value for key, value in own.items()}
            skill = skill + self._skill(task, own)
        return {**found, "skill": skill}

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The first columns of each task's picture, side by side."""
        side = self.backbone.input_side
        shown = []
        for name, task in self._tasks().items():
            drawn = task.picture(_part(batch, name), generator)
            assert drawn is not None
            cells = drawn[:, :COLUMNS]
            resized = F.interpolate(cells.flatten(0, 1).float(), (side, side), mode="bilinear", antialias=True)
            shown.append(resized.round().clamp(0, 255).byte().unflatten(0, cells.shape[:2]))
        return torch.cat(shown, 1)

    def _tasks(self) -> dict[str, PretextTask]:
        return cast("dict[str, PretextTask]", dict(self.tasks.items()))

    def _skill(self, task: PretextTask, metrics: dict[str, Tensor]) -> Tensor:
        """What a task adds to the mean over tasks."""
        assert task.chance is not None
        return (metrics[task.metric] - task.chance) / (1 - task.chance) / len(self.tasks)


class Mixture(Backbone):
    """A trunk as one task sees it: lightness goes in, and its one stage, ``mixed``, is a mixture of the trunk's stages.

    The trunk is no submodule, so that it stands in checkpoints once; what is learnt here is the task's.
    """

    def __init__(self, trunk: Backbone, lasso: float) -> None:
        super().__init__()
        self._shared = (trunk,)
        self.stages, self.input_side, self.global_pool = ("mixed",), trunk.input_side, trunk.global_pool
        self.preprocess = Preprocess.named("l")
        self.in_channels = self.preprocess.channels
        self.lasso = lasso
        if lasso:
            shapes = trunk.shapes()
            width = shapes[trunk.stages[-1]].channels
            self.alpha = nn.Parameter(torch.ones(len(shapes)))
            self.taken = nn.ModuleDict({stage: _taken(shape.channels, width) for stage, shape in shapes.items()})

    def shapes(self, side: int | None = None) -> dict[str, Shape]:
        """That of the trunk's last stage."""
        trunk = self._shared[0]
        return {"mixed": trunk.shapes(side)[trunk.stages[-1]]}

    def trunk(self, x: Tensor, stages: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Lightness (B, 1, H, W) in -50 .. 50 -> {``mixed``: (B, C, h, w)}."""
        trunk = self._shared[0]
        grey = ((x + 50) / 100).expand(-1, 3, -1, -1)
        if not self.lasso:
            return {"mixed": trunk(grey, trunk.stages[-1:])[trunk.stages[-1]]}
        features = trunk(grey)
        size = features[trunk.stages[-1]].shape[-2:]
        taken = [self.taken[stage](F.adaptive_avg_pool2d(f, size)) for stage, f in features.items()]
        return {"mixed": sum(a * f for a, f in zip(self.coefficients(), taken, strict=True))}

    def coefficients(self) -> Tensor:
        """(stages,), of unit length."""
        return F.normalize(self.alpha, dim=0)

    def penalty(self) -> Tensor | float:
        """What the task pays for reading many stages."""
        return self.lasso * self.coefficients().abs().sum() if self.lasso else 0.0


def _taken(channels: int, width: int) -> nn.Sequential:
    """(B, channels, h, w) -> (B, width, h, w), each channel of zero mean and unit variance."""
    convolution = nn.Conv2d(channels, width, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    return nn.Sequential(convolution, nn.BatchNorm2d(width, affine=False))


def _part(batch: Batch, name: str) -> Batch:
    """What a task sees of a batch."""
    return Batch(batch.views[name], batch.index, batch.label)
