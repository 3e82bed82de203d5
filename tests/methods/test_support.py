"""Every method on a toy backbone of each architecture that it supports, and refused in one line on the others."""

import re
import sys

import pytest
import torch
from torch import nn
from toydata import ToyImages

from bench import plan as planning
from bench import registry
from bench.cli import main
from bench.data.loader import Loader
from bench.errors import BenchError
from bench.identity import recipe
from bench.methods.base import PretextTask, make
from bench.paths import declared
from bench.report import spec as tables
from bench.report.cell import Place
from bench.suite import load as load_suite
from bench.training.device import derive
from bench.training.task import Step

TOYS = {"alexnet": "alexnet-smoke", "resnet": "resnet-smoke", "nin": "nin-smoke"}
SHAPES = {**TOYS, "resnet v2": "resnet-v2-smoke"}
METHODS = [entry for entry in registry.entries("methods") if entry.origin != "added"]
RUNS = [
    pytest.param(e.key, key, id=f"{e.key}-{key}")
    for e in METHODS
    for name, key in SHAPES.items()
    if name.split()[0] in registry.families(e.key)
]
REFUSED = [(e.key, key) for e in METHODS for name, key in TOYS.items() if name not in registry.families(e.key)]


def test_every_architecture_has_a_toy_and_no_method_names_another():
    built_in = {registry.family(e.key) for e in registry.entries("backbones") if e.origin == "built-in"}
    assert built_in == set(TOYS) == PretextTask.supports
    for method in METHODS:
        assert set(registry.families(method.key)) <= built_in


@pytest.mark.parametrize(("method", "backbone"), RUNS)
def test_it_runs_there(method, backbone):
    data = ToyImages(64)
    task = make(method, backbone, {}, seed=0)
    task.setup(data)
    torch.manual_seed(derive(0, "prepare"))
    task.prepare(data, torch.Generator().manual_seed(0))
    if task.recipe is not None:
        _one_update(task, data)
    exported = task.export().eval()
    side = exported.input_side
    images = torch.stack([data[i].image for i in range(4)])[..., :side, :side]
    features = exported(images)
    assert list(features) == list(exported.stages)
    assert all(x.isfinite().all() and x.std() > 1e-7 for x in features.values())


def _one_update(task, data):
    """Finite losses, gradients in every convolution of the trunk, weights that move."""
    with Loader(data, task.view, seed=0, batch=16, workers=0) as loader:
        batch = next(iter(loader.epoch(0, task.order(0, len(data), torch.Generator().manual_seed(0)))))
    specs = task.optimisers(task.recipe)
    optimisers = {
        name: task.optimiser_of(name, specs[name], [p for p in those if p.requires_grad])
        for name, those in task.parameters_of().items()
    }
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    torch.manual_seed(0)
    for name, loss in task.train().losses(batch, Step(0, 0, 100), torch.Generator().manual_seed(0)):
        assert loss.total.isfinite()
        assert all(torch.as_tensor(m).isfinite() for m in loss.metrics.values())
        loss.total.backward()
        optimisers[name].step()
    trunk = [m for part in _trunks(task) for m in part.modules() if isinstance(m, nn.Conv2d)]
    assert len(trunk) >= 5
    for module in trunk:
        assert module.weight.grad is not None
        assert module.weight.grad.abs().sum() > 0
    moved = [name for name, p in task.named_parameters() if not torch.equal(before[name], p)]
    assert len(moved) > len(trunk)
    assert all(p.isfinite().all() for p in task.parameters())


def _trunks(task):
    """The backbone that trains, or its two halves."""
    return task.halves if hasattr(task, "halves") else [task.backbone]


@pytest.mark.parametrize(("method", "backbone"), REFUSED)
def test_it_is_refused_elsewhere(method, backbone):
    known = ", ".join(registry.families(method))
    said = f"{method} does not run on {registry.family(backbone)}: it runs on {known}"
    with pytest.raises(BenchError) as refused:
        make(method, backbone, {}, seed=0)
    assert str(refused.value) == said
    with pytest.raises(BenchError, match="does not run on"):
        planning.pretrain(load_suite("smoke"), method, lambda *_: "0" * 16, seed=0, backbone=backbone)


def test_third_parties_backbones_take_what_takes_all(monkeypatch):
    monkeypatch.setattr(registry, "family", lambda backbone: "vit")
    assert registry.misfit("rotation", "vit-tiny") == ""
    assert registry.misfit("split-brain", "vit-tiny") == "split-brain does not run on vit"


def test_a_plan_leaves_the_row_out_and_the_table_says_why():
    suite, spec = load_suite("resnet50"), tables.load("imagenet-linear")
    made = planning.plan([spec], suite, lambda *_: "0" * 16)
    trained = {run.spec["method"] for run in made.runs}
    assert {e.key for e in METHODS if "resnet" in registry.families(e.key)} <= trained
    assert not trained & {e.key for e in METHODS if "resnet" not in registry.families(e.key)}
    reasons = {row.reason for row in made.skipped}
    assert "not implemented (split-brain does not run on resnet)" in reasons
    data = suite.role("pretrain").name()
    place = Place(suite, "split-brain", "{}", "resnet50", data, "imagenet-linear", "standard")
    assert place.obstacle("top1@conv1") == "split-brain does not run on resnet"
    place = Place(suite, "rotation", "{}", "resnet50", data, "imagenet-linear", "standard")
    assert place.obstacle("top1@conv1") == ""
    assert place.obstacle("top1@conv3") == "resnet50 has no stage conv3"


def test_rows_without_an_algorithm_say_why_once_each():
    suite = load_suite("resnet50")
    made = planning.plan([tables.load(name) for name in ("imagenet-linear", "voc")], suite, lambda *_: "0" * 16)
    said = [(row.row, row.reason) for row in made.skipped]
    assert len(set(said)) == len(said)
    assert ("Tracking (Wang&Gupta 2015)", f"not implemented ({tables._published_only()['tracking']})") in said
    assert all(reason.startswith("not implemented (") for _, reason in said)


@pytest.mark.parametrize(("suite", "architecture"), [("alexnet", "alexnet"), ("resnet50", "resnet")])
def test_a_dry_run_on_a_cluster_lists_every_run_of_every_method(suite, architecture, tmp_path, monkeypatch, capsys):
    profile = declared("slurm") / "profiles" / "template.toml"
    asked = ["reproduce", "imagenet-linear", "--suite", suite, "--on", str(profile), "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["bench", *asked, "--runs", str(tmp_path), "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    out = capsys.readouterr().out
    backbone = load_suite(suite).backbone
    for method in METHODS:
        fits = architecture in registry.families(method.key)
        for kind in ("pretrain", "evaluate"):
            runs = re.findall(rf"^#? .*{kind}-{method.key}-{backbone}-{suite}-s0-[0-9a-f]{{8}}$", out, flags=re.M)
            assert bool(runs) == fits, f"{kind} {method.key}"
    assert "GPU-hours" in out
    assert not list(tmp_path.glob("*/spec.json"))


def test_the_suite_changes_what_the_literature_does():
    suite = load_suite("resnet50")
    rotation = recipe(suite, "rotation")
    sgd = rotation.optimisers()["main"]
    assert (rotation.epochs, rotation.batch, sgd.lr, sgd.weight_decay, sgd.nesterov) == (70, 128, 0.2, 1e-4, False)
    assert sgd.schedule.factor(29.9 / 70) == 1
    assert sgd.schedule.factor(30.1 / 70) == pytest.approx(0.1)
    assert sgd.warmup == pytest.approx(5 / 70)
    settings = suite.methods["rotation"].model_copy(update={"nesterov": True})
    odd = suite.model_copy(update={"methods": {"colorization": settings}})
    with pytest.raises(BenchError, match="colorization has no such optimiser"):
        recipe(odd, "colorization")


def test_the_papers_random_needs_a_chain():
    with pytest.raises(BenchError, match="resnet-smoke is not a chain of layers"):
        make("random", "resnet-smoke", {"init": "gaussian"}, seed=0)
