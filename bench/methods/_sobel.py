"""Networks that see the edges of an image and none of its colours: what methods with moving targets share."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.backbones.base import Backbone, twin


def on_edges(backbone: Backbone) -> Backbone:
    """The backbone, built for Sobel-filtered images; itself where it is.

    Raises:
        BenchError: it cannot be built for another preprocessing.
    """
    return backbone if backbone.preprocess.space == "sobel" else twin(backbone, preprocess="sobel")


def drawn(backbone: Backbone, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> uint8 (B, 2, 3, H, W): their horizontal and vertical edges, 0 as grey."""
    edges = backbone.preprocess(images)
    scale = edges.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    grey = (127.5 * (1 + edges / scale)).round().to(torch.uint8)
    return grey[:, :, None].expand(-1, -1, 3, -1, -1)
