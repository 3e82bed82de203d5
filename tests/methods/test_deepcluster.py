"""DeepCluster: new clusters and a new classifier each epoch, uniform draws, and what of it costs memory."""

import numpy as np
import pytest
import torch
from allocations import peak_bytes
from sklearn.metrics import normalized_mutual_info_score
from toydata import ToyImages

from bench.data.base import Sample
from bench.data.batch import Batch
from bench.data.images import subset
from bench.errors import BenchError
from bench.methods import deepcluster
from bench.methods._clusters import nearest, whitened, whitening
from bench.methods.base import Step, make
from bench.methods.deepcluster import compared
from bench.methods.pretext import measure
from bench.training.device import fabric
from bench.training.loop import embed as embed_with
from bench.training.recipe import SGD


def _task(images=96, **options):
    data = ToyImages(images)
    task = make("deepcluster", "alexnet-smoke", options, seed=0)
    task.setup(data)
    task.prepare(data, torch.Generator().manual_seed(0))
    return task.train(), data


def _embed(task, data):
    def embed(function, view=None, only=None):
        part = data if only is None else subset(data, only.numpy())
        return embed_with(task, part, function, view or task.view, seed=0, fabric=fabric(), workers=0, batch=32)

    return embed


def _start(task, data, epoch=0):
    torch.manual_seed(epoch)
    task.on_epoch_start(epoch, _embed(task, data))


def test_an_epoch_starts_with_clusters_of_the_features_and_a_fresh_classifier():
    task, data = _task(clusters=6)
    old = task.classifier.weight.detach().clone()
    _start(task, data)
    assert not torch.equal(old, task.classifier.weight)
    assert task.classifier.weight.requires_grad
    assert abs(float(task.classifier.weight.detach().std()) - 0.01) < 0.004
    assert not task.classifier.bias.any()
    assert task.training
    assert len(task.cluster_of.unique()) > 3
    images = torch.stack([task.central(data[i], np.random.default_rng(0)) for i in range(96)])
    with torch.no_grad():
        features = task.eval().features(images)
    rows = whitened(features, *whitening(features.half(), 16, torch.device("cpu")))
    centre = torch.stack([rows[task.cluster_of == k].mean(0) for k in range(6)])
    assert (nearest(rows, centre) == task.cluster_of).float().mean() > 0.9  # float16 in between


def test_a_sample_for_the_pca_gives_much_the_same_clusters_as_all_images(monkeypatch):
    task, data = _task(600, clusters=5)
    _start(task, data)
    whole, calls, embed = task.cluster_of.clone(), [], _embed(task, data)
    monkeypatch.setattr(deepcluster, "SAMPLE", 400)

    def counted(function, view=None, only=None):
        rows = embed(function, view, only)
        calls.append((len(rows), rows.dtype))
        return rows

    torch.manual_seed(0)
    task.on_epoch_start(0, counted)
    assert calls == [(400, torch.float16), (600, torch.float16)]
    assert normalized_mutual_info_score(whole, task.cluster_of) > 0.3


def test_draws_are_uniform_over_clusters():
    task, _ = _task(1000, clusters=5)
    task.cluster_of[:] = 0
    task.cluster_of[900:980], task.cluster_of[980:999], task.cluster_of[999] = 1, 2, 4  # 3 is empty
    order = task.order(0, 1000, torch.Generator().manual_seed(0))
    assert order.shape == (1000,)
    drawn = task.cluster_of[order].bincount(minlength=5)
    assert drawn[3] == 0
    assert all(abs(int(n) - 250) <= 4 for n in drawn[[0, 1, 2, 4]])  # four draws too many were cut off
    assert order[task.cluster_of[order] == 0].unique().numel() == int(drawn[0]), "without replacement where it can"
    assert set(order[task.cluster_of[order] == 4].tolist()) == {999}
    assert not torch.equal(order, task.order(1, 1000, torch.Generator().manual_seed(1)))
    changes = (task.cluster_of[order].diff() != 0).float().mean()
    assert changes > 0.6, "shuffled"


def test_the_classifier_has_no_momentum_and_so_nothing_to_forget():
    task, data = _task(clusters=4)
    parameters = list(task.parameters_of()["main"])
    optimiser = task.optimiser_of("main", SGD(lr=0.05, momentum=0.9, weight_decay=1e-5), parameters)
    assert [(g["momentum"], g["weight_decay"]) for g in optimiser.param_groups] == [(0.9, 1e-5), (0.0, 1e-5)]
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(parameters)
    views = torch.stack([data[i].image[:, :28, :28] for i in range(16)])
    ((_, loss),) = task.losses(Batch(views, torch.arange(16), -torch.ones(16)), Step(0, 0, 9), torch.Generator())
    loss.total.backward()
    optimiser.step()
    held = [p for p, state in optimiser.state.items() if state.get("momentum_buffer") is not None]
    assert len(held) == len(parameters) - 2
    assert not any(p is task.classifier.weight for p in held)


def test_features_are_taken_before_the_last_relu():
    task, data = _task()
    images = torch.stack([data[i].image[:, :28, :28] for i in range(32)])
    assert task.features(images).min() < 0


def test_the_number_of_clusters_goes_with_the_data():
    assert [_task(images)[0].classifier.out_features for images in (96, 640)] == [2, 5]
    assert _task(clusters=40)[0].classifier.out_features == 40


def test_the_chance_of_nmi_is_high_where_clusters_are_many_and_adjusted_is_zero_there():
    generator = torch.Generator().manual_seed(0)
    for labels in (4, 100, 1000):
        first, second = torch.randint(labels, (2, 500), generator=generator)
        found = compared(first, second, generator)
        assert abs(found["nmi"] - found["chance"]) < 0.02
        assert abs(found["adjusted"]) < 0.05
    assert found["chance"] > 0.9, "of 1000 labels for 500 images"
    found = compared(first, (first + 1) % 1000, generator)  # the same clusters by other names
    assert found["nmi"] == pytest.approx(1)
    assert found["adjusted"] == pytest.approx(1)
    assert found["agreement"] == 0


def test_one_cluster_for_all_tells_nothing():
    same = torch.zeros(50, dtype=torch.int64)
    found = compared(same, same, torch.Generator())
    assert (found["nmi"], found["chance"], found["adjusted"]) == (1, 1, 0)


def test_the_card_gets_the_chance_that_was_measured():
    task, _ = _task(300, clusters=6)
    found = measure(task, ToyImages(64, name="toy/held"), batch=16, seed=0, fabric=fabric(), workers=0)
    assert found["n"] == 64
    assert found["chance"] == task.chance
    assert 0 <= found["chance"] <= 1
    assert found["all"].keys() == {"nmi", "adjusted", "agreement"}


def test_two_views_of_an_image_are_measured_and_one_is_trained_on():
    task, data = _task()
    assert task.view(data[0], np.random.default_rng(0)).shape == (3, 28, 28)
    pair = task.heldout_view(data[0], np.random.default_rng(0))
    assert pair.shape == (2, 3, 28, 28)
    assert not torch.equal(*pair)


def test_the_clustered_crop_is_the_central_one():
    task, _ = _task()
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 32, 64).contiguous()
    crop = task.central(Sample(ramp, 0), np.random.default_rng(0))
    assert crop.shape == (3, 28, 28)
    assert crop[0, 0].float().mean() == pytest.approx(31.5, abs=0.6)


@pytest.mark.parametrize(
    ("clusters", "says"), [(1, "choose a whole number"), (2.5, "cannot be 2.5"), ("many", "cannot be 'many'")]
)
def test_bad_options(clusters, says):
    with pytest.raises(BenchError, match=says):
        _task(clusters=clusters)


def test_more_clusters_than_images_are_refused():
    with pytest.raises(BenchError, match="97 clusters need as many images; there are 96"):
        _task(clusters=97)


def test_what_stays_is_four_bytes_an_image():
    def held(images):
        return sum(t.numel() * t.element_size() for t in _task(images, clusters=8)[0].state_dict().values())

    assert (held(400) - held(100)) / 300 == 4


class _Repeated(ToyImages):
    """Many images for little memory."""

    def __init__(self, size):
        super().__init__(8)
        self.ids = [f"{i:06d}" for i in range(size)]
        self.labels = np.zeros(size, dtype=np.int64)

    def __getitem__(self, index):
        return Sample(self.images[index % 8], index, 0)


def test_an_epochs_start_and_order_grow_by_what_the_docstring_says(monkeypatch):
    """Two bytes a number of the reduced features, and less than 60 bytes an image for all else; at two sizes."""
    monkeypatch.setattr(deepcluster, "SAMPLE", 200)

    def peak(images):
        data = _Repeated(images)
        task = make("deepcluster", "alexnet-smoke", {"clusters": 4}, seed=0)
        task.setup(data)
        task.prepare(data, torch.Generator().manual_seed(0))
        start = peak_bytes(lambda: _start(task, data))
        return start, peak_bytes(lambda: task.order(0, images, torch.Generator()))

    small, large = peak(1000), peak(3000)
    dims = make("deepcluster", "alexnet-smoke", {}, seed=0).top.width
    start, order = ((b - a) / 2000 for a, b in zip(small, large, strict=True))
    assert 2 * dims <= start <= 2 * dims + 24
    assert order <= 48
    at_scale = 1_281_167 * (2 * deepcluster.DIMS + 24 + 4) + 3 * 2**26 + 4 * 10_000 * deepcluster.DIMS
    assert at_scale < 1e9
