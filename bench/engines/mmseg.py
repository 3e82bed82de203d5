"""Our backbones inside mmsegmentation: its models and losses around our trunks. Imports mmsegmentation.

A model is mmsegmentation's ``EncoderDecoder`` of plain configuration, in which three classes are ours: the data
preprocessor (:class:`Preprocessor`: the backbone's preprocessing, then padding with 0), the backbone (:class:`Trunk`)
and, for AlexNets, the decode head (:class:`Fcn32sHead`). ResNets get mmsegmentation's own ``FCNHead``. Weights go in
by an exact map of names (:func:`theirs`), of which :func:`ours` is the inverse.

Papers: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015), and
shelhamer/fcn.berkeleyvision.org ``voc-fcn-alexnet``.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.base import Backbone, build
from bench.backbones.grid import Grid, grid, walk
from bench.backbones.preprocess import Preprocess
from bench.backbones.resnet import Bottleneck
from bench.data.annotation import IGNORED
from bench.engines.weights import copy_
from bench.errors import BenchError
from bench.files import canonical

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mmcv without its compiled operators, which nothing here needs
    import mmengine
    import mmseg
    from mmengine.model import initialize
    from mmengine.structures import PixelData
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample
    from mmseg.utils import stack_batch

if TYPE_CHECKING:
    from bench.protocols.segmentation import Fcn32s, FcnD8

VERSION: str = mmseg.__version__

_TRUNK, _FC = "backbone.net.", "decode_head.fc."
_DILATIONS = {"res4": 2, "res5": 4}
"""Of mmsegmentation's ``r50-d8``."""


@MODELS.register_module("BenchPreprocessor")
class Preprocessor(nn.Module):
    """What mmsegmentation does to a batch ahead of the model, with a backbone's own preprocessing.

    Args:
        preprocess: the facts of a :class:`bench.backbones.preprocess.Preprocess`.
    """

    def __init__(self, preprocess: dict[str, Any]) -> None:
        super().__init__()
        self.preprocess = Preprocess.from_dict(preprocess)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """``inputs``: images (3, h, w) of any sizes -> one batch (B, C, H, W), each padded with 0 below and right.

        The masks of ``data_samples`` are padded with 255.
        """
        images = [self.preprocess(image[None])[0] for image in data["inputs"]]
        inputs, samples = stack_batch(images, data.get("data_samples"), size_divisor=1, pad_val=0, seg_pad_val=IGNORED)
        return {"inputs": inputs, "data_samples": samples}


@MODELS.register_module("BenchTrunk")
class Trunk(nn.Module):
    """One of our backbones as mmsegmentation's: (B, C, H, W), preprocessed and padded -> the features of some stages.

    Args:
        key, overrides: what :func:`bench.backbones.base.build` is called with.
        stages: in forward order.
        pad: zeros around the batch, in pixels.
        dilated: whether res4 and res5 keep the size of res3 and are dilated by 2 and 4 instead (the first block of each
            by half of it, as with mmsegmentation's ``contract_dilation``).
    """

    def __init__(
        self, key: str, overrides: dict[str, Any], stages: Sequence[str], pad: int = 0, dilated: bool = False
    ) -> None:
        super().__init__()
        self.net, self.stages, self.pad = build(key, **overrides), tuple(stages), pad
        if dilated:
            _dilate_(self.net)

    def forward(self, x: Tensor) -> list[Tensor]:
        """One tensor a stage."""
        return list(self.net.trunk(F.pad(x, (self.pad,) * 4), self.stages).values())


@MODELS.register_module("BenchFcn32sHead")
class Fcn32sHead(BaseDecodeHead):
    """FCN-32s on an AlexNet: fc6 and fc7 as convolutions, one score a class and cell, upsampled to the image.

    The scores' layer starts at zero. The upsampling is that of the FCN code's fixed bilinear ``deconv``, cropped to the
    image: a pixel's score is the cells' scores, weighted by a triangle around the centre of each that is 2 x ``stride``
    wide.

    Args:
        key, overrides: of the backbone, with its fc.
        stride, first: of the cells of fc6 and fc7: pixels from one centre to the next, and where the first is.
    """

    def __init__(self, key: str, overrides: dict[str, Any], stride: int, first: float, **others: Any) -> None:
        super().__init__(**others)
        nn.init.zeros_(self.conv_seg.weight)
        nn.init.zeros_(self.conv_seg.bias)
        self.fc, self.stride, self.first = convolutions(build(key, **overrides)), stride, first
        fc6 = self.fc[1]
        assert isinstance(fc6, nn.Conv2d)
        self.window = fc6.kernel_size[0]

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """The last stage's features (B, C, h, w) -> scores (B, classes, n, m), one for each place of fc6.

        Raises:
            BenchError: there is no place for fc6.
        """
        pooled = self.fc[0](self._transform_inputs(inputs))
        if min(pooled.shape[2:]) < self.window:
            raise BenchError("an image is too small for fc6", mend="pad the images by more, or shrink them less")
        return self.cls_seg(self.fc[1:](pooled))

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Of the scores at the size of the masks."""
        size = batch_data_samples[0].gt_sem_seg.shape
        return super().loss_by_feat(self.upsampled(seg_logits, size), batch_data_samples)

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """The scores at the size of the images."""
        return self.upsampled(seg_logits, batch_img_metas[0]["img_shape"])

    def upsampled(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, classes, n, m) -> (B, classes, *size), float32.

        Raises:
            BenchError: the cells do not cover the image.
        """
        down, right = (self._weights(n, pixels, scores) for n, pixels in zip(scores.shape[2:], size, strict=True))
        with torch.autocast(scores.device.type, enabled=False):
            return down @ scores.float() @ right.T

    def _weights(self, cells: int, pixels: int, like: Tensor) -> Tensor:
        """(pixels, cells): how much of each cell's score a pixel gets."""
        centres = self.first + self.stride * torch.arange(cells, device=like.device)
        distance = torch.arange(pixels, device=like.device)[:, None] - centres
        weights = (1 - distance.abs() / self.stride).clamp(min=0)
        if not bool(weights.any(1).all()):
            raise BenchError(f"{cells} cells of fc6 do not cover {pixels} pixels", mend="pad the images by more")
        return weights


def reach(backbone: Backbone, pad: int) -> Grid:
    """Of the cells of fc6 as a convolution, with ``pad`` zeros around the image."""
    stride, first = walk(convolutions(backbone), grid(backbone, backbone.stages[-1]))
    return Grid(stride, first - pad)


def convolutions(backbone: Backbone) -> nn.Sequential:
    """Layers that do to a map of any size what ``backbone.fc`` does to one of its own size, under the same names.

    The first of the fully connected layers becomes a convolution as large as what pool5 gives, the others 1 x 1. Only
    shapes come from the backbone, no weights.
    """
    assert isinstance(backbone.fc, nn.Sequential)
    x = torch.zeros(1, *backbone.shapes()[backbone.stages[-1]])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in backbone.fc.named_children():
        if isinstance(layer, nn.Linear):
            window = x.shape[2], x.shape[3]
            layers[name] = nn.Conv2d(x.shape[1], layer.out_features, window, bias=layer.bias is not None)
            x = torch.zeros(1, layer.out_features, 1, 1)
        elif not isinstance(layer, nn.Flatten):
            layers[name] = copy.deepcopy(layer)
            x = layer.cpu()(x) if isinstance(layer, nn.MaxPool2d) else x
    return nn.Sequential(layers)


def segmenter(backbone: Backbone, net: Fcn32s | FcnD8, classes: int) -> tuple[EncoderDecoder, dict[str, Any]]:
    """A model for so many classes, background included, on the weights of ``backbone``; and its configuration.

    What is not the backbone's starts as torch's global generator has it. On the backbone's device.

    Raises:
        BenchError: the weights do not fit, which is a fault of the adapter.
    """
    described = {
        "custom_imports": {"imports": [__name__]},
        "model": {
            "type": "EncoderDecoder",
            "data_preprocessor": {"type": "mmseg.BenchPreprocessor", "preprocess": backbone.preprocess.to_dict()},
            **(_fcn32s(backbone, net.pad, classes) if net.kind == "fcn32s" else _fcn_d8(backbone, net, classes)),
            "test_cfg": {"mode": "whole"},
        },
    }
    model = MODELS.build(mmengine.Config(described).model)
    for head in (model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])):
        if not isinstance(head, Fcn32sHead):
            initialize(head, head.init_cfg)
    load_(model, backbone)
    return model.to(next(backbone.parameters()).device), described


def theirs(backbone: Backbone) -> dict[str, Tensor]:
    """The backbone's weights under the names, and in the shapes, that a model of :func:`segmenter` has for them."""
    shapes = {} if backbone.fc is None else {n: t.shape for n, t in convolutions(backbone).state_dict().items()}
    found = {}
    for name, value in backbone.state_dict().items():
        of_fc = name.removeprefix("fc.")
        found[_TRUNK + name if of_fc == name else _FC + of_fc] = value if of_fc == name else value.view(shapes[of_fc])
    return found


def ours(model: EncoderDecoder) -> dict[str, Tensor]:
    """The inverse of :func:`theirs`: what a model holds of the backbone, under the backbone's names and shapes."""
    found = {}
    for name, value in model.state_dict().items():
        if name.startswith(_TRUNK):
            found[name.removeprefix(_TRUNK)] = value
        elif name.startswith(_FC):
            found["fc." + name.removeprefix(_FC)] = value.flatten(1) if value.dim() == 4 else value
    return found


def load_(model: EncoderDecoder, backbone: Backbone) -> None:
    """Put the backbone's weights into the model: all of them, and into all that is the backbone's there.

    Raises:
        BenchError: a tensor has no counterpart of its name and shape.
    """
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith((_TRUNK, _FC))}
    copy_(theirs(backbone), wanted, engine="mmsegmentation", backbone=backbone.config["backbone"])


def losses(model: EncoderDecoder, images: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and the share of pixels that are right.

    Args:
        images: uint8 (3, h, w) each; of several sizes, they are padded.
        masks: uint8 (h, w) each; 255 counts for nothing.
    """
    samples = [SegDataSample(gt_sem_seg=PixelData(data=mask[None].long())) for mask in masks]
    data = model.data_preprocessor({"inputs": images, "data_samples": samples}, True)
    found = model(**data, mode="loss")
    total = torch.stack([value for name, value in found.items() if "loss" in name]).sum()
    return total, found["decode.acc_seg"].squeeze() / 100


def predict(model: EncoderDecoder, image: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of each pixel of one image, uint8 (3, h, w) -> int64 (*size); scores are resized, bilinearly."""
    sample = SegDataSample(metainfo={"ori_shape": size})
    data = model.data_preprocessor({"inputs": [image], "data_samples": [sample]})
    return model(**data, mode="predict")[0].pred_sem_seg.data[0]


def text(config: dict[str, Any]) -> str:
    """A configuration in YAML, which ``mmengine.Config.fromfile`` reads."""
    plain = json.loads(canonical(config))  # lists for tuples
    return f"# mmsegmentation {VERSION}\n{mmengine.dump(plain, file_format='yaml')}"


def _fcn32s(backbone: Backbone, pad: int, classes: int) -> dict[str, Any]:
    key, overrides = backbone.config["backbone"], backbone.config["overrides"]
    without = {name: value for name, value in overrides.items() if name != "fc"}
    last, (stride, first) = backbone.stages[-1], reach(backbone, pad)
    head = {
        "type": "BenchFcn32sHead",
        "key": key,
        "overrides": overrides,
        "stride": stride,
        "first": first,
        "in_channels": backbone.out_channels(last),
        "channels": overrides["fc"][-1],
        "dropout_ratio": 0.0,
        **_scores(classes, 1.0),
    }
    return {
        "backbone": {"type": "BenchTrunk", "key": key, "overrides": without, "stages": [last], "pad": pad},
        "decode_head": head,
    }


def _fcn_d8(backbone: Backbone, net: FcnD8, classes: int) -> dict[str, Any]:
    """As ``configs/_base_/models/fcn_r50-d8.py``."""
    stages = list(_DILATIONS)
    trunk = {"type": "BenchTrunk", "key": backbone.config["backbone"], "overrides": backbone.config["overrides"]}
    heads = [
        {
            "type": "FCNHead",
            "in_channels": channels,
            "in_index": index,
            "channels": channels // 4,
            "num_convs": convs,
            "concat_input": index == 1,
            "dropout_ratio": 0.1,
            "norm_cfg": {"type": "BN"},
            **_scores(classes, weight),
        }
        for index, (channels, convs, weight) in enumerate(
            [(backbone.out_channels(stages[0]), 1, net.auxiliary), (backbone.out_channels(stages[1]), 2, 1.0)]
        )
    ]
    return {
        "backbone": {**trunk, "stages": stages, "dilated": True},
        "auxiliary_head": heads[0],
        "decode_head": heads[1],
    }


def _scores(classes: int, weight: float) -> dict[str, Any]:
    """Cross-entropy over the pixels that count."""
    loss = {"type": "CrossEntropyLoss", "avg_non_ignore": True, "loss_weight": weight}
    return {"num_classes": classes, "align_corners": False, "ignore_index": IGNORED, "loss_decode": loss}


def _dilate_(net: Backbone) -> None:
    for stage, dilation in _DILATIONS.items():
        for index, block in enumerate(net.get_submodule(stage).children()):
            assert isinstance(block, Bottleneck)
            conv, spacing = block.conv2, dilation // 2 if index == 0 else dilation
            conv.stride, conv.dilation, conv.padding = (1, 1), (spacing, spacing), (spacing, spacing)
            if block.downsample is not None:
                projection = block.downsample.get_submodule("0")
                assert isinstance(projection, nn.Conv2d)
                projection.stride = (1, 1)
