"""Our backbones inside detectron2: its detectors, proposals and transforms around our trunks. Imports detectron2.

A detector is built by detectron2 from its configuration, in which four classes are ours: the meta architecture
(:class:`BenchRcnn`: the backbone's preprocessing, then padding with 0), the backbone (:class:`BenchTrunk`) and, of its
upper layers, the box head with fc6 and fc7 (:class:`BenchBoxHead`) or the ROI heads with res5
(:class:`BenchRes5Heads`). Weights go in by an exact map of names (:func:`theirs`); :func:`ours` is its inverse.

Papers: Girshick, "Fast R-CNN" (ICCV 2015); Ren, He, Girshick, Sun, "Faster R-CNN" (NIPS 2015), and MoCo's heads (He et
al., CVPR 2020, facebookresearch/moco ``detection/train_net.py``) for ResNets.
"""

from __future__ import annotations

import json
import logging
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.base import Backbone, build
from bench.backbones.grid import grid
from bench.backbones.preprocess import Preprocess
from bench.engines.weights import copy_
from bench.files import canonical
from bench.metrics.detection_evidence import MOST

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torch's, of what detectron2 does at import
    import detectron2
    from detectron2.config import CfgNode, get_cfg
    from detectron2.data import transforms as T
    from detectron2.data.detection_utils import transform_proposals
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import (
        BACKBONE_REGISTRY,
        META_ARCH_REGISTRY,
        ROI_BOX_HEAD_REGISTRY,
        ROI_HEADS_REGISTRY,
        GeneralizedRCNN,
        build_model,
    )
    from detectron2.modeling.backbone import Backbone as EngineBackbone
    from detectron2.modeling.roi_heads import Res5ROIHeads
    from detectron2.solver.build import get_default_optimizer_params
    from detectron2.structures import Boxes, BoxMode, ImageList, Instances
    from detectron2.utils.events import EventStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.protocols.detection import Detection

VERSION: str = detectron2.__version__

# torch tells of functions of its own that detectron2 calls
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="torch.meshgrid")

_TRUNK, _FC, _RES5 = "backbone.net.", "roi_heads.box_head.layers.", "roi_heads.res5."
_EXTRA = f"{_RES5}norm."
_RES5_RESOLUTION = 14


@META_ARCH_REGISTRY.register()
class BenchRcnn(GeneralizedRCNN):
    """detectron2's detector, with a backbone's own preprocessing ahead of the padding."""

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """``image`` of each, uint8 (3, h, w) -> one batch (B, C, H, W), padded with 0 to the right and below."""
        images = [self.backbone.net.preprocess(one["image"].to(self.device)[None])[0] for one in batched_inputs]
        return ImageList.from_tensors(images)


@BACKBONE_REGISTRY.register()
class BenchTrunk(EngineBackbone):
    """One of our backbones as detectron2's: (B, C, H, W), preprocessed and padded -> {stage: features}.

    Around the batch there are ``margin`` zeros on every side, so that cell i is centred on pixel ``stride`` * i, where
    detectron2's poolers look for it. Without fc and what comes after the stage, which belong to the ROI heads.
    """

    def __init__(self, config: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.net = _described(config)
        self.stage, self.margin = config.MODEL.BENCH.STAGE, config.MODEL.BENCH.MARGIN
        self._shape = ShapeSpec(channels=self.net.out_channels(self.stage), stride=config.MODEL.BENCH.STRIDE)
        self.net.fc = None
        kept = self.net.stages[: self.net.stages.index(self.stage) + 1]
        for later in self.net.stages[len(kept) :]:
            delattr(self.net, later)
        self.net.stages = kept

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The features of one stage."""
        return self.net.trunk(F.pad(x, (self.margin,) * 4), (self.stage,))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride."""
        return {self.stage: self._shape}


@ROI_BOX_HEAD_REGISTRY.register()
class BenchBoxHead(nn.Module):
    """fc6 and fc7: pooled regions (R, C, s, s) -> (R, D)."""

    def __init__(self, config: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        fc = _described(config).fc
        assert isinstance(fc, nn.Sequential)
        self.layers = nn.Sequential()
        for name, layer in fc.named_children():
            if name != "pool5":
                self.layers.add_module(name, layer)
        self.output_shape = ShapeSpec(channels=_width(fc))

    def forward(self, x: Tensor) -> Tensor:
        """(R, D)."""
        return self.layers(x)


@ROI_HEADS_REGISTRY.register()
class BenchRes5Heads(Res5ROIHeads):
    """detectron2's heads with our res5, and after it one more BatchNorm where the configuration says so."""

    @classmethod
    def _build_res5_block(cls, config: CfgNode) -> tuple[nn.Sequential, int]:
        net = _described(config)
        channels, res5 = net.out_channels("res5"), net.get_submodule("res5")
        assert isinstance(res5, nn.Sequential)
        if config.MODEL.BENCH.EXTRA_NORM:
            res5.add_module("norm", nn.BatchNorm2d(channels))
        return res5, channels


def configuration(backbone: Backbone, spec: Detection, classes: int) -> CfgNode:
    """detectron2's configuration of a detector on ``backbone``, resolved; of the parts that are used."""
    config, net = get_cfg(), spec.net
    stage = backbone.stages[-1] if net.kind == "fast-rcnn" else "res4"
    stride, first = grid(backbone, stage)
    config.MODEL.BENCH = CfgNode(
        {
            "BACKBONE": backbone.config["backbone"],
            "OVERRIDES": canonical(backbone.config["overrides"]),
            "PREPROCESS": canonical(backbone.preprocess.to_dict()),
            "STAGE": stage,
            "STRIDE": stride,
            "MARGIN": round(first),
            "EXTRA_NORM": net.kind == "faster-rcnn-c4" and net.extra_norm,
        }
    )
    low, high = net.background_iou
    config.merge_from_list(
        [
            *("MODEL.DEVICE", str(next(backbone.parameters()).device)),
            *("MODEL.META_ARCHITECTURE", "BenchRcnn"),
            *("MODEL.BACKBONE.NAME", "BenchTrunk"),
            *("MODEL.BACKBONE.FREEZE_AT", 0),
            *("MODEL.ROI_HEADS.IN_FEATURES", [stage]),
            *("MODEL.ROI_HEADS.NUM_CLASSES", classes),
            *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", net.rois),
            *("MODEL.ROI_HEADS.POSITIVE_FRACTION", net.foreground),
            *("MODEL.ROI_HEADS.IOU_THRESHOLDS", [low, high] if low else [high]),
            *("MODEL.ROI_HEADS.IOU_LABELS", [-1, 0, 1] if low else [0, 1]),
            *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", spec.score),
            *("MODEL.ROI_HEADS.NMS_THRESH_TEST", spec.nms),
            *("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", net.beta),
            *("TEST.DETECTIONS_PER_IMAGE", MOST),
            *("INPUT.MIN_SIZE_TRAIN", spec.train_short),
            *("INPUT.MAX_SIZE_TRAIN", spec.train_long),
            *("INPUT.MIN_SIZE_TEST", spec.test_short),
            *("INPUT.MAX_SIZE_TEST", spec.test_long),
            *("INPUT.RANDOM_FLIP", "horizontal" if spec.flip else "none"),
            *("INPUT.FORMAT", "RGB"),
        ]
    )
    if net.kind == "fast-rcnn":
        own = [
            *("MODEL.LOAD_PROPOSALS", True),
            *("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
            *("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
            *("MODEL.ROI_BOX_HEAD.NAME", "BenchBoxHead"),
            *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"),
            *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", _pooled(backbone)),
        ]
    else:
        own = [
            *("MODEL.RPN.IN_FEATURES", [stage]),
            *("MODEL.RPN.PRE_NMS_TOPK_TEST", 6000),
            *("MODEL.RPN.POST_NMS_TOPK_TEST", 1000),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [list(net.anchors)]),
            *("MODEL.ROI_HEADS.NAME", "BenchRes5Heads"),
            *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2"),
            *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", _RES5_RESOLUTION),
        ]
    config.merge_from_list(own)
    for unused in ("DATASETS", "DATALOADER", "SOLVER", "GLOBAL"):  # data and training are ours
        del config[unused]
    return config


def detector(backbone: Backbone, spec: Detection, classes: int) -> tuple[GeneralizedRCNN, CfgNode]:
    """A detector of so many classes on the weights of ``backbone``, which learns what learns there; and its
    configuration.

    What is not the backbone's starts as torch's global generator has it. On the backbone's device.

    Raises:
        BenchError: the weights do not fit, which is a fault of the adapter.
    """
    config = configuration(backbone, spec, classes)
    model = build_model(config)
    load_(model, backbone)
    return model, config


def theirs(backbone: Backbone) -> dict[str, Tensor]:
    """The backbone's weights under the names that a model of :func:`detector` has for them."""
    return {_their(name): value for name, value in backbone.state_dict().items()}


def ours(model: GeneralizedRCNN) -> dict[str, Tensor]:
    """The inverse of :func:`theirs`: what a model holds of the backbone, under the backbone's names."""
    return {name: value for theirs, value in model.state_dict().items() if (name := _our(theirs)) is not None}


def load_(model: GeneralizedRCNN, backbone: Backbone) -> None:
    """Put the backbone's weights into the model: all of them, and into all that is the backbone's there.

    Raises:
        BenchError: a tensor has no counterpart of its name and shape.
    """
    copy_(backbone.state_dict(), ours(model), engine="detectron2", backbone=backbone.config["backbone"])


def freeze_(model: GeneralizedRCNN, backbone: Backbone) -> None:
    """What learns nothing in ``backbone`` learns nothing in the model on it; the rest learns."""
    parameters = dict(model.requires_grad_(True).named_parameters())
    for name, parameter in backbone.named_parameters():
        parameters[_their(name)].requires_grad_(parameter.requires_grad)


def parameter_groups(model: GeneralizedRCNN, spec: Detection) -> list[dict[str, Any]]:
    """For :func:`bench.training.optim.build`: what learns, by its learning rate and weight decay."""
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=spec.weight_decay,
        weight_decay_norm=spec.weight_decay * spec.norm_decay,
        bias_lr_factor=spec.bias_rate,
        # a norm's bias is a norm's first, unless biases have a decay of their own
        weight_decay_bias=spec.weight_decay * spec.bias_decay if spec.bias_decay != 1 else None,
    )
    return [{"times": group.pop("lr"), **group} for group in groups]


class Scaled(NamedTuple):
    """An image as a detector is shown it."""

    image: Tensor
    """uint8 (3, h, w)."""
    boxes: Tensor
    """Of its objects, float32 (n, 4)."""
    labels: Tensor
    """int64 (n,)."""
    proposals: Tensor
    """float32 (p, 4); where there are none, they are the detector's own."""


def scaled(seen: Scaled, short: int, long: int, *, mirrored: bool = False, proposals: int = 0) -> Scaled:
    """The image with its short side at ``short``, or less so that its long side is within ``long``.

    Objects and proposals go with it; what is empty then is dropped, and of the proposals all but the first
    ``proposals``.
    """
    height, width = seen.image.shape[1:]
    size = T.ResizeShortestEdge.get_output_shape(height, width, short, long)
    steps = T.TransformList([T.ResizeTransform(height, width, *size)])
    if mirrored:
        steps += T.HFlipTransform(size[1])
    image = torch.from_numpy(np.array(steps.apply_image(seen.image.permute(1, 2, 0).numpy())))
    boxes = Boxes(steps.apply_box(seen.boxes.numpy()))
    boxes.clip(size)
    there = boxes.nonempty()
    proposed = {
        "proposal_boxes": seen.proposals.numpy(),
        "proposal_objectness_logits": np.zeros(len(seen.proposals)),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }
    transform_proposals(proposed, size, steps, proposal_topk=proposals)
    return Scaled(
        image.permute(2, 0, 1),
        boxes.tensor[there].float(),
        seen.labels[there],
        proposed["proposals"].proposal_boxes.tensor.float(),
    )


def losses(model: GeneralizedRCNN, images: Sequence[Scaled]) -> dict[str, Tensor]:
    """Those of a batch, by detectron2's names; their sum is the loss."""
    with EventStorage():
        found: dict[str, Tensor] = model([{**_input(one), "instances": _objects(one)} for one in images])
    return found


def detect(model: GeneralizedRCNN, one: Scaled, height: int, width: int) -> Tensor:
    """What is found in one image: float32 (n, 6): label, score, x1, y1, x2, y2 in pixels of ``height`` x ``width``."""
    (found,) = model([{**_input(one), "height": height, "width": width}])
    those = found["instances"]
    columns = [those.pred_classes[:, None].float(), those.scores[:, None].float(), those.pred_boxes.tensor.float()]
    return torch.cat(columns, 1)


def text(config: CfgNode) -> str:
    """A configuration as detectron2's files have it, YAML."""
    return f"# detectron2 {VERSION}; data and training are not detectron2's\n{config.dump()}"


def _described(config: CfgNode) -> Backbone:
    """A fresh backbone as a configuration describes it."""
    described = config.MODEL.BENCH
    net = build(described.BACKBONE, **json.loads(described.OVERRIDES))
    net.preprocess = Preprocess.from_dict(json.loads(described.PREPROCESS))
    return net


def _their(name: str) -> str:
    for mine, other in (("fc.", _FC), ("res5.", _RES5)):
        if name.startswith(mine):
            return other + name.removeprefix(mine)
    return _TRUNK + name


def _our(name: str) -> str | None:
    """The backbone's name of what the detector calls ``name``; None: it is not the backbone's."""
    if name.startswith(_EXTRA):
        return None
    for mine, other in (("fc.", _FC), ("res5.", _RES5), ("", _TRUNK)):
        if name.startswith(other):
            return mine + name.removeprefix(other)
    return None


def _input(one: Scaled) -> dict[str, Any]:
    proposals = Instances(tuple(one.image.shape[1:]))
    proposals.proposal_boxes = Boxes(one.proposals)
    proposals.objectness_logits = one.proposals.new_zeros(len(one.proposals))
    return {"image": one.image, "proposals": proposals}


def _objects(one: Scaled) -> Instances:
    found = Instances(tuple(one.image.shape[1:]))
    found.gt_boxes, found.gt_classes = Boxes(one.boxes), one.labels
    return found


def _pooled(backbone: Backbone) -> int:
    """Cells a side of what fc6 takes."""
    assert isinstance(backbone.fc, nn.Sequential)
    shape = backbone.shapes()[backbone.stages[-1]]
    pool5 = backbone.fc.get_submodule("pool5")
    return int(pool5(torch.zeros(1, *shape)).shape[-1])


def _width(fc: nn.Sequential) -> int:
    return [layer.out_features for layer in fc if isinstance(layer, nn.Linear)][-1]
