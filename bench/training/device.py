"""Where training runs: one Lightning Fabric, made the same way on a laptop, in a job, and under torchrun."""

from __future__ import annotations

import hashlib
import logging
import os
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


def fabric(precision: str | None = None) -> Fabric:
    """The processes and the device of this run, launched.

    One process on the GPU if there is one, else on the CPU; under torchrun, one process a local rank. A batch
    system's variables alone start no further processes. ``precision`` is ``bf16`` (mixed) or ``fp32``; None: bf16
    where a GPU has it, fp32 on a CPU, of which few compute bf16 faster. Kernels are deterministic.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision of every run
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    gpu = torch.cuda.is_available()
    if gpu:
        torch.set_float32_matmul_precision("high")
    precision = precision or ("bf16" if gpu and torch.cuda.is_bf16_supported() else "fp32")
    made = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        plugins=None if "LOCAL_WORLD_SIZE" in os.environ else [LightningEnvironment()],
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    made.launch()
    return made


def derive(seed: int, *parts: Any) -> int:
    """A seed in [0, 2^63) that is a pure function of its arguments."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def average_gradients(fabric: Fabric, parameters: list[nn.Parameter]) -> None:
    """Mean gradients over all processes, in one flat reduction.

    The loop reduces once an optimiser step rather than through hooks on ``forward``: a task may hold several
    optimisers, yield its losses one by one, and accumulate micro-batches.
    """
    if fabric.world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = _flatten_dense_tensors(gradients)
    mean = cast("Tensor", fabric.all_reduce(flat, reduce_op="mean"))
    for gradient, reduced in zip(gradients, _unflatten_dense_tensors(mean, gradients), strict=True):
        gradient.copy_(reduced)


def total(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    return value if fabric.world_size == 1 else cast("Tensor", fabric.all_reduce(value, reduce_op="sum"))


def rows_of_all(rows: Tensor) -> Tensor:
    """(world * B, ...): the rows (B, ...) of every process, in the order of ranks; each has equally many.

    For tasks, which hold no Fabric: what they assign within a batch is assigned over all processes.
    """
    if not _several():
        return rows
    found = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, rows.contiguous())
    return torch.cat(found)


def as_first(value: Tensor) -> Tensor:
    """The first process's value, in all of them: for choices that the last bit of a sum could tip."""
    if _several():
        value = value.contiguous()
        torch.distributed.broadcast(value, src=0)
    return value


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def describe(fabric: Fabric) -> dict[str, Any]:
    """Hardware and precision, for provenance."""
    gpu = fabric.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(fabric.device) if gpu else "cpu",
        "precision": str(fabric._precision.precision),
        "world_size": fabric.world_size,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
