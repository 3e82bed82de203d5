import copy
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from bench.backbones import initialise
from bench.backbones.base import Backbone, build
from bench.errors import BenchError

BARE = {"norm": "none"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batches(backbone, count=4, size=8, seed=1):
    """Smooth colour gradients under some noise: neighbours are correlated, as in photographs."""
    dice, side = generator(seed), backbone.input_side
    coarse = torch.rand(count * size, 3, 5, 5, generator=dice)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    noisy = (smooth + 0.1 * torch.randn(smooth.shape, generator=dice)).clamp(0, 1)
    return list((noisy * 255).to(torch.uint8).split(size))


def layers(backbone):
    return {name: m for name, m in backbone.chain().items() if isinstance(m, nn.Conv2d | nn.Linear)}


@torch.no_grad()
def pre_activations(backbone, images):
    """{layer: (N, C)} ahead of each ReLU."""
    x, found = backbone.preprocess(torch.cat(images)), {}
    for name, layer in backbone.eval().chain().items():
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            found[name] = x.movedim(1, -1).flatten(0, -2).clone()
    return found


def ratios(backbone, data, seed):
    """Gradient-to-weight ratios, by autograd on the module itself."""
    dice, squares = generator(seed), 0
    for images in data:
        features = backbone.eval()(images)[backbone.stages[-1]]
        output = backbone.fc(features) if backbone.fc is not None else features
        backbone.zero_grad()
        output.backward(torch.randn(output.shape, generator=dice))
        squares = squares + torch.stack([m.weight.grad.pow(2).mean() for m in layers(backbone).values()])
    return (
        squares / len(data) / torch.stack([m.weight.detach().pow(2).mean() for m in layers(backbone).values()])
    ).sqrt()


def perturb_norms(backbone, seed=0):
    """BatchNorms as after training: nothing is at its default."""
    dice = generator(seed)
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            size = norm.weight.shape
            norm.weight.data = torch.randn(size, generator=dice)
            norm.bias.data = torch.randn(size, generator=dice)
            norm.running_mean = torch.randn(size, generator=dice)
            norm.running_var = torch.rand(size, generator=dice) + 0.1
    return backbone


def test_draws_are_scaled_and_reset_the_rest():
    backbone = perturb_norms(build("alexnet-mini", fc=(300, 300)))
    backbone.conv2.conv.bias.data += 1
    initialise.he_normal_(backbone, generator())
    for layer in layers(backbone).values():
        fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        assert layer.bias is None or not layer.bias.any()
    fresh = {k: v for k, v in build("alexnet-mini", fc=(300, 300)).state_dict().items() if "norm" in k}
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in fresh.items())
    initialise.gaussian_(backbone, std=0.01, generator=generator())
    for layer in layers(backbone).values():
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("draw", [initialise.he_normal_, initialise.gaussian_])
def test_draws_depend_on_the_generator_alone(draw):
    first, second, third = (build("alexnet-smoke") for _ in range(3))
    draw(first, generator=generator(5))
    torch.manual_seed(99)
    draw(second, generator=generator(5))
    draw(third, generator=generator(6))
    assert torch.equal(first.conv3.conv.weight, second.conv3.conv.weight)
    assert not torch.equal(first.conv3.conv.weight, third.conv3.conv.weight)


def test_batch_norm_statistics_are_plain_averages_over_batches():
    backbone = perturb_norms(build("alexnet-smoke", fc=(8, 8))).train()
    data = batches(backbone, count=3)
    with torch.no_grad():
        seen = [backbone.conv1.conv(backbone.preprocess(images)).movedim(1, -1).flatten(0, -2) for images in data]
    before = backbone.conv1.conv.weight.clone()
    initialise.set_batch_norm_statistics_(backbone, data)
    norm = backbone.conv1.norm
    assert torch.allclose(norm.running_mean, torch.stack([x.mean(0) for x in seen]).mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, torch.stack([x.var(0) for x in seen]).mean(0), rtol=1e-4)
    assert norm.momentum == 0.1
    assert backbone.training
    assert norm.training
    assert torch.equal(backbone.conv1.conv.weight, before)
    assert backbone.fc.norm7.num_batches_tracked == 3
    again = copy.deepcopy(backbone.state_dict())
    initialise.set_batch_norm_statistics_(backbone, data)
    assert all(torch.equal(again[name], value) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("alexnet-smoke", {}),
        ("alexnet-smoke", {"groups": (1, 2, 1, 2, 2), "fc": (12, 10)}),
        ("alexnet-smoke", {"norm": "batch-conv", "fc": (12, 10), "preprocess": "sobel"}),
        ("alexnet-mini", {"lrn": "before-pool"}),
        ("alexnet-smoke", {"norm": "none"}),
    ],
)
def test_absorbing_batch_norm_changes_nothing_in_eval_mode(key, overrides):
    backbone = perturb_norms(build(key, **overrides)).eval()
    backbone.preprocess.mean += 0.1
    before = copy.deepcopy(backbone.state_dict())
    bare = initialise.absorb_batch_norm(backbone)
    images = batches(backbone, count=1)[0]
    with torch.no_grad():
        expected, found = backbone(images), bare(images)
        for stage in backbone.stages:
            scale = expected[stage].abs().max()
            assert (found[stage] - expected[stage]).abs().max() <= 1e-5 * scale
        if backbone.fc is not None:
            out = backbone.fc(expected["conv5"])
            assert torch.allclose(bare.fc(found["conv5"]), out, atol=1e-5 * out.abs().max().item())
    assert not any("norm" in name for name in bare.state_dict())
    assert bare.config["overrides"] == {**overrides, "norm": "none"}
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("alexnet-smoke", {}),
        ("alexnet-smoke", {"groups": (1, 2, 1, 2, 2), "lrn": "after-pool"}),
        ("alexnet-smoke", {"fc": (12, 40), "preprocess": "caffe"}),
        ("alexnet-smoke", {"preprocess": "l"}),
        ("alexnet-mini", {}),
    ],
)
def test_kmeans_gives_every_channel_unit_variance_and_a_mean_of_a_tenth(key, overrides):
    backbone = build(key, **BARE, **overrides).train()
    data = batches(backbone)
    initialise.kmeans_(backbone, data, generator())
    assert backbone.training
    for values in pre_activations(backbone, data).values():
        assert torch.allclose(values.mean(0), torch.tensor(0.1), atol=2e-3)
        assert torch.allclose(values.std(0, correction=0), torch.tensor(1.0), atol=2e-3)


def test_kmeans_depends_on_the_generator_alone():
    first, second, third = (build("alexnet-smoke", **BARE, fc=(8,)) for _ in range(3))
    data = batches(first)
    threads = torch.get_num_threads()
    initialise.kmeans_(first, data, generator(5))
    torch.manual_seed(99)
    initialise.kmeans_(second, data, generator(5))
    initialise.kmeans_(third, data, generator(6))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.conv1.conv.weight, third.conv1.conv.weight)
    assert torch.get_num_threads() == threads


def test_kmeans_filters_follow_the_data():
    # 12 dimensions, of which 4 vary: centres look along those 4 only, each response with unit variance
    data = torch.randn(2000, 12, generator=generator()) * torch.tensor([3.0] * 4 + [0.01] * 8)
    data -= data.mean(0)
    centres = initialise._centres(data, 4, generator())
    assert centres[:, 4:].abs().max() < 0.05 * centres[:, :4].abs().max()
    assert torch.allclose((data @ centres.T).std(0, correction=0), torch.ones(4), atol=1e-4)


def test_kmeans_finds_clusters():
    # three directions, far apart: one centre each, and each centre answers its own direction most
    directions = torch.eye(3).repeat_interleave(100, 0)
    data = directions + 0.05 * torch.randn(300, 3, generator=generator())
    data -= data.mean(0)
    answers = (data @ initialise._centres(data, 3, generator()).T).view(3, 100, 3).mean(1)
    assert sorted(answers.argmax(1).tolist()) == [0, 1, 2]


def test_kmeans_filters_are_not_gaussian_ones_normalised():
    fitted, drawn = build("alexnet-mini", **BARE), build("alexnet-mini", **BARE)
    data = batches(fitted)
    initialise.kmeans_(fitted, data, generator())
    initialise.normalise_outputs_(drawn, data)
    # whitened filters see the rare directions: their responses are far less alike
    alike = [
        torch.corrcoef(pre_activations(b, data)["conv1.conv"].T).fill_diagonal_(0).square().mean().item()
        for b in (fitted, drawn)
    ]
    assert alike[0] < 0.5 * alike[1]


def test_kmeans_within_little_memory():
    backbone = build("alexnet-smoke", **BARE)
    data = batches(backbone)
    initialise.kmeans_(backbone, data, generator(), memory_mb=1)
    values = pre_activations(backbone, data)["conv1.conv"]
    assert torch.allclose(values.std(0, correction=0), torch.tensor(1.0), atol=2e-3)


def test_normalising_outputs_keeps_the_filters_directions():
    backbone = build("alexnet-smoke", **BARE)
    data = batches(backbone)
    before = backbone.conv1.conv.weight.detach().clone()
    initialise.normalise_outputs_(backbone, data, bias=0.3)
    after = backbone.conv1.conv.weight.detach()
    assert torch.allclose(nn.functional.cosine_similarity(before.flatten(1), after.flatten(1)), torch.ones(8))
    assert pre_activations(backbone, data)["conv5.conv"].mean().item() == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("overrides", [{}, {"fc": (24, 16)}, {"groups": (1, 2, 1, 2, 2), "lrn": "after-pool"}])
def test_rescaling_evens_out_the_gradient_ratios(overrides):
    backbone = build("alexnet-smoke", **BARE, **overrides)
    data = batches(backbone)
    initialise.kmeans_(backbone, data, generator())
    before = ratios(backbone, data, seed=7)
    assert before.max() > 1.5 * before.min()
    initialise.rescale_(backbone, data, generator(7))
    after = ratios(backbone, data, seed=7)  # the same random gradient
    assert (after / after.log().mean().exp() - 1).abs().max() < 0.01
    other = ratios(backbone, batches(backbone, seed=9), seed=8)  # another one, on other images
    assert other.log().std() < 0.5 * before.log().std()


def test_rescaling_keeps_the_function_up_to_a_factor():
    backbone = build("alexnet-smoke", **BARE).train()
    data = batches(backbone)
    initialise.kmeans_(backbone, data, generator())
    with torch.no_grad():
        before = backbone(data[0])["conv5"]
        initialise.rescale_(backbone, data, generator())
        after = backbone(data[0])["conv5"]
    factor = (after.norm() / before.norm()).item()
    assert torch.allclose(after, factor * before, atol=1e-3 * after.max().item())
    spread = [x.movedim(1, -1).flatten(0, -2).std(0).mean().item() for x in (before, after)]
    assert abs(spread[1] - 1) < abs(spread[0] - 1)
    assert backbone.training


def test_rescaling_stops_after_so_many_iterations():
    backbone = build("alexnet-smoke", **BARE)
    data = batches(backbone)
    initialise.kmeans_(backbone, data, generator())
    before = copy.deepcopy(backbone.state_dict())
    initialise.rescale_(backbone, data, generator(), iterations=0)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_what_cannot_be_initialised():
    normed, bare = build("alexnet-smoke"), build("alexnet-smoke", **BARE)
    data = batches(bare)
    for function in (initialise.kmeans_, initialise.rescale_):
        with pytest.raises(BenchError, match=r'alexnet-smoke has BatchNorm.*norm="none"'):
            function(normed, data, generator())
        with pytest.raises(BenchError, match="no images"):
            function(bare, [], generator())
    with pytest.raises(BenchError, match="no images"):
        initialise.set_batch_norm_statistics_(normed, [])
    with pytest.raises(BenchError, match=r"8 channels of conv1\.conv do not vary"):
        initialise.normalise_outputs_(build("alexnet-smoke", **BARE, preprocess="none"), [torch.zeros(4, 3, 28, 28)])
    initialise.gaussian_(bare, std=0.0)
    with pytest.raises(BenchError, match=r"no gradient reaches conv1\.conv"):
        initialise.rescale_(bare, data, generator())


def test_a_trunk_with_branches_is_refused():
    class Branches(Backbone):
        config = {"backbone": "branches", "overrides": {}}

    with pytest.raises(BenchError, match="branches is not a chain"):
        initialise.absorb_batch_norm(Branches())


def test_on_photographs():
    root = os.environ.get("BENCH_DATA")
    files = sorted(Path(root, "tiny-imagenet-50", "val").rglob("*.JPEG"))[::50][:64] if root else []
    if not files:
        pytest.skip("BENCH_DATA names no folder with tiny-imagenet-50")
    bgr = np.stack([cv2.imread(str(file))[4:60, 4:60] for file in files])
    images = torch.from_numpy(bgr[..., ::-1].copy()).permute(0, 3, 1, 2)
    data = list(images.split(16))
    backbone = build("alexnet-mini", **BARE)
    initialise.kmeans_(backbone, data, generator())
    initialise.rescale_(backbone, data, generator(1))
    after = ratios(backbone, data, seed=1)
    assert (after / after.log().mean().exp() - 1).abs().max() < 0.01
    with torch.no_grad():
        alive = torch.stack([(x > 0).float().mean() for x in backbone(images).values()])
    assert ((alive > 0.3) & (alive < 0.7)).all()
