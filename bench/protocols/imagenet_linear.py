"""ImageNet linear probe: how well one linear layer on each frozen stage classifies ImageNet.

Heads on all stages train from one frozen forward pass. ``standard``: features pooled to at most 9,600 values,
BatchNorm without affine, one linear layer; five learning rates train side by side on the training images less a
held-out slice, one is chosen on that slice for each stage, and that head is measured on the test images once, at
the last epoch. The other variants are the papers' own: one rate, all training images, nothing chosen, at the papers'
224 or 227 pixels only.

Papers: Zhang, Isola, Efros, "Colorful Image Colorization" (ECCV 2016), section 3.2 and Split-Brain (CVPR 2017),
Table 2, made the table; Goyal et al., "Scaling and Benchmarking Self-Supervised Visual Representation Learning"
(ICCV 2019), section 6, the schedule of 28 epochs. Choosing the rate on held-out images is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.data.heldout import held_out
from bench.data.images import subset
from bench.metrics import ranks
from bench.protocols.base import Column, Evidence, Measured, Protocol, ids_digest, same_classes, same_images, text
from bench.protocols.heads import LinearHeads, geometry, rank_of
from bench.protocols.probe import InverseRoot as InverseRootRule
from bench.protocols.probe import Probe, ResizedView, Rows, Steps
from bench.suite import validate
from bench.training import loop
from bench.training.device import derive
from bench.training.recipe import SGD, InverseRoot, MultiStep, Recipe, Schedule, Table

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

    from bench.backbones.base import Backbone
    from bench.data.base import Dataset
    from bench.data.pack import Geometry
    from bench.protocols.definitions import Variant
    from bench.runfolder import Attempt
    from bench.training.loop import Execution
    from bench.training.task import Batch


class ImageNetLinear(Protocol):
    """Columns ``top1@<stage>`` and ``top5@<stage>``; of a mixture of the stages ``top1@mixed`` and ``top5@mixed``."""

    title, citation, version = "ImageNet linear probe", "zhang2017split", 1
    role = "imagenet"
    by_stage = True
    schema = "bench.protocols.probe:Probe"
    statistic = "bench.protocols.statistics:of_ranks"

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.probe = validate(Probe, variant.definition, f"{variant.protocol}, {variant.name}")

    def geometry(self, backbone: Backbone) -> Geometry | None:
        """The resize before every crop, of training and test images alike; None: training crops are resized."""
        return None if isinstance(self.probe.train, ResizedView) else geometry(self.probe, backbone.input_side)

    def evaluate(
        self,
        backbone: Backbone,
        train: Dataset,
        test: Dataset,
        *,
        method: str,
        seed: int,
        fabric: Fabric,
        attempt: Attempt,
        how: Execution,
    ) -> Measured:
        """Train all heads, choose a rate for each stage on the held-out slice, measure those heads on ``test``."""
        same_classes(train, test)
        torch.manual_seed(derive(seed, "probe"))
        heads = LinearHeads(backbone, self.probe, len(train.classes), fabric)
        held = held_out(train.ids, train.labels, self.probe.heldout)
        fit, choose = subset(train, np.flatnonzero(~held)), subset(train, np.flatnonzero(held))
        training = loop.train(
            heads,
            fit,
            self.recipe(len(fit)),
            seed=seed,
            fabric=fabric,
            attempt=attempt,
            how=how,
            updates=self.probe.iterations,
        )
        chosen, selection, warnings = self._choose(heads, choose, fabric, how)
        evidence = _measure(heads, chosen, test, fabric, how)
        evidence["stages"] = np.array(heads.places)
        return Measured(evidence, selection, training, warnings)

    def recipe(self, images: int) -> Recipe:
        """The definition in the words of the loop, for so many training images; rates multiply the optimiser's 1.0."""
        probe = self.probe
        per_epoch = max(1, images // probe.batch)
        updates = probe.iterations or (probe.epochs or 0) * per_epoch
        return Recipe(
            epochs=probe.epochs or -(-updates // per_epoch),
            batch=probe.batch,
            optimiser=SGD(
                lr=1.0,
                momentum=probe.momentum,
                nesterov=probe.nesterov,
                weight_decay=probe.weight_decay,
                schedule=_schedule(probe, updates),
            ),
        )

    def _choose(
        self, heads: LinearHeads, choose: Dataset, fabric: Fabric, how: Execution
    ) -> tuple[list[int], dict[str, Any], list[str]]:
        """For each place the rate (its index) with the best held-out top-1; the smaller one of equals."""
        if self.probe.selection == "none":
            rule = "none: one rate, all of train, last epoch"
            return [0] * len(heads.places), {"rule": rule, "n": 0, "heldout": {}}, []

        def hits(batch: Batch) -> Tensor:
            scores = torch.stack(list(heads.scores(batch.views).values()), 1)
            return (scores.argmax(-1) == batch.label[:, None, None]).float()

        rates = self.probe.rates
        accuracy = 100 * _over(heads, choose, hits, fabric, how).mean(0)
        chosen = [int(row.argmax()) for row in accuracy]
        heldout, warnings = {}, []
        for stage, best, row in zip(heads.places, chosen, accuracy.tolist(), strict=True):
            scores = {str(rate): round(score, 3) for rate, score in zip(rates, row, strict=True)}
            heldout[stage] = {"chosen_rate": rates[best], "top1": scores}
            if len(rates) > 1 and best in (0, len(rates) - 1):
                warnings.append(f"{stage}: the chosen rate {rates[best]} is at the edge of the sweep")
        selection = {"rule": f"rate by {self.probe.selection}, last epoch", "n": len(choose), "heldout": heldout}
        if heads.mixture:
            values = heads.mixture.values()[chosen[0]].tolist()
            selection["mixture"] = {s: round(a, 4) for s, a in zip(heads.mixture.stages, values, strict=True)}
        return chosen, selection, warnings

    @staticmethod
    def columns(evidence: Evidence) -> dict[str, Column]:
        """top1 and top5 of every stage."""
        classes = int(evidence["classes"])
        return {
            f"top{k}@{stage}": ranks.top_k(rank, classes, k)
            for k in (1, 5)
            for stage, rank in zip(evidence["stages"].tolist(), evidence["rank"], strict=True)
        }

    @staticmethod
    def contradictions(evidence: Evidence, test: Dataset) -> list[str]:
        """The images, the number of classes, and rank 0 exactly where the prediction is the label."""
        found = same_images(evidence, test)
        if found:
            return found
        if int(evidence["classes"]) != len(test.classes):
            found.append(f"the evidence counts {int(evidence['classes'])} classes, {test.name} has {len(test.classes)}")
        for stage, rank, prediction in zip(
            evidence["stages"].tolist(), evidence["rank"], evidence["prediction"], strict=True
        ):
            wrong = ranks.contradictions(rank, prediction, test.labels)
            if wrong:
                found.append(f"{stage}: rank and prediction contradict the labels of {wrong} images")
        return found


def _schedule(probe: Probe, updates: int) -> Schedule:
    """The schedule as a function of the fraction of training that is done."""
    budget = probe.epochs or probe.iterations or 1
    match probe.schedule:
        case Steps():
            return MultiStep(tuple(step / budget for step in probe.schedule.steps), probe.schedule.gamma)
        case Rows():
            return Table(tuple((until / budget, factor) for until, factor in probe.schedule.rows))
        case InverseRootRule():
            return InverseRoot(probe.rates[0] * probe.weight_decay * updates)


def _measure(heads: LinearHeads, chosen: list[int], test: Dataset, fabric: Fabric, how: Execution) -> Evidence:
    """Ranks and predictions of the chosen heads on the test images; no other head sees them."""

    def rank_and_prediction(batch: Batch) -> Tensor:
        scores = heads.scores(batch.views)
        best = torch.stack([rows[:, rate] for rows, rate in zip(scores.values(), chosen, strict=True)], 1)
        label = batch.label[:, None].expand(-1, best.shape[1])
        return torch.stack([rank_of(best, label), best.argmax(-1)], 1)

    rows = _over(heads, test, rank_and_prediction, fabric, how).long().numpy()
    return {
        "rank": rows[:, 0].T.clip(max=ranks.RANK_LIMIT).astype(np.uint8),
        "prediction": rows[:, 1].T.astype(np.uint16),
        "classes": np.array(len(test.classes), dtype=np.uint16),
        "ids_sha256": text(ids_digest(test.ids)),
    }


def _over(heads: LinearHeads, dataset: Dataset, function: Any, fabric: Fabric, how: Execution) -> Tensor:
    batch = max(1, (how.micro_batch or 256) // heads.test_crops)
    return loop.embed(
        heads, dataset, function, heads.test_view, seed=0, fabric=fabric, workers=how.workers, batch=batch
    )
