"""What makes a number that number: specs, their hashes, and the digests by which results are matched.

Torch-free: what is needed of methods, backbones and protocols is read from their sources.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bench import registry
from bench.files import canonical
from bench.protocols import definitions
from bench.suite import Suite
from bench.training.recipe import Recipe

Spec = dict[str, Any]


def digest(value: Any, length: int = 16) -> str:
    """The first ``length`` hex digits of the sha256 of the value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def run_id(spec: Spec) -> str:
    """``<kind>-<method>-<backbone>-<suite>-s<seed>-<8 hex>``."""
    return "-".join(
        [spec["kind"], spec["method"], spec["backbone"], spec["suite"], f"s{spec['seed']}", digest(spec, 8)]
    )


def recipe(suite: Suite, method: str) -> Recipe | None:
    """The method's recipe at the suite's budget; None for a method that trains nothing."""
    own: Recipe | None = registry.entry("methods", method).facts.get("recipe")
    return None if own is None else suite.recipe(method, own)


def pretraining_role(method: str) -> str:
    """The suite's role that a method trains on, by what it needs."""
    return role_by_needs(registry.entry("methods", method).facts.get("needs", {"image"}))


def role_by_needs(needs: set[str]) -> str:
    """The suite's role for labels, clips, or images alone."""
    return "imagenet" if "label" in needs else "clips" if "clip" in needs else "pretrain"


def pretraining(suite: Suite, method: str) -> dict[str, Any]:
    """Recipe, data and budget of a method's pretraining at a suite, as plain JSON."""
    made = recipe(suite, method)
    name = pretraining_role(method)
    role = suite.role(name)
    return {
        "recipe": made.to_dict() if made else None,
        "data": {
            "dataset": role.dataset,
            "splits": list(role.train),
            "options": {**role.options, **role.train_options},
            # the slice on which probes choose their learning rate: no method trains with its labels
            "without_heldout": definitions.heldout_share(suite) if name == "imagenet" else 0.0,
        },
    }


def heldout(suite: Suite, method: str) -> dict[str, Any] | None:
    """What the pretext metric is measured on: reported, and nothing is chosen by it. None: the suite names nothing."""
    role = suite.role(pretraining_role(method))
    if not role.test:
        return None
    return {"dataset": role.dataset, "splits": list(role.test), "options": {**role.options, **role.test_options}}


def pretraining_data(suite: Suite, method: str) -> str:
    """``tiny-imagenet-50/train+unlabelled``: what a row was pretrained on."""
    return suite.role(pretraining_role(method)).name()


def current(suite: Suite, method: str, backbone: str, protocol: str, variant: str) -> dict[str, Any]:
    """What a fresh result of that cell would carry; a result that differs in any of these is stale."""
    return {
        "protocol_digest": definitions.load(protocol).variant(variant, suite, backbone).digest,
        "method_version": registry.entry("methods", method).version,
        "backbone_version": registry.entry("backbones", backbone).version,
        "pretraining_digest": digest(pretraining(suite, method)),
    }
