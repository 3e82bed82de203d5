import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toydata import ToyImages

from bench.errors import BenchError
from bench.methods.base import SGD, Loss, PretextTask, Recipe, make
from bench.runfolder import Fenced, RunFolder
from bench.training.device import derive, fabric
from bench.training.loop import Execution, Interrupted, train

SKELETONS = ("moving-targets", "two-optimisers", "two-halves", "outsider")


def _folder(tmp_path, name):
    return RunFolder.create(
        tmp_path / name, {"kind": "pretrain", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    )


def _train(folder, method, how=None, recipe=None, seed=0, data=None, precision=None):
    """Train a method on toy images to the end, or to where ``how`` stops it."""
    data = data or ToyImages()
    task = make(method, "alexnet-smoke", {}, seed=seed)
    task.setup(data)
    attempt = folder.take("test")
    try:
        record = train(
            task,
            data,
            recipe or type(task).recipe,
            seed=seed,
            fabric=fabric(precision),
            attempt=attempt,
            how=how or Execution(workers=0),
        )
    except BaseException:
        attempt.end("FAILED", "stopped")
        raise
    attempt.end("DONE")
    return task, record


def _stop_after(updates):
    calls = itertools.count(1)
    return Execution(workers=0, stop=lambda: next(calls) >= updates)


def _same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("method", [*SKELETONS, "rotation", "supervised"])
def test_stopped_and_resumed_is_bit_identical(method, skeletons, tmp_path):
    recipe = make(method, "alexnet-smoke", {}, seed=0).recipe.scaled(epochs=3, batch=32)
    whole, record = _train(_folder(tmp_path, "whole"), method, recipe=recipe)
    broken = _folder(tmp_path, "broken")
    stops = 0
    while True:
        try:
            pieces, again = _train(broken, method, how=_stop_after(2), recipe=recipe)
            break
        except Interrupted:
            stops += 1
    assert stops == 4, "9 updates in pieces of 2: mid-epoch and at its ends"
    assert _same(whole.state_dict(), pieces.state_dict())
    assert again["curve"] == record["curve"]
    assert len(record["curve"]) == record["updates"] == 9


def test_mixed_precision_on_a_cpu_resumes_to_the_same_bits(tmp_path):
    recipe = make("rotation", "alexnet-smoke", {}, seed=0).recipe.scaled(epochs=2, batch=32)
    whole, _ = _train(_folder(tmp_path, "whole"), "rotation", recipe=recipe, precision="bf16")
    broken = _folder(tmp_path, "broken")
    with pytest.raises(Interrupted):
        _train(broken, "rotation", how=_stop_after(4), recipe=recipe, precision="bf16")
    pieces, _ = _train(broken, "rotation", recipe=recipe, precision="bf16")
    assert _same(whole.state_dict(), pieces.state_dict())
    assert {p.dtype for p in whole.parameters()} == {torch.float32}, "the weights themselves stay whole"
    full, _ = _train(_folder(tmp_path, "full"), "rotation", recipe=recipe, precision="fp32")
    assert not _same(whole.state_dict(), full.state_dict())


def test_workers_do_not_change_a_bit(skeletons, tmp_path):
    none, _ = _train(_folder(tmp_path, "0"), "outsider", how=Execution(workers=0))
    two, _ = _train(_folder(tmp_path, "2"), "outsider", how=Execution(workers=2))
    assert _same(none.state_dict(), two.state_dict())


def test_seeds_differ(skeletons, tmp_path):
    a, _ = _train(_folder(tmp_path, "a"), "outsider", seed=0)
    b, _ = _train(_folder(tmp_path, "b"), "outsider", seed=1)
    assert not _same(a.state_dict(), b.state_dict())


def test_once_prepared_a_task_is_not_prepared_again(skeletons, tmp_path):
    folder = _folder(tmp_path, "once")
    with pytest.raises(Interrupted):
        _train(folder, "moving-targets", how=_stop_after(1))
    task, _ = _train(folder, "moving-targets")
    assert int(task.epochs_begun) == 4, "on_epoch_start ran once an epoch, resume or not"


class _Plain(PretextTask):
    """No BatchNorm, no noise: gradients of micro-batches add up to the batch's."""

    title, citation, version = "Plain", "none", 1
    recipe = Recipe(epochs=2, batch=32, optimiser=SGD(lr=0.001))

    def __init__(self, backbone):
        super().__init__(backbone)
        self.layer = torch.nn.Linear(3 * 32 * 32, 4)
        del self.backbone

    def view(self, sample, generator):
        return sample.image

    def losses(self, batch, step, generator):
        x = batch.views.float().flatten(1) / 255
        yield "main", Loss(torch.nn.functional.cross_entropy(self.layer(x), batch.label))


def _plain(tmp_path, name, **how):
    torch.manual_seed(0)
    task = _Plain(torch.nn.Identity())
    attempt = _folder(tmp_path, name).take("test")
    record = train(
        task, ToyImages(), task.recipe, seed=0, fabric=fabric(), attempt=attempt, how=Execution(workers=0, **how)
    )
    return task, record


def test_micro_batches_accumulate_to_the_batch(tmp_path):
    whole, one = _plain(tmp_path, "whole")
    parts, other = _plain(tmp_path, "parts", micro_batch=7)
    torch.testing.assert_close(whole.layer.weight, parts.layer.weight, rtol=1e-5, atol=1e-7)
    assert other["batch_per_process"] == 7
    assert [r["loss"] for r in one["curve"]] == pytest.approx([r["loss"] for r in other["curve"]], rel=1e-4)


def test_the_loss_falls(tmp_path):
    _, record = _plain(tmp_path, "falls")
    assert record["curve"][-1]["loss"] < record["curve"][0]["loss"]


class _Diverging(_Plain):
    def losses(self, batch, step, generator):
        for name, loss in super().losses(batch, step, generator):
            if step.update == 4:
                loss = Loss(loss.total * float("nan"))
            yield name, loss


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    torch.manual_seed(0)
    task = _Diverging(torch.nn.Identity())
    folder = _folder(tmp_path, "nan")
    how = Execution(workers=0, checkpoint_seconds=0)
    with pytest.raises(BenchError, match="loss is not finite by update 5.*lower the learning rate"):
        train(task, ToyImages(), task.recipe, seed=0, fabric=fabric(), attempt=folder.take("test"), how=how)
    kept = torch.load(folder.path / "checkpoint.pt", weights_only=True)
    assert kept["at"]["update"] == 4
    assert all(v.isfinite().all() for v in kept["task"].values())


def test_an_unreadable_checkpoint_is_one_line(tmp_path, skeletons):
    folder = _folder(tmp_path, "torn")
    with pytest.raises(Interrupted):
        _train(folder, "outsider", how=_stop_after(2))
    path = folder.path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BenchError, match=r"checkpoint cannot be read.*delete it"):
        _train(folder, "outsider")


def test_a_checkpoint_of_another_task_is_one_line(tmp_path, skeletons):
    folder = _folder(tmp_path, "other")
    with pytest.raises(Interrupted):
        _train(folder, "outsider", how=_stop_after(2))
    with pytest.raises(BenchError, match="not of this task"):
        _train(folder, "rotation", recipe=Recipe(epochs=1, batch=32))


def test_a_superseded_attempt_writes_nothing(tmp_path):
    torch.manual_seed(0)
    task, folder = _Plain(torch.nn.Identity()), _folder(tmp_path, "fenced")
    old = folder.take("test")
    (folder.path / "attempt-2.json").write_text("{}")
    how = Execution(workers=0, checkpoint_seconds=0)
    with pytest.raises(Fenced):
        train(task, ToyImages(), task.recipe, seed=0, fabric=fabric(), attempt=old, how=how)
    assert not (folder.path / "checkpoint.pt").exists()


def test_optimisers_must_match_the_recipe(tmp_path, skeletons):
    with pytest.raises(BenchError, match=r"recipe has the optimisers \['main'\]"):
        _train(_folder(tmp_path, "names"), "two-optimisers", recipe=Recipe(epochs=1, batch=32))


def test_derived_seeds_are_a_pure_function():
    assert derive(0, "update", 3, 0) == derive(0, "update", 3, 0)
    assert len({derive(s, "update", u, r) for s in range(3) for u in range(50) for r in range(2)}) == 300
    assert all(0 <= derive(s) < 2**63 for s in range(100))


def test_exports_something_else_than_it_trained(tmp_path, skeletons):
    task, _ = _train(_folder(tmp_path, "halves"), "two-halves")
    first = task.export().get_submodule("conv1").conv.weight
    half = task.halves[0].out_channels
    assert torch.equal(first[:half, :1], task.halves[0].weight)
    assert (first[:half, 1:] == 0).all()


def test_a_rate_follows_the_schedule(tmp_path, skeletons):
    _, record = _train(_folder(tmp_path, "rate"), "outsider")
    rates = [r["lr"]["main"] for r in record["curve"]]
    assert rates[0] == 0
    assert max(rates) <= 0.01
    assert rates[-1] < max(rates)


WORKER = """
import sys, torch
from pathlib import Path
from toydata import ToyImages
sys.path.insert(0, {here!r})
from test_loop import _Plain, _folder
from bench.training.device import fabric
from bench.training.loop import Execution, train
made = fabric()
assert made.world_size == 2
torch.manual_seed(0)
task = _Plain(torch.nn.Identity())
folder = _folder(Path({tmp!r}), "two")
attempt = folder.take("test") if made.is_global_zero else None
made.barrier()
from bench.runfolder import Attempt
attempt = attempt or Attempt(folder, 1, {{}})
record = train(task, ToyImages(), task.recipe, seed=0, fabric=made, attempt=attempt, how=Execution(workers=0))
if made.is_global_zero:
    torch.save(task.state_dict(), {out!r})
"""


def test_two_processes_train_as_one(tmp_path):
    script, out = tmp_path / "worker.py", tmp_path / "out.pt"
    here = Path(__file__).parent
    script.write_text(WORKER.format(here=str(here), tmp=str(tmp_path), out=str(out)))
    env = {**os.environ, "PYTHONPATH": f"{here.parent}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(launch, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, _ = _plain(tmp_path, "one")
    two = torch.load(out, weights_only=True)
    torch.testing.assert_close(two["layer.weight"], whole.layer.weight, rtol=1e-5, atol=1e-6)


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe(epochs=1, batch=1).epochs = 2
