import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.backbones.base import build
from bench.errors import BenchError
from bench.protocols.segmentation import Fcn32s, FcnD8
from bench.protocols.transfer import Transfer, prepared

pytest.importorskip("mmseg")

FCN32S, FCN_D8 = Fcn32s(kind="fcn32s", pad=16), FcnD8(kind="fcn-d8", auxiliary=0.4)
KEYS = ["alexnet-smoke", "resnet-smoke"]


@pytest.fixture(scope="module")
def engine():
    from bench.engines import mmseg

    return mmseg


def _prepared(key, fc=(24, 16), **overrides):
    """As after some training, and ready to be fine-tuned."""
    torch.manual_seed(0)
    net = build(key, **overrides)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    words = {"absorb": False, "rescale": False} if net.global_pool else {"absorb": True, "rescale": False, "fc": fc}
    return prepared(net, [], Transfer(**words), method="m", generator=torch.Generator().manual_seed(0)).backbone


def _made(engine, key, classes=5, **overrides):
    backbone = _prepared(key, **overrides)
    return backbone, engine.segmenter(backbone, FCN_D8 if backbone.global_pool else FCN32S, classes)[0].eval()


def _image(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _mask(height, width, classes=5, seed=0):
    dice = np.random.default_rng(seed)
    mask = dice.integers(0, classes, (height, width)).astype(np.uint8)
    mask[dice.random((height, width)) < 0.2] = 255
    return torch.from_numpy(mask)


# weights


@pytest.mark.parametrize("key", KEYS)
def test_there_and_back_is_the_identity(engine, key):
    backbone, model = _made(engine, key)
    back = engine.ours(model)
    assert back.keys() == backbone.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in backbone.state_dict().items())
    assert engine.theirs(backbone).keys() <= model.state_dict().keys()


@pytest.mark.parametrize("key", KEYS)
def test_weights_that_do_not_fit_are_refused_whole(engine, key):
    _, model = _made(engine, key)
    before = copy.deepcopy(model.state_dict())
    other = _prepared(key, **({"width": 4} if key.startswith("resnet") else {"fc": (24, 8)}))
    with pytest.raises(BenchError, match=r"\d+ of \d+ tensors do not fit mmsegmentation's model, .* first"):
        engine.load_(model, other)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_configuration_alone_builds_the_same_model(engine, tmp_path):
    import mmengine
    from mmseg.registry import MODELS

    backbone = _prepared("alexnet-smoke")
    model, config = engine.segmenter(backbone, FCN32S, 5)
    file = tmp_path / "config.yaml"
    file.write_text(engine.text(config))
    again = MODELS.build(mmengine.Config.fromfile(file).model)
    assert {n: v.shape for n, v in again.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}
    engine.load_(again, backbone)
    again.decode_head.conv_seg.load_state_dict(model.decode_head.conv_seg.state_dict())
    image = _image(40, 50)
    assert torch.equal(engine.predict(again.eval(), image, (40, 50)), engine.predict(model.eval(), image, (40, 50)))


# features


@pytest.mark.parametrize(
    ("key", "overrides"),
    [("alexnet-smoke", {}), ("alexnet-smoke", {"preprocess": "lab"}), ("alexnet-smoke", {"preprocess": "sobel"})],
)
def test_a_padded_batch_of_two_sizes_gives_the_features_of_the_trunk(engine, key, overrides):
    backbone, model = _made(engine, key, **overrides)
    images = [_image(40, 64), _image(56, 48, seed=1)]
    data = model.data_preprocessor({"inputs": images})
    with torch.no_grad():
        (found,) = model.extract_feat(data["inputs"])
        ready = [backbone.preprocess(image[None]) for image in images]
        batch = torch.cat([F.pad(x, (0, 64 - x.shape[3], 0, 56 - x.shape[2])) for x in ready])
        assert torch.equal(data["inputs"], batch)
        wanted = backbone.trunk(F.pad(batch, (16, 16, 16, 16)), ("conv5",))["conv5"]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_dilated_resnet_keeps_its_weights_and_the_size_of_res3(engine):
    """On the cells that both have, with every other one, a stride and a dilation by as much compute the same."""
    backbone, model = _made(engine, "resnet-smoke")
    images = [_image(64, 64), _image(40, 56, seed=1)]
    inputs = model.data_preprocessor({"inputs": images})["inputs"]
    with torch.no_grad():
        res4, res5 = model.extract_feat(inputs)
        wanted = backbone.trunk(inputs)
    assert res4.shape[2:] == res5.shape[2:] == wanted["res3"].shape[2:]
    assert torch.allclose(res4[:, :, ::2, ::2], wanted["res4"], atol=1e-5)
    assert torch.allclose(model.backbone.net.trunk(inputs, ("res3",))["res3"], wanted["res3"], atol=1e-5)


def test_fc6_and_fc7_are_the_same_as_convolutions(engine):
    backbone, model = _made(engine, "alexnet-mini", fc=(32, 24))
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        features = backbone(images)["conv5"]
        wanted = backbone.fc(features)
        found = model.decode_head.fc(features)
    assert found.shape == (2, 24, 1, 1)
    assert torch.allclose(found.flatten(1), wanted, atol=1e-5)


# upsampling


def test_cells_lie_where_the_fcn_code_has_them(engine):
    """``net.py`` of voc-fcn-alexnet crops the upsampled map at 18: 31, the middle of its filter, less 13."""
    assert engine.reach(_prepared("caffenet"), pad=100) == (32, 13.0)
    assert engine.reach(_prepared("alexnet-mini"), pad=24) == (16, 6.0)


def test_upsampling_is_the_fcn_codes_fixed_deconvolution_cropped(engine):
    head = engine.Fcn32sHead(
        "caffenet",
        {"fc": (4,)},
        32,
        13.0,
        in_channels=256,
        channels=4,
        num_classes=3,
        loss_decode={"type": "CrossEntropyLoss", "avg_non_ignore": True},
    )
    scores = torch.randn(1, 3, 16, 12)
    line = 1 - (torch.arange(63) - 31).abs() / 32
    kernel = (line[:, None] * line).expand(3, 1, 63, 63)
    wanted = F.conv_transpose2d(scores, kernel, stride=32, groups=3)[:, :, 18 : 18 + 500, 18 : 18 + 333]
    assert torch.allclose(head.upsampled(scores, (500, 333)), wanted, atol=1e-5)
    assert not head.conv_seg.weight.any()
    assert not head.conv_seg.bias.any()


@pytest.mark.parametrize(("key", "pad"), [("caffenet", 100), ("alexnet", 100), ("alexnet-mini", 24)])
def test_the_papers_padding_covers_images_of_any_size(engine, key, pad):
    backbone = _prepared(key)
    stride, first = engine.reach(backbone, pad)
    trunk, head = engine.Trunk(key, {}, ["conv5"], pad), engine.convolutions(backbone)
    with torch.device("meta"):
        trunk, head = trunk.to("meta"), head.to("meta")
    for side in range(64, 64 + stride):
        cells = head(trunk(torch.zeros(1, 3, side, side, device="meta"))[0]).shape[2]
        last = first + stride * (cells - 1)
        assert first < stride
        assert side - 1 - last < stride, f"the last pixel of {side} is out of reach"


def test_too_little_padding_is_one_line(engine):
    model, _ = engine.segmenter(_prepared("alexnet-mini"), Fcn32s(kind="fcn32s", pad=0), 3)
    with pytest.raises(BenchError, match="2 cells of fc6 do not cover 65 pixels: pad the images by more"):
        engine.predict(model.eval(), _image(65, 65), (65, 65))
    with pytest.raises(BenchError, match="an image is too small for fc6"):
        engine.predict(model.eval(), _image(65, 20), (65, 20))


# losses


def _head_with_scores(model):
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    return model


def test_the_loss_is_the_mean_over_pixels_that_count(engine):
    model = _head_with_scores(_made(engine, "alexnet-smoke")[1])
    image, mask = _image(50, 40), _mask(50, 40)
    total, right = engine.losses(model, [image], [mask])
    x = model.data_preprocessor({"inputs": [image]})["inputs"]
    scores = model.decode_head.upsampled(model.decode_head(model.extract_feat(x)), (50, 40))[0]
    counted = mask != 255
    wanted = F.cross_entropy(scores.movedim(0, -1)[counted], mask[counted].long())
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    prediction = engine.predict(model, image, (50, 40))
    assert torch.equal(prediction, scores.argmax(0))
    assert right.item() == pytest.approx((prediction[counted] == mask[counted]).float().mean().item())
    empty, _ = engine.losses(model, [image], [torch.full_like(mask, 255)])
    assert empty.item() == 0


def test_what_is_padded_costs_nothing(engine):
    """Two sizes in one batch: no pixel of the padding is in the loss, and every real one is."""
    model = _head_with_scores(_made(engine, "alexnet-smoke")[1])
    images, masks = [_image(40, 64), _image(56, 48, seed=1)], [_mask(40, 64), _mask(56, 48, seed=1)]
    together, _ = engine.losses(model, images, masks)
    wide = [F.pad(mask, (0, 64 - mask.shape[1], 0, 56 - mask.shape[0]), value=255) for mask in masks]
    data = model.data_preprocessor({"inputs": images})["inputs"]
    scores = model.decode_head.upsampled(model.decode_head(model.extract_feat(data)), (56, 64))
    wanted = F.cross_entropy(scores, torch.stack(wide).long(), ignore_index=255)
    assert together.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_resnets_loss_adds_what_its_auxiliary_head_says(engine):
    _, model = _made(engine, "resnet-smoke")
    image, mask = _image(48, 48), _mask(48, 48)
    total, _ = engine.losses(model, [image], [mask])
    model.auxiliary_head.loss_decode.loss_weight = 0.0
    main, _ = engine.losses(model, [image], [mask])
    model.auxiliary_head.loss_decode.loss_weight, model.decode_head.loss_decode.loss_weight = 1.0, 0.0
    auxiliary, _ = engine.losses(model, [image], [mask])
    assert total.item() == pytest.approx((main + 0.4 * auxiliary).item(), rel=1e-5)
    assert engine.predict(model, image, (96, 90)).shape == (96, 90)
