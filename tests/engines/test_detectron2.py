import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.backbones.base import build
from bench.errors import BenchError
from bench.protocols import definitions
from bench.protocols.detection import Detection
from bench.protocols.transfer import freeze_, prepared
from bench.suite import load as load_suite

pytest.importorskip("detectron2")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SMALL = {"fc": [24, 16], "fc_std": 0.2, "rescale": False, "anchors": [8, 16], "rois": 16}
KEYS = ["alexnet-smoke", "resnet-smoke"]


@pytest.fixture(scope="module")
def engine():
    from bench.engines import detectron2

    return detectron2


def _spec(key, **changes):
    suite = load_suite("smoke").model_copy(update={"protocols": {"voc07-detection": {**SMALL, **changes}}})
    return Detection.model_validate(definitions.load("voc07-detection").variant("standard", suite, key).definition)


def _made(engine, key, classes=5, spec=None, **overrides):
    """A prepared backbone, and the detector on it."""
    spec = spec or _spec(key)
    torch.manual_seed(0)
    net = build(key, **overrides)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after some training
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    ready = prepared(net, [], spec.transfer, method="m", generator=torch.Generator().manual_seed(0)).backbone
    return ready, engine.detector(ready, spec, classes)[0].eval()


def _image(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# weights


@pytest.mark.parametrize("key", KEYS)
def test_there_and_back_is_the_identity(engine, key):
    backbone, model = _made(engine, key)
    back = engine.ours(model)
    assert list(back) == list(backbone.state_dict())
    assert all(torch.equal(back[name], value) for name, value in backbone.state_dict().items())
    assert engine.theirs(backbone).keys() <= model.state_dict().keys()


@pytest.mark.parametrize("key", KEYS)
def test_every_other_tensor_of_the_detector_is_one_of_detectron2s_own(engine, key):
    backbone, model = _made(engine, key)
    others = {name for name in model.state_dict() if name not in engine.theirs(backbone)}
    own = {"box_predictor", "proposal_generator", "res5.norm"}
    assert {next(part for part in own if part in name) for name in others} == (
        {"box_predictor"} if key == "alexnet-smoke" else own
    )


@pytest.mark.parametrize(("key", "other"), [("alexnet-smoke", {"norm": "none"}), ("resnet-smoke", {"width": 4})])
def test_weights_that_do_not_fit_are_refused(engine, key, other):
    _, model = _made(engine, key)
    with pytest.raises(BenchError, match=f"tensors do not fit detectron2's model, .* first \\({key}\\)"):
        engine.load_(model, build(key, **other))  # AlexNet: without fc6 and fc7


def test_what_learns_nothing_in_the_backbone_learns_nothing_in_the_detector(engine):
    backbone, model = _made(engine, "alexnet-smoke")
    freeze_(backbone, ["conv1", "fc"])
    engine.freeze_(model, backbone)
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.rsplit(".", 2)[0] for name in still} == {"backbone.net.conv1", "roi_heads.box_head.layers"}
    freeze_(backbone, [])
    engine.freeze_(model, backbone)
    assert all(p.requires_grad for p in model.parameters())


# features


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("alexnet-smoke", {}),
        ("alexnet-smoke", {"preprocess": "sobel"}),
        ("alexnet-smoke", {"preprocess": "caffe", "conv1": (5, 2, 0)}),
        ("resnet-smoke", {}),
    ],
)
@torch.no_grad()
def test_a_padded_batch_of_two_sizes_gives_what_the_trunk_gives(engine, key, overrides):
    backbone, model = _made(engine, key, **overrides)
    images = [_image(40, 64), _image(56, 48, seed=1)]
    inside = model.backbone(model.preprocess_image([{"image": image} for image in images]).tensor)
    batch = torch.zeros(2, backbone.in_channels, 56, 64)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = backbone.preprocess(image[None])[0]
    stage, margin = model.backbone.stage, model.backbone.margin
    outside = backbone.trunk(F.pad(batch, (margin,) * 4), (stage,))
    assert inside.keys() == outside.keys()
    assert torch.allclose(inside[stage], outside[stage], atol=1e-5)
    assert inside[stage].std() > 0.01
    assert margin == (0 if key == "resnet-smoke" else 8 if "conv1" in overrides else 6)


@torch.no_grad()
def test_without_padding_it_is_the_backbone_itself(engine):
    backbone, model = _made(engine, "resnet-smoke")
    image = _image(48, 64)
    inside = model.backbone(model.preprocess_image([{"image": image}]).tensor)["res4"]
    assert torch.allclose(inside, backbone(image[None])["res4"], atol=1e-5)


@torch.no_grad()
def test_fc6_and_fc7_and_res5_compute_what_they_did(engine):
    backbone, model = _made(engine, "alexnet-smoke")
    features = backbone(_image(28, 28)[None])["conv5"]
    pooled = backbone.fc.pool5(features)
    assert model.roi_heads.box_pooler.output_size == tuple(pooled.shape[2:])
    assert torch.allclose(model.roi_heads.box_head(pooled), backbone.fc(features), atol=1e-6)
    backbone, model = _made(engine, "resnet-smoke", spec=_spec("resnet-smoke", extra_norm=False))
    features = backbone(_image(28, 28)[None], ("res4", "res5"))
    assert torch.allclose(model.roi_heads.res5(features["res4"]), features["res5"], atol=1e-5)


@pytest.mark.parametrize("key", KEYS)
def test_cells_are_centred_on_multiples_of_the_stride(engine, key):
    """The pixels on which a cell depends lie as far to its right as to its left, so poolers look where it is."""
    _, model = _made(engine, key)
    trunk = model.backbone.double()
    for module in trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.abs_()
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.reset_parameters()
    x = torch.rand(1, 3, 160, 160, dtype=torch.float64).requires_grad_()
    (features,) = trunk(x).values()
    (stride,) = {shape.stride for shape in trunk.output_shape().values()}
    for cell in (8, 10):
        (seen,) = torch.autograd.grad(features[0, :, cell, cell].sum(), x, retain_graph=True)
        columns = seen.abs().sum((0, 1, 2)).nonzero()
        centre = float(columns.min() + columns.max()) / 2
        assert abs(centre - stride * cell) <= stride / 4, "max pools look at part of their window"


# regions, and what is learned


def test_regions_are_drawn_as_fast_rcnn_draws_them(engine):
    from detectron2.structures import pairwise_iou
    from detectron2.utils.events import EventStorage

    model = _made(engine, "alexnet-smoke", spec=_spec("alexnet-smoke", rois=64))[1]
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (400, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + rng.uniform(5, 40, (400, 2))], 1)).float()
    one = engine.Scaled(_image(100, 100), torch.tensor([[20.0, 20, 50, 50]]), torch.tensor([3]), boxes)
    with EventStorage():
        (drawn,) = model.roi_heads.label_and_sample_proposals([engine._input(one)["proposals"]], [engine._objects(one)])
    overlap = pairwise_iou(engine._objects(one).gt_boxes, drawn.proposal_boxes)[0]
    fore = drawn.gt_classes == 3
    assert (drawn.gt_classes[~fore] == 5).all()
    assert 0 < fore.sum() <= 16
    assert len(drawn) <= 64
    assert (overlap[fore] >= 0.5).all()
    assert ((overlap[~fore] >= 0.1) & (overlap[~fore] < 0.5)).all()
    assert 1.0 in overlap, "objects are proposals too"


@pytest.mark.parametrize("key", KEYS)
def test_its_losses_are_finite_and_reach_all_that_learns(engine, key):
    backbone, model = _made(engine, key)
    engine.freeze_(model, freeze_(backbone, ["conv1"]) or backbone)
    boxes = torch.tensor([[4.0, 4, 30, 40], [10, 20, 60, 60]])
    images = [
        engine.Scaled(_image(64, 80), boxes, torch.tensor([0, 4]), boxes + 3),
        engine.Scaled(_image(72, 64), boxes[:0], torch.zeros(0, dtype=torch.int64), boxes),
    ]
    torch.manual_seed(0)
    parts = engine.losses(model.train(), images)
    more = {"loss_rpn_cls", "loss_rpn_loc"} if key == "resnet-smoke" else set()
    assert parts.keys() == {"loss_cls", "loss_box_reg"} | more
    sum(parts.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_images_without_a_region_to_learn_from_cost_nothing(engine):
    model = _made(engine, "alexnet-smoke")[1].train()
    nothing = torch.zeros(0, 4)
    one = engine.Scaled(_image(64, 64), nothing, torch.zeros(0, dtype=torch.int64), nothing)
    assert sum(engine.losses(model, [one]).values()).item() == 0


def test_rates_and_decays(engine):
    spec = _spec("alexnet-smoke")
    model = _made(engine, "alexnet-smoke")[1]
    groups = {(g["times"], g["weight_decay"]): g["params"] for g in engine.parameter_groups(model, spec)}
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".")[-1] for p in groups[1.0, 5e-4]} == {"weight"}
    assert {names[id(p)].rsplit(".")[-1] for p in groups[2.0, 0.0]} == {"bias"}
    assert sum(map(len, groups.values())) == len(names)
    spec = _spec("resnet-smoke")
    model = _made(engine, "resnet-smoke")[1]
    groups = {(g["times"], g["weight_decay"]): g["params"] for g in engine.parameter_groups(model, spec)}
    assert groups.keys() == {(1.0, 0.0), (1.0, 1e-4)}
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()}
    assert {id(p) for p in groups[1.0, 0.0]} == norms


# images, and what is found


@pytest.mark.parametrize("mirrored", [False, True])
def test_objects_and_proposals_go_with_the_image(engine, mirrored):
    image = torch.zeros(3, 60, 100, dtype=torch.uint8)
    image[:, 20:40, 10:30] = 255
    box = torch.tensor([[10.0, 20, 30, 40]])
    seen = engine.Scaled(image, box, torch.tensor([7]), torch.cat([box, box + 100, box * 0.5]))
    found = engine.scaled(seen, 120, 1000, mirrored=mirrored, proposals=2)
    assert found.image.shape == (3, 120, 200)
    x1, x2 = (140, 180) if mirrored else (20, 60)
    assert found.boxes.tolist() == [[x1, 40, x2, 80]]
    assert found.labels.tolist() == [7]
    assert len(found.proposals) == 2, "what lies outside is dropped, then all but two"
    assert found.proposals[0].tolist() == found.boxes[0].tolist()
    inside = found.image[0, 42:78, x1 + 2 : x2 - 2]
    assert (inside == 255).all()
    assert (found.image[0] > 127).sum() == 40 * 40
    assert engine.scaled(seen, 120, 150).image.shape == (3, 90, 150), "the long side is what limits"


@torch.no_grad()
def test_detections_are_in_pixels_of_the_image_itself(engine):
    _, model = _made(engine, "alexnet-smoke", spec=_spec("alexnet-smoke", score=0.0))
    model.roi_heads.box_predictor.bbox_pred.weight.zero_()  # boxes are the proposals
    half = torch.tensor([[5.0, 10, 25, 30]])
    seen = engine.Scaled(_image(60, 80), half[:0], torch.zeros(0, dtype=torch.int64), half)
    found = engine.detect(model, engine.scaled(seen, 30, 400, proposals=5), 60, 80)
    assert found.shape == (5, 6)
    assert sorted(found[:, 0].tolist()) == [0, 1, 2, 3, 4]
    assert torch.allclose(found[:, 2:], half.expand(5, 4), atol=1e-4)
    assert found[:, 1].sum() < 1, "the rest is background"


def test_its_configuration_says_what_is_there(engine):
    import yaml

    for key in KEYS:
        spec = _spec(key)
        config = engine.configuration(_made(engine, key)[0], spec, 20)
        said = yaml.safe_load(engine.text(config))
        heads = said["MODEL"]["ROI_HEADS"]
        assert said["MODEL"]["BENCH"]["BACKBONE"] == key
        assert (heads["NUM_CLASSES"], heads["BATCH_SIZE_PER_IMAGE"], heads["POSITIVE_FRACTION"]) == (20, 16, 0.25)
        assert said["TEST"]["DETECTIONS_PER_IMAGE"] == 100
        assert not {"SOLVER", "DATASETS", "DATALOADER"} & said.keys()
        assert heads["IOU_THRESHOLDS"] == ([0.1, 0.5] if key == "alexnet-smoke" else [0.5])
