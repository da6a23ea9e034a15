"""What serving takes: time per output token (TPOT) and to the first token (TTFT).

A step of decoding is a sum of times that the hardware sets: weights and keys read from memory,
products at the peak of their precision, messages between devices, launches for each layer, and
the share of other requests' prefill that runs in between. Each time is computed from the model and
the device; one coefficient a term, common to all models and devices, says how far practice is from
it, with small corrections by engine. `bench/accuracy/fit_serving.py` fits them on measured rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dusuan.core.workload.architecture import Architecture, Latent

KERNEL_S = 20e-6  # launches of a layer: the unit of the coefficients `layers`, `routing`, `index`
MESSAGE_S = 5e-6  # one stage of an all-reduce: the unit of `latency`
TTFT_UNITS = {"constant": 1e-2, "depth": 1e-4, "queue": 1e-3}
DECODE_TERMS = (
    *("weights", "experts", "cache", "products", "scores", "latency", "messages", "dispatch"),
    *("layers", "routing", "index", "dequantise", "host", "requests"),
    *("prefill", "prefill_scores", "prefill_host"),
)
PREFILL_TERMS = ("prefill", "prefill_scores", "prefill_host")
BY_ENGINE = ("layers", "cache", "prefill", "experts")  # terms in which engines differ
TTFT_TERMS = (
    *("constant", "depth", "own", "own_scores", "root", "wave", "step", "crowd", "queue"),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model matters for serving, summed over its layers."""

    layers: int
    hidden: int
    head_weights: int
    mixer_weights: int
    dense_weights: int
    shared_weights: int
    expert_layers: int
    expert_weights: int  # of one expert
    experts: int
    active: int
    latent: bool
    selected: bool
    keys: tuple[tuple[int, int, int, int, int | None], ...]  # count, kv, scores, decoding, limit

    @property
    def active_weights(self) -> int:
        """Weights that one token is multiplied with, the head left out."""
        routed = self.expert_layers * self.active * self.expert_weights
        return self.mixer_weights + self.dense_weights + self.shared_weights + routed


@dataclass(frozen=True, slots=True)
class Machine:
    """One device of the deployment: bandwidths in bytes/s, peaks in FLOP/s by what is computed.

    `peak` is that of decoding's products, `peak_prefill` what long products reach at best (FP4 is
    taken at the geometric mean with FP8: activations are not FP4 throughout), `peak_scores` BF16.
    """

    bandwidth: float
    link: float
    peak: float
    peak_prefill: float
    peak_scores: float


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on devices under load: `tensor` x `data` devices serve `requests` at a time.

    Bytes are those of one weight of the dense part and of the experts. `interleaved` is false
    where other devices do the prefill (disaggregated serving).
    """

    shape: Shape
    machine: Machine
    engine: str
    tensor: int
    data: int
    requests: float
    prompt_tokens: float
    output_tokens: float
    dense_bytes: float
    expert_bytes: float
    unpacked: bool = False  # 4-bit weights that are unpacked to 16 bits before use
    interleaved: bool = True
    prefill_devices: int | None = None

    @property
    def devices(self) -> int:
        """Devices that decode."""
        return self.tensor * self.data


@dataclass(frozen=True, slots=True)
class ServingModel:
    """Fitted coefficients: one a term, and logarithms of corrections by engine."""

    decode: Mapping[str, float]
    decode_engines: Mapping[str, Mapping[str, float]]  # engine -> term or "all" -> log
    ttft: Mapping[str, float]
    ttft_engines: Mapping[str, float]
    provenance: Mapping[str, Any]


def serving_model(document: Mapping[str, Any]) -> ServingModel:
    """The model from the document that `bench/accuracy/fit_serving.py` writes."""
    return ServingModel(
        document["decode"],
        document["decode_engines"],
        document["ttft"],
        document["ttft_engines"],
        document["provenance"],
    )


@lru_cache(maxsize=1_000)
def shape_of(model: Architecture) -> Shape:
    """The sums over the layers of `model`."""
    mixer = dense = shared = expert_layers = expert = 0
    keys = []
    for block in model.blocks:
        if block.mixer is not None:
            mixer += block.count * block.mixer.matmul_weights(model.hidden)
            keys.append(_keys(block.count, block.mixer))
        feed = block.feed
        if feed is None:
            continue
        if not feed.experts:
            dense += block.count * feed.weights(model.hidden, active=True)
            continue
        matrices = 3 if feed.gated else 2
        shared += block.count * matrices * model.hidden * feed.shared_width
        expert_layers += block.count
        expert = matrices * (feed.latent or model.hidden) * feed.width
    latents = [m for m in model.attentions if isinstance(m, Latent)]
    return Shape(
        layers=model.layers,
        hidden=model.hidden,
        head_weights=model.vocab * model.hidden,
        mixer_weights=mixer,
        dense_weights=dense,
        shared_weights=shared,
        expert_layers=expert_layers,
        expert_weights=expert,
        experts=model.experts,
        active=model.active_experts,
        latent=bool(latents),
        selected=any(m.selected is not None for m in latents),
        keys=tuple(keys),
    )


def _keys(count: int, mixer: Any) -> tuple[int, int, int, int, int | None]:
    limit = mixer.selected if isinstance(mixer, Latent) else mixer.window
    kept = mixer.kv_values - (mixer.index_dim if isinstance(mixer, Latent) else 0)
    return (count, kept, mixer.score_width, mixer.decode_score_width, limit)


def prefill_s(use: Deployment) -> tuple[float, float]:
    """Seconds at the peak for one prompt on the devices: products, and scores of attention."""
    shape, tokens = use.shape, use.prompt_tokens
    devices = use.prefill_devices or use.devices
    products = 2 * shape.active_weights * tokens / (devices * use.machine.peak_prefill)
    scores = sum(
        2 * count * width * tokens * min(tokens / 2, limit or tokens)
        for count, _, width, _, limit in shape.keys
    )
    return products, scores / (devices * use.machine.peak_scores)


def decode_terms(use: Deployment) -> dict[str, float]:
    """The times of one step in s, before coefficients, by the names of `DECODE_TERMS`."""
    return _memory(use) | _compute(use) | _messages(use) | _launches(use) | _others(use)


def _memory(use: Deployment) -> dict[str, float]:
    shape, bandwidth = use.shape, use.machine.bandwidth
    dense_feed = use.expert_bytes if shape.experts else use.dense_bytes
    read = shape.mixer_weights * use.dense_bytes + shape.dense_weights * dense_feed
    read += shape.shared_weights * use.expert_bytes + shape.head_weights * 2
    experts = _touched(use) * shape.expert_layers * shape.expert_weights * use.expert_bytes
    # A latent cache has one head: tensor parallelism copies it, it does not divide it.
    split = 1 if shape.latent else min(use.tensor, 8)
    cache = sum(n * kv * _kept(use, limit) for n, kv, _, _, limit in shape.keys)
    experts_s = experts / use.devices / bandwidth
    return {
        "weights": read / use.tensor / bandwidth,
        "experts": experts_s,
        "cache": use.requests / use.data * cache / split / bandwidth,
        "dequantise": experts_s if use.unpacked else 0.0,
    }


def _touched(use: Deployment) -> float:
    """Experts of a layer that at least one of the tokens of a step is routed to, on average."""
    experts = use.shape.experts
    if not experts:
        return 0.0
    missed = math.pow(1 - min(use.shape.active / experts, 1.0), use.requests)
    return experts * (1 - missed)


def _kept(use: Deployment, limit: int | None) -> float:
    tokens = use.prompt_tokens + use.output_tokens / 2
    return tokens if limit is None else min(tokens, limit)


def _compute(use: Deployment) -> dict[str, float]:
    machine, requests = use.machine, use.requests
    scores = sum(2 * n * wide * _kept(use, limit) for n, _, _, wide, limit in use.shape.keys)
    products = 2 * use.shape.active_weights * requests
    return {
        "products": products / (use.devices * machine.peak),
        "scores": scores * requests / (use.devices * machine.peak_scores),
    }


def _messages(use: Deployment) -> dict[str, float]:
    if use.devices < 2:
        return {"latency": 0.0, "messages": 0.0, "dispatch": 0.0}
    shape, link, each = use.shape, use.machine.link, use.requests / use.data
    stages = 2 * shape.layers * math.log2(max(use.tensor, 2))
    reduced = 4 * shape.layers * each * shape.hidden * 2 * (1 - 1 / use.tensor)
    sent = 0.0
    if use.data > 1:
        routed = use.requests / use.devices * shape.active * shape.hidden * 3
        sent = shape.expert_layers * routed * (1 - 1 / use.devices)
    return {"latency": stages * MESSAGE_S, "messages": reduced / link, "dispatch": sent / link}


def _launches(use: Deployment) -> dict[str, float]:
    shape = use.shape
    return {
        "layers": shape.layers * KERNEL_S,
        "routing": shape.expert_layers * KERNEL_S,
        "index": shape.layers * KERNEL_S if shape.selected else 0.0,
        "host": 1e-3,
        "requests": use.requests / use.data * 1e-5,
    }


def _others(use: Deployment) -> dict[str, float]:
    """Prefill of the other requests: each is replaced once in `output_tokens` steps."""
    if not use.interleaved:
        return dict.fromkeys(PREFILL_TERMS, 0.0)
    products, scores = prefill_s(use)
    each_step = use.requests / max(use.output_tokens, 1.0)
    return {
        "prefill": products * each_step,
        "prefill_scores": scores * each_step,
        "prefill_host": 2e-3 * each_step,
    }


def tpot_s(model: ServingModel, use: Deployment) -> float:
    """Seconds between two output tokens of one request."""
    by_engine = model.decode_engines.get(use.engine, {})
    total = 0.0
    for name, seconds in decode_terms(use).items():
        total += seconds * model.decode[name] * math.exp(by_engine.get(name, 0.0))
    return total * math.exp(by_engine.get("all", 0.0))


def ttft_terms(model: ServingModel, use: Deployment) -> dict[str, float]:
    """The parts of the wait for the first token in s, by the names of `TTFT_TERMS`."""
    products, scores = prefill_s(use)
    step = tpot_s(model, use)
    own, own_scores = products * model.decode["prefill"], scores * model.decode["prefill_scores"]
    prefill, requests = own + own_scores, use.requests
    load = min(prefill * requests / max(use.output_tokens * step, 1e-9), 1.0)
    return {
        "constant": TTFT_UNITS["constant"],
        "depth": use.shape.layers * TTFT_UNITS["depth"],
        "own": own,
        "own_scores": own_scores,
        "root": prefill * math.sqrt(requests),
        "wave": prefill * requests,
        "step": step,
        "crowd": prefill * requests * load,
        "queue": requests * TTFT_UNITS["queue"],
    }


def ttft_s(model: ServingModel, use: Deployment) -> float:
    """Seconds from a request to its first token."""
    total = sum(seconds * model.ttft[name] for name, seconds in ttft_terms(model, use).items())
    return total * math.exp(model.ttft_engines.get(use.engine, 0.0))
