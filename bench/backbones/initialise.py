"""How weights start: drawn, fitted to data, or folded out of BatchNorm.

Draws come from the generator that is handed in (torch's global one where that is ``None``), on the CPU, so a seed
gives the same draws on every device. What looks at images takes them as batches (B, 3, H, W), uint8 or in [0, 1],
works in eval mode (no dropout), and leaves the mode as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.backbones.base import Backbone, twin
from bench.errors import BenchError

Layer = nn.Conv2d | nn.Linear
Visit = Callable[[str, Layer, list[Tensor]], None]


def he_normal_(backbone: nn.Module, generator: Generator | None = None) -> None:
    """Weights N(0, 2 / fan-out), biases 0, BatchNorm as if untrained (He et al. 2015).

    The fan-out is k * k * output channels, whatever the groups, as in the Rotation paper's and DeepCluster's code.
    """
    _draw_(backbone, lambda layer: math.sqrt(2 / layer.weight[:, 0].numel()), generator)


def gaussian_(backbone: nn.Module, std: float = 0.01, generator: Generator | None = None) -> None:
    """Weights N(0, std^2), biases 0, BatchNorm as if untrained: the Caffe nets' default."""
    _draw_(backbone, lambda layer: std, generator)


@torch.no_grad()
def set_batch_norm_statistics_(backbone: Backbone, batches: Sequence[Tensor]) -> None:
    """Running means and variances become the plain average over the batches; earlier ones are forgotten.

    Raises:
        BenchError: there is no batch.
    """
    _some(batches)
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with _eval(backbone):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for images in batches:
            features = backbone(images.to(_device(backbone)), backbone.stages[-1:])
            if backbone.fc is not None:
                backbone.fc(features[backbone.stages[-1]])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def absorb_batch_norm(backbone: Backbone) -> Backbone:
    """The twin without BatchNorm that computes the same in eval mode; ``backbone`` is left as it is.

    Per output channel W' = W gamma / sqrt(var + eps) and b' = (b - mean) gamma / sqrt(var + eps) + beta, in float64.

    Raises:
        BenchError: the backbone is no chain of layers.
    """
    layers = list(backbone.chain().values())
    absorbed = twin(backbone, norm="none")
    targets = (layer for layer in absorbed.chain().values() if isinstance(layer, Layer))
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, Layer):
            target = next(targets)
            weight, bias = _folded(layer, following if isinstance(following, _BatchNorm) else None)
            target.weight.copy_(weight)
            _bias(target).copy_(bias)
    return absorbed


@torch.no_grad()
def kmeans_(
    backbone: Backbone,
    batches: Sequence[Tensor],
    generator: Generator,
    bias: float = 0.1,
    memory_mb: int = 500,
    only: Collection[str] | None = None,
) -> None:
    """Filters from the data, layer by layer: k-means centres of whitened patches (``magic_init -t kmeans``).

    For each convolution and fc, on the activations that reach it: patches are seen through as many random
    Gaussian filters as span them; their leading principal components, one a filter, are whitened, scaled to unit
    length and clustered, one centre a filter. Then every channel gets unit variance and mean ``bias`` ahead of its
    ReLU. A layer that sees fewer patches than it has filters (fc6 and fc7, as a rule) gets Gaussian ones. Of the
    patches, drawn at random, at most ``memory_mb`` of responses are kept. ``only``: the layers, by their names in the
    chain, that get new filters; the others keep theirs.

    Reproducible to the bit for one device and thread count. The clustering runs on one thread, because threads
    that finish in another order sum in another order.

    Source: Kraehenbuehl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural
    Networks", ICLR 2016, and their ``magic_init.py``.

    Raises:
        BenchError: the backbone has BatchNorm or is no chain; no batch; a channel without variance.
    """

    def visit(name: str, layer: Layer, data: list[Tensor]) -> None:
        if only is None or name in only:
            _draw_filters_(layer, data, generator, memory_mb * 2**20 // 4)
            _normalise_(name, layer, data, bias)

    with _eval(backbone):
        _walk(_chain_without_norm(backbone), _preprocessed(backbone, batches), visit)


@torch.no_grad()
def normalise_outputs_(backbone: Backbone, batches: Sequence[Tensor], bias: float = 0.1) -> None:
    """Layer by layer, W /= std and b = bias - mean / std: every channel gets unit variance and mean ``bias``.

    Measured ahead of the ReLU, over all images and positions; earlier biases are forgotten.

    Raises:
        BenchError: the backbone has BatchNorm or is no chain; no batch; a channel without variance.
    """
    with _eval(backbone):
        _walk(
            _chain_without_norm(backbone),
            _preprocessed(backbone, batches),
            lambda name, layer, data: _normalise_(name, layer, data, bias),
        )


@torch.no_grad()
def rescale_(
    backbone: Backbone, batches: Sequence[Tensor], generator: Generator, iterations: int = 10, tolerance: float = 0.01
) -> None:
    """Scale the layers until all learn at one pace (``magic_init -cs``): equal gradient-to-weight ratios.

    A layer's ratio is sqrt(mean(dW^2) / mean(W^2)) under a random gradient N(0, 1) at the output. Weights are
    multiplied by sqrt(ratio / target), biases also by what their input was multiplied by. The target is the
    geometric mean of the ratios times (standard deviation of the output)^(1 / layers), so the net keeps computing
    the same up to a factor, and its output moves towards unit variance. It stops when every ratio is within
    ``tolerance`` of the target, or after ``iterations``.

    Source: as :func:`kmeans_`. Deviations, all against noise: mean(dW^2) is averaged over the batches (the release
    takes the last one); the gradient is drawn once (the release draws at each iteration); ratios are compared
    directly (the release compares the quotient of their logarithms, which depends on the scale of the input).

    Raises:
        BenchError: the backbone has BatchNorm or is no chain; no batch; a layer that no gradient reaches.
    """
    layers, inputs = _chain_without_norm(backbone), _preprocessed(backbone, batches)
    levels: dict[str, float] = {}

    def measure(name: str, layer: Layer, data: list[Tensor]) -> None:
        levels[name] = sum(float(x.abs().mean()) for x in data) / len(data)

    def scale(name: str, layer: Layer, data: list[Tensor]) -> None:
        before, factor = levels[name], math.sqrt(ratios[name] / target)
        measure(name, layer, data)
        layer.weight.mul_(factor)
        _bias(layer).mul_(factor * levels[name] / before)

    with _eval(backbone):
        output = _walk(layers, inputs, measure)
        gradients = [_normal(x.shape, generator).to(x) for x in output]
        for _ in range(iterations):
            ratios = _gradient_ratios(layers, inputs, gradients)
            spread = float(_rows(output).std(0, correction=0).mean())
            target = (math.prod(ratios.values()) * spread) ** (1 / len(ratios))
            if all(abs(ratio / target - 1) < tolerance for ratio in ratios.values()):
                break
            output = _walk(layers, inputs, scale)


def _draw_(backbone: nn.Module, std: Callable[[Layer], float], generator: Generator | None) -> None:
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, Layer):
                module.weight.copy_(_normal(module.weight.shape, generator) * std(module))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, _BatchNorm):
                module.reset_parameters()


def _folded(layer: Layer, norm: _BatchNorm | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``layer`` followed by ``norm`` as one layer, float64."""
    weight, own = layer.weight.double(), layer.bias
    bias = weight.new_zeros(len(weight)) if own is None else own.double()
    if norm is None:
        return weight, bias
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    gain = (var.double() + norm.eps).rsqrt() * (norm.weight.double() if norm.affine else 1.0)
    bias = (bias - mean.double()) * gain + (norm.bias.double() if norm.affine else 0.0)
    return weight * _per_output(gain, weight), bias


def _walk(layers: dict[str, nn.Module], data: list[Tensor], visit: Visit) -> list[Tensor]:
    """Run batches layer by layer, each convolution and fc visited with its inputs before it runs; the outputs."""
    for name, layer in layers.items():
        if isinstance(layer, Layer):
            visit(name, layer, data)
        data = [layer(x) for x in data]
    return data


def _normalise_(name: str, layer: Layer, data: list[Tensor], bias: float) -> None:
    _bias(layer).zero_()
    std, mean = torch.std_mean(_rows([layer(x) for x in data]), 0, correction=0)
    dead = int((~(std > 0)).sum())
    if dead:
        raise BenchError(
            f"{dead} channels of {name} do not vary over the images", mend="give more images, or more varied ones"
        )
    layer.weight.div_(_per_output(std, layer.weight))
    _bias(layer).copy_(bias - mean / std)


def _draw_filters_(layer: Layer, data: list[Tensor], generator: Generator, limit: int) -> None:
    """K-means filters, of any scale; ``limit`` is the number of responses that are kept."""
    outputs, fan_in = len(layer.weight), layer.weight[0].numel()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    stacks = math.ceil(fan_in / outputs)
    _bias(layer).zero_()
    layer.weight.copy_(_normal(layer.weight.shape, generator))
    patches = sum(len(_rows([layer(x)])) for x in data)
    chosen = torch.randperm(patches, generator=generator)[: limit // (outputs * stacks)].sort().values
    if len(chosen) < outputs // groups:
        return
    basis = layer.weight.new_empty(outputs, stacks, fan_in)
    responses = layer.weight.new_empty(len(chosen), outputs, stacks)
    for i in range(stacks):
        layer.weight.copy_(_normal(layer.weight.shape, generator))
        basis[:, i] = layer.weight.flatten(1)
        responses[:, :, i] = _rows([layer(x) for x in data])[chosen.to(layer.weight.device)]
    responses -= responses.mean(0)
    filters = [
        _centres(seen.flatten(1), outputs // groups, generator) @ spanning.flatten(0, 1)
        for seen, spanning in zip(responses.chunk(groups, 1), basis.chunk(groups), strict=True)
    ]
    layer.weight.copy_(torch.cat(filters).view_as(layer.weight))


def _centres(data: Tensor, count: int, generator: Generator) -> Tensor:
    """Centred data (N, D) -> (count, D): directions whose responses have unit variance, from whitened k-means."""
    from sklearn.cluster import MiniBatchKMeans  # a second to import, for this one caller
    from threadpoolctl import threadpool_limits

    values, vectors = torch.linalg.eigh((data.T @ data).double())
    values, vectors = values[-count:], vectors[:, -count:]
    gain = torch.where(values < 1e-6, 0.0, (values.clamp(min=0) + 1e-3).rsqrt())
    whiten = (vectors * gain).float()
    seed = int(torch.randint(2**31, (), generator=generator))
    clusters = MiniBatchKMeans(count, batch_size=10 * count, n_init=3, compute_labels=False, random_state=seed)
    with threadpool_limits(1):
        clusters.fit(F.normalize(data @ whiten).cpu().numpy())
    centres = torch.from_numpy(clusters.cluster_centers_).to(data) @ whiten.T
    return centres / (data @ centres.T).std(0, correction=0)[:, None]


def _gradient_ratios(layers: dict[str, nn.Module], data: list[Tensor], gradients: list[Tensor]) -> dict[str, float]:
    """sqrt(mean(dW^2) / mean(W^2)) of every convolution and fc, dW^2 averaged over the batches."""
    weights = {name: layer.weight for name, layer in layers.items() if isinstance(layer, Layer)}
    squares = dict.fromkeys(weights, 0.0)
    for x, gradient in zip(data, gradients, strict=True):
        with torch.enable_grad():
            for layer in layers.values():
                x = layer(x)
            updates = torch.autograd.grad(x, list(weights.values()), gradient)
        for name, update in zip(weights, updates, strict=True):
            squares[name] += float(update.double().square().mean()) / len(data)
    ratios = {}
    for name, weight in weights.items():
        size = float(weight.double().square().mean())
        if not (0 < squares[name] < math.inf and 0 < size < math.inf):
            raise BenchError(f"no gradient reaches {name}", mend="initialise the weights before rescaling them")
        ratios[name] = math.sqrt(squares[name] / size)
    return ratios


def _chain_without_norm(backbone: Backbone) -> dict[str, nn.Module]:
    layers = backbone.chain()
    if any(isinstance(layer, _BatchNorm) for layer in layers.values()):
        raise BenchError(
            f"{backbone.config['backbone']} has BatchNorm, which undoes what layer-by-layer scaling does",
            mend='build it with norm="none", or absorb its BatchNorm first',
        )
    return layers


def _preprocessed(backbone: Backbone, batches: Sequence[Tensor]) -> list[Tensor]:
    _some(batches)
    return [backbone.preprocess(images.to(_device(backbone))) for images in batches]


def _some(batches: Sequence[Tensor]) -> None:
    if not sum(len(images) for images in batches):
        raise BenchError("there are no images to initialise from")


def _bias(layer: Layer) -> Tensor:
    """Layers that no BatchNorm follows have one."""
    assert layer.bias is not None
    return layer.bias


def _device(backbone: Backbone) -> torch.device:
    return next(backbone.parameters()).device


def _normal(shape: torch.Size, generator: Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator)


def _rows(data: list[Tensor]) -> Tensor:
    """[(B, C, h, w) or (B, C), ...] -> (N, C): all images and positions."""
    return torch.cat([x.movedim(1, -1).flatten(0, -2) for x in data])


def _per_output(values: Tensor, weight: Tensor) -> Tensor:
    """(C,) shaped to multiply or divide a weight (C, ...)."""
    return values.view(-1, *[1] * (weight.dim() - 1))


@contextmanager
def _eval(backbone: Backbone) -> Iterator[None]:
    was_training = backbone.training
    backbone.eval()
    try:
        yield
    finally:
        backbone.train(was_training)
