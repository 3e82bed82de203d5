"""Weights on disk: ``backbone.safetensors``, and ``card.json``, which says all that is needed to use them.

A card is one JSON object. ``schema``, ``backbone`` (the key), ``overrides`` (of the variant's arguments),
``backbone_version``, ``stages``, ``preprocess`` and ``weights_sha256`` (of the file's bytes, as ``sha256sum`` prints
it) are written here; all else are facts of whoever saves: method, data, seed, ...
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError

from bench.backbones.base import Backbone, build
from bench.backbones.preprocess import Preprocess
from bench.checkpoints.match import load_matched
from bench.errors import BenchError
from bench.files import atomic, read_json, write_json

SCHEMA = 1
WEIGHTS, CARD = "backbone.safetensors", "card.json"
OWN = ("schema", "backbone", "overrides", "backbone_version", "stages", "preprocess", "weights_sha256")
"""The keys that every card has."""

Card = dict[str, Any]


class Name(NamedTuple):
    """What weights are called: ``architecture.method_data``, as ``alexnet.rotation_in1k`` (timm's grammar)."""

    architecture: str
    method: str
    data: str

    def __str__(self) -> str:
        return f"{self.architecture}.{self.method}_{self.data}"

    @classmethod
    def parse(cls, text: str) -> Name:
        """Raises BenchError: not of that form (each part is lower-case letters, digits and hyphens)."""
        found = re.fullmatch(r"([a-z0-9-]+)\.([a-z0-9-]+)_([a-z0-9-]+)", text)
        if not found:
            raise BenchError(
                f"{text!r} is no name of weights", mend="write architecture.method_data, as alexnet.rotation_in1k"
            )
        return cls(*found.groups())


def save(folder: Path, backbone: Backbone, facts: dict[str, Any]) -> Card:
    """Write weights, then card, each atomically; the card.

    ``facts`` are plain JSON values under keys that are not the card's own.

    Raises:
        BenchError: the disk is full or the folder cannot be written.
        ValueError: a fact takes one of the card's own keys.
    """
    if taken := set(OWN) & set(facts):
        raise ValueError(f"a card writes {sorted(taken)} itself")
    state = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    weights = safetensors.torch.save(state)
    card = {
        "schema": SCHEMA,
        **backbone.config,
        "backbone_version": backbone.version,
        "stages": list(backbone.stages),
        "preprocess": backbone.preprocess.to_dict(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **facts,
    }
    with atomic(folder / WEIGHTS, "wb") as file:
        file.write(weights)
    write_json(folder / CARD, card)
    return card


def load(folder: Path) -> tuple[Backbone, Card]:
    """The backbone of a folder, on the CPU, in eval mode, and its card. Every parameter and buffer is the file's.

    Raises:
        BenchError: a file is missing or damaged; weights and card do not belong together; the backbone has changed
            since (another version, other stages); a tensor is missing, unexpected or mis-shaped.
    """
    path, weights = folder / CARD, folder / WEIGHTS
    card = _checked(read_json(path), path)
    state = _state(weights, card["weights_sha256"])
    backbone = _rebuilt(card, path)
    found = load_matched(backbone, state)
    if not found.exact:
        raise BenchError(f"the weights are not the card's: {found.report()}", where=weights)
    return backbone.eval(), card


def _checked(card: Any, path: Path) -> Card:
    lacking = [key for key in OWN if key not in card] if isinstance(card, dict) else list(OWN)
    if lacking:
        raise BenchError(f"not a card: it lacks {', '.join(lacking)}", where=path)
    if card["schema"] != SCHEMA:
        raise BenchError(f"a card of schema {card['schema']}; this bench reads {SCHEMA}", where=path)
    return card


def _state(weights: Path, sha256: str) -> dict[str, Any]:
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise BenchError(f"cannot read the weights: {error.strerror}", where=weights) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BenchError(
            "damaged or replaced: its sha256 is not the one on its card",
            where=weights,
            mend="copy both files again, or delete them and pretrain again",
        )
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise BenchError(f"not a safetensors file: {error}", where=weights) from error


def _rebuilt(card: Card, path: Path) -> Backbone:
    """A fresh backbone as the card describes it."""
    try:
        backbone = build(card["backbone"], **card["overrides"])
        backbone.preprocess = Preprocess.from_dict(card["preprocess"])
    except BenchError as error:
        raise BenchError(error.what, where=path, mend=error.mend) from error
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise BenchError(f"the card describes no backbone: {error}", where=path) from error
    now = {
        "version": (card["backbone_version"], backbone.version),
        "stages": (card["stages"], list(backbone.stages)),
        "input channels": (backbone.preprocess.channels, backbone.in_channels),
    }
    for what, (theirs, ours) in now.items():
        if theirs != ours:
            raise BenchError(
                f"the card has {what} {theirs}, {card['backbone']} has {ours}",
                where=path,
                mend="pretrain again, or use the release of pretext-bench that wrote it",
            )
    return backbone
