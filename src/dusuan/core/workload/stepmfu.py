"""Utilisation of one training step on a fully sharded data-parallel job (FSDP, ZeRO).

The time a token takes is a sum of what the hardware sets: matrix products at the sustained rate,
attention by its kernel, element-wise work at memory bandwidth, weights gathered over the links,
the optimizer, launches. One coefficient a term is fitted by `bench/accuracy/fit_mfu.py`.
Utilisation is FLOP a token over time and peak; recomputed work takes time and counts for nothing
(MFU, not HFU).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TERMS = (
    *("products", "narrow", "head", "attention", "elements", "logits", "casts"),
    *("network", "node_link", "optimizer", "launches", "latency"),
)
NODE_DEVICES = 8
RECOMPUTED = 4 / 3
# What a matrix product sustains of the peak: A100 259 of 312 TFLOPS BF16 (83 %), H100 and H200
# 770 to 798 of 989 (80 %), MetaX C550 83 %; what an attention kernel does: FlashAttention-2 about
# 60 % of an A100 and 35 % of an H100 (arXiv 2407.08608). Hopper's figures for what is newer.
SUSTAINED, SUSTAINED_NEWER = 0.83, 0.80
ATTENTION, ATTENTION_NEWER = 0.60, 0.35
NEWER_FROM_TFLOPS = 500.0
NETWORK_BYTES_S = {"older": 25e9, "newer": 50e9}  # 200 and 400 Gbit/s a device
LINK_BYTES_S = 400e9


@dataclass(frozen=True, slots=True)
class Step:
    """One configuration of a step. Peaks in FLOP/s, bandwidths in bytes/s, sizes in tokens."""

    params: float
    hidden: int
    layers: int
    vocab: int
    seq: int
    devices: int
    micro_batch: float
    global_batch: float
    peak: float  # dense at 16 bits
    bandwidth: float
    link: float
    recompute: bool = False
    gathers_weights: bool = True  # FULL_SHARD; False: SHARD_GRAD_OP, weights stay whole
    fp8: bool = False

    @property
    def flop_per_token(self) -> float:
        """As llm-foundry counts: 6N and the whole square of attention."""
        return 6 * self.params + 12 * self.layers * self.hidden * self.seq

    @property
    def peak_counted(self) -> float:
        """What utilisation is a fraction of: the FP8 peak for FP8 steps."""
        return self.peak * (2 if self.fp8 else 1)


@dataclass(frozen=True, slots=True)
class StepModel:
    """One fitted coefficient a term."""

    coefficients: Mapping[str, float]
    provenance: Mapping[str, Any]


def step_model(document: Mapping[str, Any]) -> StepModel:
    """The model from the document that `bench/accuracy/fit_mfu.py` writes."""
    return StepModel(document["coefficients"], document["provenance"])


def terms(step: Step) -> dict[str, float]:
    """Seconds for each token and device, before coefficients, by the names of `TERMS`."""
    return _products(step) | _elements(step) | _communication(step)


def _products(step: Step) -> dict[str, float]:
    newer = step.peak / 1e12 > NEWER_FROM_TFLOPS
    rate = step.peak * (SUSTAINED_NEWER if newer else SUSTAINED)
    again = RECOMPUTED if step.recompute else 1.0
    products = 72 * step.layers * step.hidden**2 * again / (rate * (2 if step.fp8 else 1))
    scores = 6 * step.layers * step.hidden * step.seq * again  # the causal half
    return {
        "products": products,
        "narrow": products * 1_024 / step.hidden,
        "head": 6 * step.vocab * step.hidden / rate,
        "attention": scores / (step.peak * (ATTENTION_NEWER if newer else ATTENTION)),
        "casts": 0.3 * products if step.fp8 else 0.0,
    }


def _elements(step: Step) -> dict[str, float]:
    again = RECOMPUTED if step.recompute else 1.0
    own_tokens = step.global_batch * step.seq / step.devices
    return {
        "elements": 60 * step.layers * step.hidden * again / step.bandwidth,
        "logits": 16 * step.vocab / step.bandwidth,
        "optimizer": 32 * step.params / step.devices / step.bandwidth / own_tokens,
    }


def _communication(step: Step) -> dict[str, float]:
    own_tokens = step.global_batch * step.seq / step.devices
    batches = max(1.0, step.global_batch / (step.devices * step.micro_batch))
    again = RECOMPUTED if step.recompute else 1.0
    moved = step.params * 2 * (3 if step.gathers_weights else 2) * batches / own_tokens
    beyond = step.devices > NODE_DEVICES
    network = NETWORK_BYTES_S["newer" if step.peak / 1e12 > NEWER_FROM_TFLOPS else "older"]
    stages = step.layers * math.log2(step.devices / NODE_DEVICES) if beyond else 0.0
    return {
        "network": moved / network if beyond else 0.0,
        "node_link": moved / step.link if step.devices > 1 else 0.0,
        "launches": step.layers * 60e-6 * again * batches / own_tokens,
        "latency": stages * 50e-6 * batches / own_tokens,
    }


def utilisation(model: StepModel, step: Step) -> float:
    """Model FLOP utilisation of the step, a fraction of the peak."""
    seconds = sum(model.coefficients[name] * value for name, value in terms(step).items())
    return step.flop_per_token / (step.peak_counted * seconds)
