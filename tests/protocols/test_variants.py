"""The as-published variants on untrained networks at the papers' size: dimensions, views, schedules, updates."""

import copy

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import ten_crop
from toydata import ToyImages

from bench.backbones.base import build
from bench.data import transforms
from bench.data.base import Sample
from bench.errors import BenchError
from bench.protocols.definitions import Variant, load
from bench.protocols.heads import Head, LinearHeads
from bench.protocols.imagenet_linear import ImageNetLinear
from bench.runfolder import RunFolder
from bench.training import optim
from bench.training.device import fabric
from bench.training.loop import Execution, Interrupted
from bench.training.task import Batch, Step

DIMS = {
    ("zhang2016", "caffenet"): [9600, 9216, 9600, 9600, 9216],
    ("rotnet2018", "alexnet"): [9216, 9408, 9600, 9216, 9216],
    ("deepcluster2018", "alexnet-sobel"): [9600, 9216, 9600, 9600, 9216],
    ("goyal2019", "bvlc-alexnet"): [9600, 9216, 9600, 9600, 9216],
    ("goyal2019", "caffenet"): [9600, 9216, 9600, 9600, 9216],
    ("goyal2019", "caffenet-bn"): [9600, 9216, 9600, 9600, 9216],
    ("goyal2019", "caffenet-s2"): [9600, 9216, 9600, 9600, 9216],
    ("goyal2019", "resnet50"): [9216, 9216, 8192, 9216, 8192],
    ("vissl", "alexnet"): [9216, 9408, 9600, 9216, 9216],
    ("vissl", "alexnet-sobel"): [9600, 9216, 9600, 9600, 9216],
    ("vissl", "resnet50"): [9216, 9216, 8192, 9216, 8192],
    ("multitask2017", "alexnet"): [9216, 9408, 9600, 9216, 9216],
}
MEASURED = [
    (name, backbone)
    for name, backbone in DIMS
    if name != "multitask2017" and backbone not in {"bvlc-alexnet", "caffenet-bn", "caffenet-s2"}
    if (name, backbone) != ("goyal2019", "resnet50")
]


def _protocol(name, backbone=None, **changes):
    plain = load("imagenet-linear").variant(name, None, backbone)
    return ImageNetLinear(Variant(plain.protocol, plain.version, name, {**plain.definition, **changes}))


def _heads(name, backbone="alexnet", classes=4, **changes):
    torch.manual_seed(0)
    return LinearHeads(build(backbone), _protocol(name, backbone, **changes).probe, classes, fabric())


def _sample(height, width):
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([255 * y / height, 255 * x / width, 0 * x]).astype(np.uint8)
    return Sample(torch.from_numpy(image), 0, 0)


def _run(tmp_path, protocol, backbone, name="run", **how):
    spec = {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    attempt = RunFolder.create(tmp_path / name, spec).take("test")
    train, test = ToyImages(8, side=230), ToyImages(4, side=230, name="toy/test")
    execution = Execution(workers=0, **how)
    try:
        return protocol.evaluate(
            backbone, train, test, method="rotation", seed=0, fabric=fabric(), attempt=attempt, how=execution
        )
    finally:
        attempt.end("CANCELLED")


def test_every_definition_has_its_dimensions():
    assert set(DIMS) == {place if place[1] else next(d for d in DIMS if d[0] == place[0]) for place in _published()}


def _published():
    return [place for place in load("imagenet-linear").places() if place[0] != "standard"]


@pytest.mark.parametrize(("name", "backbone"), DIMS)
def test_published_dimensions(name, backbone):
    heads = _heads(name, backbone, classes=2)
    assert [head.dim for head in heads.heads.values()] == DIMS[name, backbone]


@pytest.mark.parametrize(("name", "backbone"), MEASURED)
def test_each_variant_trains_and_measures_and_the_backbone_stays(name, backbone, tmp_path):
    plain = load("imagenet-linear").variant(name, None, backbone).definition
    budget = {"epochs": 2} if "epochs" in plain else {"iterations": 2}
    protocol = _protocol(name, backbone, batch=8, **budget)
    torch.manual_seed(0)
    net = build(backbone).train()
    before = copy.deepcopy(net.state_dict())
    measured = _run(tmp_path, protocol, net)
    assert measured.training["updates"] == 2
    assert all(np.isfinite(point["loss"]) for point in measured.training["curve"])
    assert measured.selection == {"rule": "none: one rate, all of train, last epoch", "n": 0, "heldout": {}}
    assert len(ImageNetLinear.columns(measured.evidence)) == 10
    assert ImageNetLinear.contradictions(measured.evidence, ToyImages(4, side=230, name="toy/test")) == []
    after = net.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_backbone_of_another_size_is_refused():
    with pytest.raises(BenchError, match="needs 227 px, the backbone takes 224 \\(alexnet\\)"):
        _heads("zhang2016", "alexnet")


# views


@pytest.mark.parametrize(("height", "width"), [(300, 400), (401, 300)])
def test_ten_crops_are_torchvisions(height, width):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    mine = transforms.ten_crop(image, 224)
    theirs = torch.stack(ten_crop(image, [224, 224]))
    exact = [0, 1, 2, 3, 5, 6, 7, 8]  # an odd margin is halved up there, down here
    assert torch.equal(mine[exact], theirs[exact])
    assert torch.equal(mine[4], transforms.center_crop(image, 224))
    assert torch.equal(mine[9], transforms.center_crop(image.flip(-1), 224))


def test_views_have_the_papers_size():
    generator = np.random.default_rng(0)
    for (name, backbone), side in {("zhang2016", "caffenet"): 227, ("rotnet2018", "alexnet"): 224}.items():
        heads = _heads(name, backbone)
        assert heads.view(_sample(300, 500), generator).shape == (3, side, side)
        assert heads.test_view(_sample(300, 500), generator).shape == (3, side, side)


def test_zhang_warps_the_whole_image_to_a_square():
    image = _heads("zhang2016", "caffenet").test_view(_sample(300, 600), np.random.default_rng(0))
    assert image[1, 0, -1] - image[1, 0, 0] == pytest.approx(255 * 227 / 256, abs=3), "almost the whole width"
    short = _heads("rotnet2018").test_view(_sample(300, 600), np.random.default_rng(0))
    assert short[1, 0, -1] - short[1, 0, 0] == pytest.approx(255 * 224 / 512, abs=3)


def test_deepcluster_trains_on_the_central_square_and_tests_on_the_whole_image():
    heads, sample, generator = _heads("deepcluster2018"), _sample(256, 768), np.random.default_rng(0)
    columns = torch.cat([heads.view(sample, generator)[1].flatten() for _ in range(50)])
    assert columns.min() >= 255 / 3 - 2
    assert columns.max() <= 255 * 2 / 3 + 2
    crops = heads.test_view(sample, generator)
    assert crops.shape == (10, 3, 224, 224)
    assert crops[:, 1].min() == 0
    assert crops[:, 1].max() == 254


def test_goyals_caffenet_trains_on_centre_crops():
    heads, sample, generator = _heads("goyal2019", "caffenet"), _sample(300, 300), np.random.default_rng(0)
    centre = heads.test_view(sample, generator)
    seen = [heads.view(sample, generator) for _ in range(10)]
    assert all(torch.equal(view, centre) or torch.equal(view, centre.flip(-1)) for view in seen)
    assert {torch.equal(view, centre) for view in seen} == {True, False}


@pytest.mark.parametrize("name", ["goyal2019", "vissl"])
def test_resnets_train_on_resized_crops_of_the_image_as_it_is(name):
    heads, sample = _heads(name, "resnet50", classes=2), _sample(300, 600)
    assert _protocol(name, "resnet50").geometry(heads.backbone) is None, "no store of resized images will do"
    views = [heads.view(sample, np.random.default_rng(i)) for i in range(8)]
    for i, view in enumerate(views):
        dice = np.random.default_rng(i)
        crop = transforms.random_resized_crop(sample.image, 224, dice, antialias=name == "vissl")
        assert torch.equal(view, transforms.flip(crop, dice))
    widths = [abs(int(view[1, 0, -1]) - int(view[1, 0, 0])) for view in views]
    assert min(widths) < 80 < 120 < max(widths), "of all sizes"
    centre = heads.test_view(sample, np.random.default_rng(0))
    assert centre[1, 0, -1] - centre[1, 0, 0] == pytest.approx(255 * 224 / 512, abs=3)


def test_ten_crops_average_their_softmax():
    heads = _heads("deepcluster2018").eval()
    views = torch.randint(0, 256, (2, 10, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        scores = heads.scores(views)["conv3"]
        second = torch.stack([heads(views[1, i][None])["conv3"][0, 0].softmax(-1) for i in range(10)]).mean(0)
    assert torch.allclose(scores[1, 0], second, atol=1e-6)
    assert scores.sum(-1) == pytest.approx(1)


# initialisation, norm, updates


def test_initialisation():
    zero = _heads("zhang2016", "caffenet").heads["conv1"]
    assert not zero.weight.any()
    assert not zero.bias.any()
    by_classes = _heads("rotnet2018", classes=50).heads["conv1"]
    assert by_classes.weight.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.02)
    uniform = _heads("vissl").heads["conv1"]
    assert 0.98 / 96 < uniform.weight.abs().max().item() <= 1 / 96
    assert 0 < uniform.bias.abs().max().item() <= 1 / 96


def test_bilinear_by_hand():
    probe = _protocol("zhang2016").probe
    grid = torch.arange(20.0).repeat(1, 1, 20, 1)
    head = Head(grid, "conv1", probe, 2, fabric())
    assert head.pool(grid)[0, 0, 0].tolist() == [0.5 + 2 * i for i in range(10)]


def _batch(probe, channels=6):
    torch.manual_seed(3)
    features = torch.randn(16, channels, 14, 14).abs()
    return features, torch.arange(16) % 4, Head(features, "conv1", probe, 4, fabric())


def _trained(heads, optimiser, features, label, updates=4):
    for _ in range(updates):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(heads(features).flatten(0, -2), label).backward()
        optimiser.step()


def _optimiser(protocol, head, backbone):
    heads = LinearHeads(build(backbone), protocol.probe, 4, fabric())
    heads.heads = torch.nn.ModuleDict({"conv1": head})
    return heads.optimiser_of("main", protocol.recipe(16).optimiser, head.parameters())


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_biass_rate_and_decay_are_torchs_with_two_groups(nesterov):
    protocol = _protocol("zhang2016", nesterov=nesterov, weight_decay=0.1, init={"kind": "normal", "std": 0.1})
    features, label, head = _batch(protocol.probe)
    torch.nn.init.normal_(head.bias)
    twin = torch.nn.Linear(head.dim, 4)
    twin.weight.data, twin.bias.data = head.weight[0].detach().clone(), head.bias[0].detach().clone()
    groups = [{"params": [twin.weight]}, {"params": [twin.bias], "lr": 0.02, "weight_decay": 0.0}]
    theirs = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=nesterov)
    norm = torch.nn.BatchNorm2d(6, affine=False, momentum=0.001)
    _trained(head, _optimiser(protocol, head, "caffenet"), features, label)
    _trained(lambda x: twin(norm(head.pool(x)).flatten(1)), theirs, features, label)
    assert torch.allclose(head.weight[0], twin.weight, atol=1e-6)
    assert torch.allclose(head.bias[0], twin.bias, atol=1e-6)
    assert torch.allclose(head.norm.running_var, norm.running_var)


def test_affine_batchnorm_is_torchs_at_every_rate():
    protocol = _protocol(
        "standard",
        norm={"kind": "batch-affine", "momentum": 0.1, "eps": 1e-5, "decay": 0.5},
        rates=[0.01, 0.1],
        weight_decay=0.1,
    )
    features, label, head = _batch(protocol.probe)
    start = head.weight[1].detach().clone()
    each = label[:, None].expand(-1, 2).flatten()
    optimiser = _optimiser(protocol, head, "alexnet")
    for _ in range(4):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(head(features).flatten(0, 1), each, reduction="sum") / len(label)
        loss.backward()
        optimiser.step()
    norm, linear = torch.nn.BatchNorm2d(6), torch.nn.Linear(head.dim, 4)
    linear.weight.data = start
    torch.nn.init.zeros_(linear.bias)
    groups = [{"params": linear.parameters()}, {"params": norm.parameters(), "weight_decay": 0.05}]
    theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    _trained(lambda x: linear(norm(head.pool(x)).flatten(1)), theirs, features, label)
    for mine, torchs in ((head.weight, linear.weight), (head.bias, linear.bias), (head.scale, norm.weight)):
        assert torch.allclose(mine[1], torchs, atol=1e-5)
    assert torch.allclose(head.shift[1], norm.bias, atol=1e-5)
    assert not torch.allclose(head.shift[0], head.shift[1])


# schedules and budgets


def _rates(protocol, images, updates, at):
    spec = protocol.recipe(images).optimiser
    return [protocol.probe.rates[0] * optim.rate(spec, Step(0, t, updates).done) for t in at]


def test_rotnets_table_by_hand():
    epochs = [0, 4, 5, 14, 15, 24, 25, 34]
    protocol = _protocol("rotnet2018")
    images = 192 * 7 + 5
    rates = _rates(protocol, images, 35 * 7, [7 * epoch for epoch in epochs])
    assert rates == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004, 0.00008, 0.00008])
    last = _rates(protocol, images, 35 * 7, [7 * 5 - 1, 7 * 15 - 1, 7 * 35 - 1])
    assert last == pytest.approx([0.01, 0.002, 0.00008])


@pytest.mark.parametrize(("name", "backbone"), [("zhang2016", None), ("goyal2019", "caffenet")])
def test_the_rate_drops_at_the_iterations_published(name, backbone):
    at = [0, 39999, 40000, 79999, 80000, 119999, 120000, 139999]
    rates = _rates(_protocol(name, backbone), 1281167, 140000, at)
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_visslss_rate_drops_after_the_epochs_published():
    at = [0, 8 * 5004 - 1, 8 * 5004, 16 * 5004 - 1, 16 * 5004, 24 * 5004]
    rates = _rates(_protocol("vissl", "alexnet"), 1281167, 28 * 5004, at)
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-5])


def test_deepclusters_schedule_by_hand():
    protocol = _protocol("deepcluster2018", weight_decay=0.5)
    updates = 90 * 3
    rates = _rates(protocol, 256 * 3, updates, [0, 1, 100, 269])
    assert rates == pytest.approx([0.01 / (1 + 0.01 * 0.5 * t) ** 0.5 for t in (0, 1, 100, 269)])
    published = _rates(_protocol("deepcluster2018"), 1281167, 90 * 5004, [90 * 5004 - 1])
    assert published == pytest.approx([0.01 / (1 + 0.01 * 1e-7 * (90 * 5004 - 1)) ** 0.5])


def test_a_budget_in_iterations_ends_within_an_epoch_and_resumes_to_the_same(tmp_path):
    small = _protocol("standard", epochs=None, iterations=5, batch=3, rates=[0.01], selection="none", heldout=0.0)
    torch.manual_seed(0)
    net = build("alexnet-smoke")
    whole = _run(tmp_path, small, net, "whole")
    assert (whole.training["updates"], whole.training["epochs"]) == (5, 2.5)
    done = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        _run(tmp_path, small, net, "cut", stop=lambda: next(done))
    again = _run(tmp_path, small, net, "cut")
    assert again.training["curve"] == whole.training["curve"]
    assert np.array_equal(again.evidence["rank"], whole.evidence["rank"])


def test_without_selection_all_of_train_is_trained_on(tmp_path):
    class Watched(ToyImages):
        def __getitem__(self, index):
            seen.add(index)
            return super().__getitem__(index)

    seen = set()
    protocol = _protocol("standard", epochs=1, batch=8, rates=[0.01], selection="none", heldout=0.0)
    spec = {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    attempt = RunFolder.create(tmp_path, spec).take("test")
    test = ToyImages(4, name="toy/test")
    how = Execution(workers=0)
    net = build("alexnet-smoke")
    protocol.evaluate(net, Watched(16), test, method="rotation", seed=0, fabric=fabric(), attempt=attempt, how=how)
    assert seen == set(range(16))


def test_every_stage_learns_from_its_own_loss():
    heads = _heads("vissl")
    batch = Batch(torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8), torch.arange(4), torch.arange(4))
    (_, loss) = next(iter(heads.losses(batch, Step(0, 0, 1), torch.Generator())))
    loss.total.backward()
    assert all(p.grad is not None and p.grad.any() for p in heads.parameters())
    assert all(p.grad is None for p in heads.backbone.parameters())


@pytest.mark.parametrize(
    ("name", "backbone", "fixed"),
    [
        ("standard", "alexnet", "short256-bilinear"),
        ("standard", "alexnet-mini", "short64-bilinear"),
        ("zhang2016", "caffenet", "square256-bilinear-aliased"),
        ("deepcluster2018", "alexnet-sobel", "short256-bilinear"),
        ("goyal2019", "caffenet-s2", "short256-bilinear-aliased"),
    ],
)
def test_the_resize_that_a_packed_store_may_do_beforehand(name, backbone, fixed):
    assert str(_protocol(name, backbone).geometry(build(backbone))) == fixed
