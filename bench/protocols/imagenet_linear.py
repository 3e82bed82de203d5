"""ImageNet linear probe: how well one linear layer on each frozen stage classifies ImageNet.

Heads on all stages train from one frozen forward pass. ``standard``: features pooled to at most 9,600 values,
BatchNorm without affine, one linear layer; five learning rates train side by side on the training images less a
held-out slice, one is chosen on that slice for each stage, and that head is measured on the test images once, at
the last epoch.

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
from bench.errors import BenchError
from bench.metrics import ranks
from bench.protocols.base import Column, Evidence, Measured, Protocol, ids_digest, same_images, text
from bench.protocols.heads import LinearHeads, rank_of
from bench.training.device import derive
from bench.training.loop import embed, train
from bench.training.recipe import SGD, MultiStep, Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

    from bench.backbones.base import Backbone
    from bench.data.base import Dataset
    from bench.runfolder import Attempt
    from bench.training.loop import Execution
    from bench.training.task import Batch


class ImageNetLinear(Protocol):
    """Columns ``top1@<stage>`` and ``top5@<stage>``."""

    title, citation, version = "ImageNet linear probe", "zhang2017split", 1
    role = "imagenet"

    def evaluate(
        self,
        backbone: Backbone,
        train: Dataset,
        test: Dataset,
        *,
        seed: int,
        fabric: Fabric,
        attempt: Attempt,
        how: Execution,
    ) -> Measured:
        """Train all heads, choose a rate for each stage on the held-out slice, measure those heads on ``test``."""
        if train.classes != test.classes:
            raise BenchError(f"{train.name} and {test.name} have different classes")
        torch.manual_seed(derive(seed, "probe"))
        heads = LinearHeads(backbone, self.definition, len(train.classes), fabric)
        held = held_out(train.ids, train.labels, self.definition["heldout"])
        fit, choose = subset(train, np.flatnonzero(~held)), subset(train, np.flatnonzero(held))
        training = _train(heads, fit, self.recipe(), seed=seed, fabric=fabric, attempt=attempt, how=how)
        chosen, selection, warnings = self._choose(heads, choose, fabric, how)
        evidence = _measure(heads, chosen, test, fabric, how)
        evidence["stages"] = np.array(backbone.stages)
        return Measured(evidence, selection, training, warnings)

    def recipe(self) -> Recipe:
        """The definition in the words of the loop; rates multiply the optimiser's 1.0."""
        d = self.definition
        drops = MultiStep(at=tuple(epoch / d["epochs"] for epoch in d["steps"]))
        return Recipe(
            epochs=d["epochs"],
            batch=d["batch"],
            optimiser=SGD(
                lr=1.0, momentum=d["momentum"], nesterov=True, weight_decay=d["weight_decay"], schedule=drops
            ),
        )

    def _choose(
        self, heads: LinearHeads, choose: Dataset, fabric: Fabric, how: Execution
    ) -> tuple[list[int], dict[str, Any], list[str]]:
        """For each stage the rate (its index) with the best held-out top-1; the smaller one of equals."""

        def hits(batch: Batch) -> Tensor:
            scores = torch.stack(list(heads(batch.views).values()), 1)
            return (scores.argmax(-1) == batch.label[:, None, None]).float()

        rates = self.definition["rates"]
        accuracy = 100 * _over(heads, choose, hits, fabric, how).mean(0)
        chosen = [int(row.argmax()) for row in accuracy]
        heldout, warnings = {}, []
        for stage, best, row in zip(heads.heads, chosen, accuracy.tolist(), strict=True):
            scores = {str(rate): round(score, 3) for rate, score in zip(rates, row, strict=True)}
            heldout[stage] = {"chosen_rate": rates[best], "top1": scores}
            if len(rates) > 1 and best in (0, len(rates) - 1):
                warnings.append(f"{stage}: the chosen rate {rates[best]} is at the edge of the sweep")
        return chosen, {"rule": self.definition["selection"], "n": len(choose), "heldout": heldout}, warnings

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


def _train(heads: LinearHeads, fit: Dataset, recipe: Recipe, **how: Any) -> dict[str, Any]:
    return train(heads, fit, recipe, **how)


def _measure(heads: LinearHeads, chosen: list[int], test: Dataset, fabric: Fabric, how: Execution) -> Evidence:
    """Ranks and predictions of the chosen heads on the test images; no other head sees them."""

    def rank_and_prediction(batch: Batch) -> Tensor:
        scores = heads(batch.views)
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
    batch = how.micro_batch or 256
    return embed(heads, dataset, function, heads.test_view, seed=0, fabric=fabric, workers=how.workers, batch=batch)
