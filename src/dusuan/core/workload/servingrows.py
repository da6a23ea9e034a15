"""Rows of a table of serving configurations, read into deployments.

The columns are those of AIConfigurator's measured sample. What a row leaves blank is read as the
defaults below; what it encodes twice (data-parallel ranks counted into the tensor-parallel size
too) is taken once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dusuan.core.catalog.accelerators import Accelerator, Match
from dusuan.core.workload import cells, serving
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.cells import Row, word
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.serving import Deployment, Machine, Shape

FindModel = Callable[[str], Architecture | Problem]
FindDevice = Callable[[str], Match | Problem]
NODE_DEVICES = 8  # devices that one fast link joins, except in racks:
RACK_DEVICES = 72
LINK_GBS = 400.0  # where the link is not published
FP4_BYTES = 0.5625  # with a scale for each 16 weights
INT4_BYTES = 0.53  # with a scale for each 128 weights, rounded up
REQUESTS_PER_DEVICE = 1.0  # where the load is blank: what disaggregated rows show most often
PROMPT_TOKENS, OUTPUT_TOKENS = 1_024.0, 1_024.0
DISAGGREGATED = "disagg"


@dataclass(frozen=True, slots=True)
class Precision:
    """How weights are kept and computed with: bytes of one, which peak, whether unpacked."""

    bytes_each: float
    peak: str  # "fp4", "fp8", "bf16"
    unpacked: bool = False


@dataclass(frozen=True, slots=True)
class Ranks:
    """Tensor-parallel size of attention, its data-parallel ranks, and requests of one rank."""

    tensor: int
    data: int
    requests: float | None
    prefill: int | None = None


def deployment(
    row: Row, find_device: FindDevice, find_model: FindModel
) -> tuple[Deployment, list[str]] | Problem:
    """The deployment that a row describes and what was assumed for it, or what is missing."""
    model = find_model(word(row, "model_path"))
    if isinstance(model, Problem):
        return model
    match = find_device(word(row, "system"))
    if isinstance(match, Problem):
        return match
    try:
        return _deployment(row, model, match.device)
    except _Unusable as unusable:
        return unusable.problem


def _deployment(row: Row, model: Architecture, device: Accelerator) -> tuple[Deployment, list[str]]:
    shape, notes = serving.shape_of(model), list(model.notes)
    dense, experts = _precisions(row, model, shape)
    ranks = _ranks(row, shape, device)
    requests = ranks.requests
    if requests is None:
        requests = REQUESTS_PER_DEVICE * ranks.tensor
        notes.append(f"no load is given: {requests * ranks.data:g} requests at a time are assumed")
    use = Deployment(
        shape=shape,
        machine=_machine(device, experts if shape.experts else dense),
        engine=word(row, "backend").lower(),
        tensor=ranks.tensor,
        data=ranks.data,
        requests=requests * ranks.data,
        prompt_tokens=_number(row, "isl", PROMPT_TOKENS),
        output_tokens=max(_number(row, "osl", OUTPUT_TOKENS), 1.0),
        dense_bytes=dense.bytes_each,
        expert_bytes=experts.bytes_each,
        unpacked=experts.unpacked and bool(shape.experts),
        interleaved=not _disaggregated(row),
        prefill_devices=ranks.prefill,
    )
    return use, notes


def _disaggregated(row: Row) -> bool:
    return word(row, "mode").lower() == DISAGGREGATED


def _ranks(row: Row, shape: Shape, device: Accelerator) -> Ranks:
    prefix = "decode_" if _disaggregated(row) else ""
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    tensor, data, moe_tensor, moe_expert = (_count(row, prefix + name) for name in names)
    requests = _number(row, f"{prefix}batch_size", 0.0) or None
    if moe_tensor == moe_expert > 1 and tensor * data == moe_tensor * moe_expert:
        if tensor > 1:  # devices multiplied with themselves
            tensor = moe_expert
        elif requests is not None:
            requests, data = requests * data / moe_expert, moe_expert
    if shape.experts and tensor > NODE_DEVICES and "NVL" in device.form.upper():
        # A rack-wide "tensor" size: attention runs data-parallel there, the load is the total.
        requests = None if requests is None else requests / tensor
        tensor, data = 1, tensor
    if data > 1 and tensor == data:  # ranks counted twice
        tensor = 1
    prefill = _count(row, "prefill_tp_size") * _count(row, "prefill_attention_dp_size")
    return Ranks(tensor, data, requests, prefill if prefix else None)


def _precisions(row: Row, model: Architecture, shape: Shape) -> tuple[Precision, Precision]:
    native = "fp8" if (model.weight_bits or 16) == 8 or shape.latent else "bf16"
    overall = word(row, "precision") or native
    dense = _precision(word(row, "gemm_quant_mode") or overall)
    experts = _precision(word(row, "moe_quant_mode") or overall)
    if shape.latent and dense.bytes_each < 1:  # latent attention stays in eight bits or more
        dense = Precision(1.0, dense.peak)
    return dense, experts


def _precision(name: str) -> Precision:
    name = name.lower()
    if "int4" in name or "w4a16" in name or "awq" in name or "gptq" in name:
        return Precision(INT4_BYTES, "bf16", unpacked=True)
    if "w4a8" in name or "w4afp8" in name:
        return Precision(INT4_BYTES, "fp8", unpacked=True)
    if "fp4" in name:
        return Precision(FP4_BYTES, "fp4")
    if any(word in name for word in ("fp8", "int8", "w8", "sq")):
        return Precision(1.0, "fp8")
    return Precision(2.0, "bf16")


def _machine(device: Accelerator, precision: Precision) -> Machine:
    bandwidth = device.bandwidth_gbs
    half = device.tflops("bf16") or device.tflops("fp16")
    if bandwidth is None or half is None:
        what = "memory bandwidth" if bandwidth is None else "dense BF16 or FP16 TFLOPS"
        words = f"{device.name}: {what} not published"
        raise _Unusable(Problem("unpublished", words, remedy="calibrate it"))
    eight = device.tflops("fp8") or half
    four = device.tflops("fp4") or eight
    peak = {"bf16": half, "fp8": eight, "fp4": four}[precision.peak]
    prefill = math.sqrt(eight * four) if precision.peak == "fp4" else peak
    link = (device.link_gbs or LINK_GBS) * 1e9
    return Machine(bandwidth * 1e9, link, peak * 1e12, prefill * 1e12, half * 1e12)


def _number(row: Row, name: str, default: float) -> float:
    value = cells.number(row, name, default)
    if isinstance(value, Problem):
        raise _Unusable(value)
    return value


def _count(row: Row, name: str) -> int:
    """A size; blank and 0 mean that there is one of it."""
    return max(round(_number(row, name, 1.0)), 1)


class _Unusable(Exception):
    """A row that cannot be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem
