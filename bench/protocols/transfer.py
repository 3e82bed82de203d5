"""From pretrained weights to a net that is fine-tuned on another task: what is done to them first, and in which order.

An AlexNet gets, in this order: its BatchNorm absorbed into the convolutions, fc6 and fc7 on top, and all of them
scaled to learn at one pace (``magic_init -cs``); a fresh output layer is the protocol's own. What of it a protocol
does is part of its identity. A backbone that is no chain of layers (a ResNet) is taken as it is. Importing this
imports no torch.

Sources: Kraehenbuehl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural Networks"
(ICLR 2016), section 4; Zhang, Isola, Efros (ECCV 2016, CVPR 2017), who rescale pretrained weights so.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from bench import registry
from bench.errors import BenchError
from bench.suite import Strict

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from bench.backbones.base import Backbone
    from bench.data.base import Dataset


class Transfer(Strict):
    """The words of it: a table ``transfer`` of a protocol's definition."""

    colour: bool = False
    """A net of lightness, L, takes Lab, with weights of 0 on a and b (Zhang et al. 2016, section 3.2)."""
    absorb: bool
    """BatchNorm is folded into the convolution before it; otherwise it stays, and fc6 and fc7 have none."""
    fc: tuple[PositiveInt, ...] = ()
    """Widths of fc6, fc7, ..., each with ReLU and a dropout of 0.5; empty: nothing is put on top."""
    fc_init: Literal["weights", "gaussian", "kmeans"] = "gaussian"
    """Where they start: at what the pretrained weights bring, at N(0, ``fc_std``), or at filters from the data."""
    fc_missing: Literal["refuse", "gaussian", "kmeans"] = "refuse"
    """With ``weights``: what happens to weights that bring no fc6."""
    fc_std: NonNegativeFloat = 0.01
    """For the papers' 9,216 and 4,096 inputs, of which a layer then keeps the scale. With few inputs it takes about
    1 / sqrt(inputs): after 0.01 there, rescaling leaves biases a hundred times larger than what images change."""
    fc_bias: NonNegativeFloat = 0.1
    rescale: bool
    """Whether all layers, conv1 to the last fc, are scaled until their gradient-to-weight ratios agree."""
    rescale_except: tuple[str, ...] = ()
    """Methods whose weights are left as they are all the same."""
    batches: PositiveInt = 10
    """Of training images, without labels, that rescaling and k-means look at."""
    images: PositiveInt = 16
    """In each of these batches."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.rescale and not self.absorb:
            raise ValueError("BatchNorm undoes rescaling: absorb it first")
        if self.fc_init != "weights" and self.fc_missing != "refuse":
            raise ValueError("fc_missing speaks of fc_init = 'weights' only")
        return self

    @property
    def takes_any(self) -> bool:
        """Whether nothing is done to the weights, so that any backbone will do."""
        return not (self.colour or self.absorb or self.fc or self.rescale)

    def obstacle(self, backbone: str) -> str:
        """Why a backbone cannot be prepared so; empty where it can."""
        pooled = registry.entry("backbones", backbone).facts.get("global_pool", False)
        return f"{backbone} takes no fc6 and fc7" if pooled and not self.takes_any else ""


class Prepared(NamedTuple):
    """A net that is ready to be fine-tuned, and what was done to it."""

    backbone: Backbone
    """In eval mode; where the definition puts one on, ``fc`` is (B, C, h, w) of the last stage -> (B, D)."""
    record: dict[str, Any]
    """For the result's ``training``, plain JSON: ``matched``, the share of the weights that arrived, and ``steps``."""

    def told(self) -> str:
        """The record, for people."""
        return f"weights: {self.record['matched']} matched; {', '.join(self.record['steps']) or 'taken as they are'}"


def images(dataset: Dataset, backbone: Backbone, spec: Transfer, generator: Generator) -> list[Tensor]:
    """The training images that :func:`prepared` looks at: uint8 (batch, 3, S, S) each; none where it looks at none."""
    from bench.data import draws

    if not (spec.rescale or "kmeans" in (spec.fc_init, spec.fc_missing)):
        return []
    return draws.batches(dataset, backbone.input_side, count=spec.batches, size=spec.images, generator=generator)


def prepared(
    backbone: Backbone, images: Sequence[Tensor], spec: Transfer, *, method: str, generator: Generator
) -> Prepared:
    """The net to fine-tune; ``backbone`` is left as it is.

    Args:
        backbone: as pretrained.
        images: batches of training images (B, 3, S, S), as :func:`images` draws them.
        method: how the backbone got its weights: some are not rescaled.
        generator: on the CPU; all that is drawn comes from it.

    Raises:
        BenchError: the backbone takes no fc6 and fc7, or its weights bring none and the definition wants them; it takes
            no lightness, and the definition adds colour; a value of the backbone did not arrive; a layer that no
            gradient reaches.
    """
    from bench.backbones.initialise import absorb_batch_norm, rescale_

    if spec.takes_any:
        return Prepared(copy.deepcopy(backbone).eval(), {"matched": "100 %", "steps": []})
    if why := spec.obstacle(backbone.config["backbone"]):
        raise BenchError(f"{why}: its weights cannot be prepared for this protocol", mend="choose an AlexNet")
    backbone, steps = (_with_colour(backbone), ["a and b taken in"]) if spec.colour else (backbone, [])
    brings = spec.fc_init == "weights" and backbone.fc is not None
    absorbs = spec.absorb and bool(_norms(backbone))
    made = _with_fc(absorb_batch_norm(backbone) if absorbs else backbone, spec, brings)
    steps += ["BatchNorm absorbed"] if absorbs else []
    steps += [f"fc from {_start_fc_(made, images, spec, brings, generator)}"] if spec.fc else []
    if spec.rescale and method not in spec.rescale_except:
        rescale_(made, images, generator)
        steps.append("rescaled")
    return Prepared(made.eval(), {"matched": "100 %", "steps": steps})


def freeze_(net: Backbone, frozen: Sequence[str], affine: bool = True) -> None:
    """What learns nothing: stages by name, ``trunk`` for all of them, ``fc`` for fc6 and fc7. The rest learns.

    ``affine``: so do the scales and shifts of BatchNorm there; otherwise these learn everywhere.

    Raises:
        BenchError: a part that the backbone does not have.
    """
    net.requires_grad_(True)
    for part in frozen:
        found = [p for name, p in net.named_parameters() if name.startswith(f"{part}.")]
        if part == "trunk":
            found = [p for name, p in net.named_parameters() if not name.startswith("fc.")]
        if not found:
            raise BenchError(f"{net.config['backbone']} has no {part!r} to freeze")
        for parameter in found:
            parameter.requires_grad_(False)
    if not affine:
        for norm in _norms(net):
            norm.requires_grad_(True)


def hold_statistics_(net: nn.Module, all_of_them: bool = False) -> None:
    """After ``net.train()``: BatchNorms that learn nothing (or all) go on with the running statistics they have."""
    for norm in _norms(net):
        if all_of_them or not any(p.requires_grad for p in norm.parameters()):
            norm.eval()


def _with_colour(source: Backbone) -> Backbone:
    """The twin that takes Lab and, as long as its weights on a and b are 0, computes the same.

    Raises:
        BenchError: it does not take lightness.
    """
    import torch

    from bench.backbones.base import twin

    facts = source.preprocess.to_dict()
    if facts["space"] != "l":
        raise BenchError(
            f"its weights take {facts['space']}, not lightness, so there is no colour to add",
            where=source.config["backbone"],
            mend="measure it under a variant without transfer.colour",
        )
    made = twin(source, preprocess={**facts, "space": "lab", "mean": [*facts["mean"], 0.0, 0.0]})
    tensors, first = source.state_dict(), f"{next(iter(source.chain()))}.weight"
    on_ab = torch.zeros_like(tensors[first]).repeat(1, 2, 1, 1)
    made.load_state_dict({**tensors, first: torch.cat([tensors[first], on_ab], 1)})
    return made


def _norms(net: nn.Module) -> list[_BatchNorm]:
    from torch.nn.modules.batchnorm import _BatchNorm

    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def _with_fc(source: Backbone, spec: Transfer, brings: bool) -> Backbone:
    """The same trunk under fc6, fc7; exactly the source's tensors, by their names, and the fc's where it brings them.

    Raises:
        BenchError: a tensor has no counterpart of its name and shape.
    """
    from bench.backbones.base import twin

    made = twin(source, norm="batch-conv" if _norms(source) else "none", fc=spec.fc)
    theirs, ours = _wanted(source, brings), _wanted(made, brings)
    wrong = sorted(n for n in theirs.keys() | ours.keys() if _shape(theirs, n) != _shape(ours, n))
    if wrong:
        name = wrong[0]
        raise BenchError(
            f"{len(wrong)} of {len(ours)} tensors do not fit: {name} is {_shape(theirs, name)} in the weights, "
            f"{_shape(ours, name)} in the net",
            where=source.config["backbone"],
        )
    for name, value in theirs.items():
        ours[name].copy_(value)
    return made


def _wanted(backbone: Backbone, fc: bool) -> dict[str, Tensor]:
    return {name: value for name, value in backbone.state_dict().items() if fc or not name.startswith("fc.")}


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return "x".join(map(str, tensors[name].shape)) or "scalar" if name in tensors else "absent"


def _start_fc_(made: Backbone, images: Sequence[Tensor], spec: Transfer, brings: bool, generator: Generator) -> str:
    """Give fc6, fc7 their first values; which ones."""
    from bench.backbones.initialise import Layer, gaussian_, kmeans_

    if brings:
        return "weights"
    how = spec.fc_missing if spec.fc_init == "weights" else spec.fc_init
    if how == "refuse":
        raise BenchError(
            "its weights bring no fc6 and fc7, from which this variant starts",
            where=made.config["backbone"],
            mend="measure it under a variant with another fc_init",
        )
    assert made.fc is not None
    if how == "kmeans":
        kmeans_(made, images, generator, only=[name for name in made.chain() if name.startswith("fc.")])
        return how
    gaussian_(made.fc, spec.fc_std, generator)
    for layer in made.fc.modules():
        if isinstance(layer, Layer) and layer.bias is not None:
            layer.bias.data.fill_(spec.fc_bias)
    return how
