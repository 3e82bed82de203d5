"""NAT: targets that are computed and not stored, their exact re-assignment, and what stays of it."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from toydata import ToyImages

from bench.data.batch import Batch
from bench.errors import BenchError
from bench.methods import nat
from bench.methods.base import Step, make
from bench.methods.nat import assign, mixed, nearer, noise, stays
from bench.methods.pretext import measure
from bench.training.device import fabric

SEED = torch.tensor(7)


def _task(images=96, **options):
    data = ToyImages(images)
    task = make("nat", "alexnet-smoke", options, seed=0)
    task.setup(data)
    task.prepare(data, _generator())
    return task.train(), data


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _batch(data, index):
    views = torch.stack([data[i].image[:, :28, :28] for i in index])
    return Batch(views, torch.tensor(index), torch.full((len(index),), -1))


def _loss(task, batch, epoch):
    ((_, loss),) = task.losses(batch, Step(epoch, 0, 100), _generator())
    return loss


def test_words_are_splitmix64s():
    first = mixed(torch.tensor([nat._GOLDEN, 2 * nat._GOLDEN + 2**64]))  # as published for the seed 0
    assert [int(x) % 2**64 for x in first] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_targets_are_a_function_of_seed_and_number_alone():
    numbers = torch.tensor([5, 1_281_166, 0, 5])
    rows = noise(numbers, 33, SEED)
    assert rows.shape == (4, 33)
    assert torch.equal(rows[0], rows[3])
    assert torch.equal(rows[1], noise(numbers[1:2].int(), 33, SEED)[0])
    assert not torch.equal(rows, noise(numbers, 33, SEED + 1))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))


def test_targets_are_uniform_on_the_sphere_and_independent():
    rows = noise(torch.arange(2000), 64, SEED)
    normal = (rows * 8)[:, :8].flatten()  # coordinates of a uniform direction: nearly N(0, 1/64)
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3
    assert rows.mean(0).norm() < 1.5 / 2000**0.5
    gram = rows @ rows.T - torch.eye(2000)
    assert abs(gram.std() - 1 / 8) < 0.002
    for lag in (1, 2, 256):  # neighbouring numbers share nothing
        assert abs((rows[lag:] * rows[:-lag]).sum(1).mean()) < 4 / 8 / 2000**0.5
    covariance = np.cov(rows.numpy().T) * 64
    assert np.abs(covariance - np.eye(64)).max() < 0.15


def test_the_assignment_is_the_best_permutation():
    outputs, targets = (F.normalize(torch.randn(6, 4, generator=_generator(s)), dim=1) for s in (1, 2))
    best = max(itertools.permutations(range(6)), key=lambda p: float((outputs * targets[list(p)]).sum()))
    assert assign(outputs, targets).tolist() == list(best)
    order = torch.tensor([3, 1, 0, 2])
    assert torch.equal(assign(targets[order], targets[:4]), order)


def test_outputs_that_are_not_finite_do_not_stop_the_assignment():
    assert sorted(assign(torch.full((3, 2), torch.nan), torch.randn(3, 2)).tolist()) == [0, 1, 2]


def test_reassignment_permutes_the_targets_of_the_batch_and_only_them():
    task, data = _task()
    index = [90, 3, 17, 44, 5, 60, 61, 62]
    batch, before = _batch(data, index), task.target_of.clone()
    _loss(task, batch, epoch=1)
    assert torch.equal(task.target_of, before), "epochs 1 and 2 keep the assignment"
    torch.manual_seed(0)
    _loss(task, batch, epoch=3)
    changed = (task.target_of != before).nonzero()[:, 0].tolist()
    assert changed
    assert set(changed) <= set(index)
    assert sorted(task.target_of[index].tolist()) == sorted(before[index].tolist())
    assert sorted(task.target_of.tolist()) == list(range(96))


def test_the_loss_is_the_squared_distance_after_the_best_swap():
    task, data = _task()
    batch = _batch(data, list(range(8)))
    torch.manual_seed(0)
    kept = _loss(task, batch, epoch=1).total
    torch.manual_seed(0)
    swapped = _loss(task, batch, epoch=0).total
    torch.manual_seed(0)
    outputs = task(batch.views)
    targets = noise(task.target_of[:8], task.dim, task.seed)
    assert swapped < kept
    torch.testing.assert_close(swapped, (2 - 2 * (outputs * targets).sum(1)).mean())
    torch.testing.assert_close(outputs.norm(dim=1), torch.ones(8))


def test_nearer_by_hand():
    targets = torch.eye(4)
    assert nearer(targets, targets, _generator()) == 1
    assert nearer(-targets, targets, _generator()) == 0
    assert nearer(targets[[0, 1, 3, 2]], targets, _generator()) >= 0.5  # the two own ones, at least


def test_only_outputs_that_spread_and_stay_with_the_image_score_high():
    first, other = (F.normalize(torch.randn(64, 32, generator=_generator(s)), dim=1) for s in (1, 2))

    def score(a, b):
        return np.mean([float(stays(a, b, _generator(s))) for s in range(20)])

    assert score(first, first) > 0.9
    assert abs(score(first, other) - 0.5) < 0.06, "outputs of the crop, not of the image"
    alike = first[:1].expand(64, -1)
    assert abs(score(alike, alike) - 0.5) < 0.06, "collapsed"


def test_the_untrained_value_is_kept_and_measured_without_moving_statistics():
    task, _ = _task()
    assert 0.4 < float(task.untrained) < 1
    assert all(int(b) == 0 for n, b in task.named_buffers() if n.endswith("num_batches_tracked"))


def test_memory_grows_by_four_bytes_an_image():
    def held(images):
        task = make("nat", "alexnet-smoke", {}, seed=0)
        task.setup(ToyImages(images))
        return sum(t.numel() * t.element_size() for t in task.state_dict().values())

    assert (held(400) - held(100)) / 300 == 4


def test_the_export_sees_edges():
    task, _ = _task()
    assert task.export().preprocess.space == "sobel"
    assert task.export().in_channels == 2
    grey = torch.full((1, 3, 28, 28), 90, dtype=torch.uint8)
    assert task.export().preprocess(grey)[..., 1:-1, 1:-1].abs().max() < 1e-5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dim": 1}, "choose a whole number"),
        ({"dim": 2.5}, "dim cannot be 2.5"),
        ({"period": 0}, "choose a whole number"),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(BenchError, match=says):
        _task(**options)


def test_measured_on_pairs_of_crops_beside_the_untrained_value():
    task, data = _task()
    assert task.heldout_view(data[0], np.random.default_rng(0)).shape == (2, 3, 28, 28)
    found = measure(task, ToyImages(64, name="toy/held"), batch=8, seed=0, fabric=fabric(), workers=0)
    assert found["all"] == {"nearer": found["value"], "untrained": pytest.approx(float(task.untrained))}
    assert (found["chance"], found["n"]) == (0.5, 64)


def test_the_targets_go_with_the_seed():
    a, b = (_task()[0].seed for _ in range(2))
    assert torch.equal(a, b)
    other = make("nat", "alexnet-smoke", {}, seed=0)
    other.setup(ToyImages())
    other.prepare(ToyImages(), _generator(1))
    assert not torch.equal(a, other.seed)
