"""The golden numbers that force a version bump: a tiny fixed-seed run of every built-in method, backbone and protocol.

``BENCH_UPDATE_GOLDEN=1`` writes what is new or has a new version into ``golden/versions.json``; it refuses to change
numbers under an unchanged version. What a method's recipe, a backbone's arguments and a protocol's definition say is in
the digests of results anyway (``states`` here), so a change there may be written anew without a bump.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench import registry
from bench.backbones.base import build
from bench.files import write_json
from bench.identity import digest
from bench.methods.base import make
from bench.protocols import definitions
from bench.run import open_role
from bench.runfolder import RunFolder
from bench.suite import load as load_suite
from bench.training.device import derive, fabric
from bench.training.loop import Execution, train

GOLDEN = Path(__file__).parent / "golden" / "versions.json"
TOLERANCE = {"rel": 1e-3, "abs": 1e-5}
"""Processors round differently; what a change of the code moves is larger."""
SMALL = {
    "imagenet-linear": {"features": 64, "batch": 16, "epochs": 2, "steps": [1], "rates": [0.01, 0.1], "heldout": 0.25}
}
"""By protocol, the overrides that make a run of seconds on toy images; the others run as at the suite ``smoke``."""
THINGS = [(kind, e.key) for kind in ("methods", "backbones", "protocols") for e in registry.entries(kind)]
BUILT_IN = [(kind, key) for kind, key in THINGS if registry.entry(kind, key).origin == "built-in"]


@pytest.mark.parametrize(("kind", "key"), BUILT_IN, ids=lambda value: value)
def test_numbers_move_with_the_version_only(kind, key, tmp_path):
    if kind == "protocols" and key not in SMALL | load_suite("smoke").protocols:
        pytest.fail(f"{key} has no tiny run: give it one in SMALL, or overrides at the suite smoke")
    measure = {"methods": _method, "backbones": _backbone, "protocols": _protocol}[kind]
    states, numbers = measure(key, tmp_path)
    now = {"version": registry.entry(kind, key).version, "states": digest(states), "numbers": numbers}
    refused = hold(GOLDEN, f"{kind[:-1]} {key}", now, update=bool(os.environ.get("BENCH_UPDATE_GOLDEN")))
    assert not refused, refused


def hold(file, name, now, *, update):
    """What is wrong with the numbers of ``name``, "" where nothing is; with ``update`` they may be written."""
    stored = json.loads(file.read_text()) if file.is_file() else {}
    old = stored.get(name)
    if old is not None and all(old[key] == now[key] for key in ("version", "states")):
        moved = _moved(old["numbers"], now["numbers"])
        return moved and f"{moved}: bump the version of {name} (it is {now['version']}) or restore the behaviour"
    if update:
        write_json(file, dict(sorted((stored | {name: now}).items())))
        return ""
    what = f"{name} has no golden numbers" if old is None else f"{name} has another version or recipe than its numbers"
    return f"{what}: BENCH_UPDATE_GOLDEN=1 python -m pytest tests/test_golden_versions.py writes them, then commit them"


def _moved(old, new):
    if old.keys() != new.keys():
        return f"other numbers than before ({', '.join(sorted(old.keys() ^ new.keys()))})"
    for name, value in new.items():
        if value != pytest.approx(old[name], **TOLERANCE):
            return f"{name} was {old[name]} and is {value}"
    return ""


def _method(key, folder):
    """Three updates, then the exported features."""
    recipe = registry.entry("methods", key).facts.get("recipe")
    states = {k: v for k, v in recipe.to_dict().items() if k != "source"} if recipe else None
    data = ToyImages(24)
    task = make(key, "alexnet-smoke", {}, seed=0)
    task.setup(data)
    numbers = {}
    if recipe is None:
        task.prepare(data, torch.Generator().manual_seed(derive(0, "prepare")))
    else:
        done = train(task, data, recipe.scaled(epochs=3, batch=24), seed=0, **_execution("pretrain", folder))
        numbers |= _curve(done["curve"])
    return states, numbers | _features(task.export().eval(), data.images[:16, :, 2:30, 2:30])


def _backbone(key, folder):
    """Fresh weights in training mode, on noise."""
    torch.manual_seed(0)
    backbone = build(key)
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)
    numbers = {"input_side": backbone.input_side} | _features(backbone.train(), torch.from_numpy(noise))
    return registry.entry("backbones", key).facts.get("variants", {}).get(key), numbers


def _protocol(key, folder):
    """Variant ``standard`` on fresh weights: training, held-out scores, and what it measures."""
    suite = load_suite("smoke")
    if key in SMALL:
        suite = suite.model_copy(update={"protocols": {key: SMALL[key]}})
        train_set, test_set = ToyImages(64), ToyImages(48, name="toy/test")
    else:
        role = suite.role(definitions.load(key).role)
        train_set, test_set = (open_role(role, split, data=folder, cache=folder) for split in ("train", "test"))
    variant = definitions.load(key).variant("standard", suite)
    torch.manual_seed(0)
    backbone = build("alexnet-smoke")
    protocol = registry.entry("protocols", key).load()(variant)
    measured = protocol.evaluate(
        backbone, train_set, test_set, method="rotation", seed=0, **_execution("evaluate", folder)
    )
    numbers = _curve(measured.training["curve"])
    for place, scores in measured.selection["heldout"].items():
        numbers |= {f"held-out {place} at {rate}": score for rate, score in scores["top1"].items()}
    numbers |= {
        name: _short(column["value"])
        for name, column in protocol.columns(measured.evidence).items()
        if not name.startswith(("ap_", "iou_"))  # of single classes: their means will do
    }
    return variant.definition, numbers


def _execution(kind, folder):
    spec = {"kind": kind, "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    attempt = RunFolder.create(folder, spec).take("test")
    return {"fabric": fabric(), "attempt": attempt, "how": Execution(workers=0)}


def _curve(curve):
    numbers = [{k: v for k, v in point.items() if k not in ("update", "epoch", "lr")} for point in curve]
    return {f"{name} {i}": value for i, point in enumerate(numbers) for name, value in point.items()}


@torch.no_grad()
def _features(backbone, images):
    numbers = {}
    for stage, features in backbone(images).items():
        numbers |= {f"{stage} mean": _short(features.mean()), f"{stage} std": _short(features.std())}
    return numbers


def _short(value):
    return float(f"{float(value):.6g}")


def test_a_change_under_the_same_version_is_refused_also_when_updating(tmp_path):
    file = tmp_path / "versions.json"
    old = {"version": 1, "states": "a", "numbers": {"loss 0": 1.5}}
    assert "has no golden numbers: BENCH_UPDATE_GOLDEN=1" in hold(file, "method x", old, update=False)
    assert not file.exists()
    assert hold(file, "method x", old, update=True) == ""
    assert hold(file, "method x", old | {"numbers": {"loss 0": 1.5001}}, update=False) == ""
    for numbers in ({"loss 0": 1.51}, {"loss 0": float("nan")}, {"loss 1": 1.5}, {}):
        for update in (False, True):
            refused = hold(file, "method x", old | {"numbers": numbers}, update=update)
            assert "bump the version of method x (it is 1) or restore the behaviour" in refused
    assert json.loads(file.read_text()) == {"method x": old}


def test_a_new_version_is_written_only_when_updating(tmp_path):
    file = tmp_path / "versions.json"
    hold(file, "method x", {"version": 1, "states": "a", "numbers": {"loss 0": 1.5}}, update=True)
    new = {"version": 2, "states": "a", "numbers": {"loss 0": 2.5}}
    assert "another version" in hold(file, "method x", new, update=False)
    assert hold(file, "method x", new, update=True) == ""
    assert json.loads(file.read_text())["method x"] == new


def test_nothing_is_stored_of_what_is_gone():
    known = {f"{kind[:-1]} {key}" for kind, key in BUILT_IN}
    gone = sorted(json.loads(GOLDEN.read_text()).keys() - known)
    assert not gone, f"remove {gone} from {GOLDEN.name}"
