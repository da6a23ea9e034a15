"""Utilisation of one training step: fully sharded (FSDP, ZeRO), tensor or pipeline parallel.

The time a token takes is a sum of what the hardware sets: matrix products at the sustained rate,
attention by its kernel, element-wise work at memory bandwidth, weights gathered over the links,
the optimizer, launches. One coefficient a term is fitted by `bench/accuracy/fit_mfu.py`.
Utilisation is FLOP a token over time and peak; recomputed work takes time and counts for nothing
(MFU, not HFU).

Terms are device-seconds for each token, so that splitting a model over devices changes none but
what it sends: tensor parallelism sums over its group and runs narrower products (`SPLIT_TERMS`),
pipelines idle for their bubble, plain data parallelism moves its gradients once a step.
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
SPLIT_TERMS = ("split", "sums")  # of tensor parallelism; zero without it
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
    """One configuration of a step. Peaks in FLOP/s, bandwidths in bytes/s, sizes in tokens.

    `params`, `layers` and `devices` are those of the whole job; `interleave` counts the chunks of
    layers that a pipeline stage holds.
    """

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
    sharded: bool = True  # weights or gradients move with every micro-batch; False: once a step
    tensor: int = 1
    pipeline: int = 1
    interleave: int = 1

    @property
    def own_tokens(self) -> float:
        """Tokens of a step for each device."""
        return self.global_batch * self.seq / self.devices

    @property
    def micro_batches(self) -> float:
        """How many micro-batches each replica takes a step."""
        replicas = self.devices / (self.tensor * self.pipeline)
        return max(1.0, self.global_batch / (replicas * self.micro_batch))

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
    """Seconds for each token and device, before coefficients, by the names of the coefficients."""
    found = _products(step) | _elements(step) | _communication(step)
    idle = (step.pipeline - 1) / (step.micro_batches * step.interleave)
    return {name: seconds * (1 + idle) for name, seconds in found.items()}


def _products(step: Step) -> dict[str, float]:
    newer = step.peak / 1e12 > NEWER_FROM_TFLOPS
    rate = step.peak * (SUSTAINED_NEWER if newer else SUSTAINED)
    again = RECOMPUTED if step.recompute else 1.0
    products = 72 * step.layers * step.hidden**2 * again / (rate * (2 if step.fp8 else 1))
    scores = 6 * step.layers * step.hidden * step.seq * again  # the causal half
    return {
        "products": products,
        "narrow": products * 1_024 / step.hidden,
        "split": products if step.tensor > 1 else 0.0,
        "head": 6 * step.vocab * step.hidden / rate,
        "attention": scores / (step.peak * (ATTENTION_NEWER if newer else ATTENTION)),
        "casts": 0.3 * products if step.fp8 else 0.0,
    }


def _elements(step: Step) -> dict[str, float]:
    again = RECOMPUTED if step.recompute else 1.0
    return {
        "elements": 60 * step.layers * step.hidden * again / step.bandwidth,
        "logits": 16 * step.vocab / step.bandwidth,
        "optimizer": 32 * step.params / step.devices / step.bandwidth / step.own_tokens,
    }


def _communication(step: Step) -> dict[str, float]:
    batches, layers = step.micro_batches, step.layers / step.pipeline
    again = RECOMPUTED if step.recompute else 1.0
    moved = _weights_moved(step)
    beyond = step.devices > NODE_DEVICES
    network = NETWORK_BYTES_S["newer" if step.peak / 1e12 > NEWER_FROM_TFLOPS else "older"]
    hops = math.log2(step.devices / NODE_DEVICES) if beyond and step.sharded else 0.0
    # A ring moves each sum twice, less its own part; two a layer and pass, 2 bytes each.
    sums = 4 * step.layers * (6 if step.recompute else 4) * step.hidden * (step.tensor - 1)
    return {
        "network": moved / network if beyond else 0.0,
        "node_link": moved / step.link if step.devices > 1 else 0.0,
        "sums": sums / step.link,
        "launches": layers * 60e-6 * again * batches / step.own_tokens,
        "latency": layers * hops * 50e-6 * batches / step.own_tokens,
    }


def _weights_moved(step: Step) -> float:
    """Bytes of weights and gradients for each token and device."""
    split = step.tensor * step.pipeline
    if step.devices == split:
        return 0.0  # one replica: there is nobody to exchange with
    times = step.micro_batches if step.sharded else 1
    passes = 3 if step.gathers_weights else 2
    return step.params / split * 2 * passes * times / step.own_tokens


def utilisation(model: StepModel, step: Step) -> float:
    """Model FLOP utilisation of the step, a fraction of the peak."""
    found = terms(step)
    seconds = sum(value * found[name] for name, value in model.coefficients.items())
    return step.flop_per_token / (step.peak_counted * seconds)
