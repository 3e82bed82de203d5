"""What every registered method must do: a new one is tested by existing."""

import inspect
import os

import pytest
import torch
from toydata import ToyImages

from bench import registry
from bench.checkpoints import card
from bench.data.loader import Loader
from bench.errors import BenchError
from bench.methods.base import make
from bench.methods.pretext import measure, write_picture
from bench.runfolder import RunFolder
from bench.training.device import derive, fabric
from bench.training.loop import Execution, Interrupted, train
from bench.training.task import Step

ONE = os.environ.get("BENCH_CONTRACT")
FOUND = [e for e in registry.entries("methods") if e.origin != "added" and ONE in (None, e.key)]
ALL = [e.key for e in FOUND]
TRAINED = [e.key for e in FOUND if e.facts.get("recipe") is not None]
BACKBONES = ["alexnet-smoke", "alexnet-mini"]


def _prepared(method, backbone="alexnet-smoke", data=None, seed=0):
    data = data or ToyImages()
    task = make(method, backbone, {}, seed=seed)
    task.setup(data)
    torch.manual_seed(derive(seed, "prepare"))
    task.prepare(data, torch.Generator().manual_seed(derive(seed, "prepare")))
    return task, data


def _batch(task, data, size=16, epoch=0):
    with Loader(data, task.view, seed=0, batch=size, workers=0) as loader:
        return next(iter(loader.epoch(epoch, task.order(epoch, len(data), torch.Generator().manual_seed(epoch)))))


def _losses(task, batch, update=0, updates=100):
    torch.manual_seed(update)
    return task.losses(batch, Step(0, update, updates), torch.Generator().manual_seed(update))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", TRAINED)
def test_losses_are_finite_on_every_backbone(method, backbone):
    task, data = _prepared(method, backbone)
    for _, loss in _losses(task.train(), _batch(task, data)):
        assert loss.total.isfinite()
        assert loss.total.ndim == 0
        assert all(torch.as_tensor(m).isfinite() for m in loss.metrics.values())


@pytest.mark.parametrize("method", TRAINED)
def test_gradients_reach_every_stage(method):
    task, data = _prepared(method)
    for _, loss in _losses(task.train(), _batch(task, data)):
        loss.total.backward()
    trained = {id(p) for those in task.parameters_of().values() for p in those}
    convs = [p for n, p in task.named_parameters() if "conv" in n and n.endswith("weight") and p.ndim == 4]
    assert len(convs) >= 5
    for parameter in convs:
        assert id(parameter) in trained
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("method", TRAINED)
def test_the_loss_falls_on_one_batch(method):
    task, data = _prepared(method)
    names = list(task.parameters_of())
    optimisers = {
        n: torch.optim.Adam([p for p in ps if p.requires_grad], lr=2e-3) for n, ps in task.parameters_of().items()
    }
    batch = _batch(task, data)
    curve = []
    for _ in range(40):
        totals = 0.0
        for name, loss in _losses(task.train(), batch):
            optimisers[name].zero_grad()
            loss.total.backward()
            optimisers[name].step()
            totals += float(loss.total.detach())
        curve.append(totals)
    if len(names) == 1:
        assert sum(curve[-5:]) / 5 < 0.9 * curve[0], curve[::8]


@pytest.mark.parametrize("method", TRAINED)
def test_stopped_and_resumed_is_bit_identical(method, tmp_path):
    recipe = registry.entry("methods", method).facts["recipe"].scaled(epochs=2, batch=32)

    def run(folder, stop):
        data = ToyImages()
        task = make(method, "alexnet-smoke", {}, seed=0)
        task.setup(data)
        attempt = folder.take("test")
        calls = iter(range(1000))
        how = Execution(workers=0, stop=lambda: stop is not None and next(calls) == stop)
        try:
            record = train(task, data, recipe, seed=0, fabric=fabric(), attempt=attempt, how=how)
        except Interrupted:
            attempt.end("CANCELLED", "test")
            return None
        return task, record

    spec = {"kind": "pretrain", "method": method, "backbone": "b", "suite": "s", "seed": 0}
    whole, record = run(RunFolder.create(tmp_path / "whole", spec), None)
    folder = RunFolder.create(tmp_path / "broken", spec)
    assert run(folder, 1) is None
    assert run(folder, 1) is None
    pieces, again = run(folder, None)
    assert again["curve"] == record["curve"]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, pieces.state_dict()[key]), key


@pytest.mark.parametrize("method", ALL)
def test_same_seed_same_weights_other_seed_others(method):
    a, b, c = (_prepared(method, seed=s)[0].export().state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("method", ALL)
def test_the_export_loads_with_every_parameter_matched(method, tmp_path):
    task, data = _prepared(method)
    exported = task.export()
    card.save(tmp_path, exported, {"method": method})
    loaded, _ = card.load(tmp_path)
    images = torch.stack([data[i].image for i in range(4)])[..., :28, :28]
    for stage, features in exported.eval()(images).items():
        torch.testing.assert_close(loaded(images)[stage], features)
        assert features.isfinite().all()
        assert features.std() > 1e-6, f"{stage} is dead"


@pytest.mark.parametrize("value", [-1, True, "no-such", [], ["no-such"], {"a": 1}, float("nan")], ids=repr)
@pytest.mark.parametrize("method", ALL)
def test_an_option_is_taken_or_refused_as_bad_input(method, value):
    for option in list(inspect.signature(registry.entry("methods", method).load()).parameters)[1:]:
        try:
            made = make(method, "alexnet-smoke", {option: value}, seed=0)
        except BenchError:
            continue  # any other exception is a traceback for the user
        assert type(value) in (bool, int, str), f"{option} took {value!r}"
        assert made.backbone.stages


@pytest.mark.parametrize("method", TRAINED)
def test_the_pretext_metric_and_its_chance(method, tmp_path):
    task, data = _prepared(method)
    found = measure(task, ToyImages(64, name="toy/held"), batch=32, seed=0, fabric=fabric(), workers=0)
    assert found["n"] == 64
    assert found["value"] is not None, f"{task.metric} is not among the loss's metrics {sorted(found['all'])}"
    assert found["chance"] is not None
    drawn = write_picture(task, data, tmp_path / "samples.png", seed=0, fabric=fabric())
    assert drawn == (tmp_path / "samples.png").exists()


@pytest.mark.parametrize("method", TRAINED)
def test_views_are_uint8_and_a_function_of_the_generator(method):
    import numpy as np

    task, data = _prepared(method)

    def leaves(value):
        if isinstance(value, torch.Tensor):
            return [value]
        return [x for v in (value.values() if isinstance(value, dict) else value) for x in leaves(v)]

    a, b = (leaves(task.view(data[3], np.random.default_rng(5))) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert any(x.dtype == torch.uint8 for x in a), "pixels stay uint8 until they are on the device"
