"""An architecture from the header of a safetensors file: the shapes of its tensors.

Format: eight bytes of little-endian length, then that many bytes of JSON, one entry a tensor with
`dtype` and `shape` (huggingface/safetensors README). The weights themselves are not needed. Widths
of queries, keys and feed-forwards follow from the shapes, so FLOP and memory do as well; the number
of heads only where a norm of one head tells it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from dusuan.core.workload.architecture import Architecture, Attention, FeedForward, Mixer, stacked
from dusuan.core.workload.jobspec import Problem

LENGTH_BYTES = 8
HEADER_MAX = 100_000_000  # the format's own limit
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer|block)\.(\d+)\.(.*)")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")
_SCALES = ("scale", "zeros", "g_idx", "absmax", "quant_map", "quant_state", "rotary_emb", "perm")
_EMBED = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "word_embedding")
_HEAD = ("lm_head", "embed_out", "output")
_PER_NUMBER = {"I32": 8, "U8": 2}  # 4-bit weights packed into words or bytes
_ATTENTION_PARTS = ("attn", "attention")
_ROLES: Mapping[str, tuple[str, ...]] = {
    "q": ("q_proj", "wq", "query", "q_b_proj"),
    "k": ("k_proj", "wk", "key"),
    "v": ("v_proj", "wv", "value"),
    "qkv": ("qkv_proj", "query_key_value", "c_attn", "w_pack", "wqkv", "qkv"),
    "o": ("o_proj", "wo", "out_proj", "dense", "c_proj", "out"),
    "gate": ("gate_proj", "w1", "gate_up_proj"),
    "up": ("up_proj", "w3", "c_fc", "fc1", "dense_h_to_4h", "fc_in", "up_proj"),
    "down": ("down_proj", "w2", "c_proj", "fc2", "dense_4h_to_h", "fc_out"),
}
Sizes = Mapping[str, int]


def header_length(first: bytes) -> int | Problem:
    """Bytes of JSON after the first eight, from those eight."""
    if len(first) < LENGTH_BYTES:
        words = (
            f"a safetensors file begins with {LENGTH_BYTES} bytes of length; it has {len(first)}"
        )
        return Problem("truncated_header", words, remedy="download it again")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if not 2 <= length <= HEADER_MAX:
        words = f"the safetensors header says it is {length} bytes long: this is no such file"
        return Problem("wrong_format", words, remedy="give a .safetensors file or a config.json")
    return length


def from_safetensors(data: bytes, name: str = "model") -> Architecture | Problem:
    """The architecture that the header at the start of `data` describes."""
    length = header_length(data)
    if isinstance(length, Problem):
        return length
    text = data[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(text) < length:
        words = f"the safetensors header is cut off: {len(text)} of {length} bytes are there"
        return Problem("truncated_header", words, remedy="download it again, or give config.json")
    try:
        tensors = json.loads(text)
    except (ValueError, RecursionError):
        words = "the safetensors header is not JSON"
        return Problem("wrong_format", words, remedy="download it again, or give config.json")
    if not isinstance(tensors, dict):
        return Problem("wrong_format", "the safetensors header holds no tensors")
    return _architecture(tensors, name)


def _architecture(tensors: Mapping[str, Any], name: str) -> Architecture | Problem:
    sizes, bits = _sizes(tensors)
    if isinstance(sizes, Problem):
        return sizes
    embedding = _end(tensors, _EMBED)
    if embedding is None or not any(_LAYER.search(key) for key in sizes):
        return _incomplete(sizes, name)
    vocab, hidden = embedding
    by_layer = _by_layer(sizes)
    layers = []
    for index in sorted(by_layer):
        layer = _layer(by_layer[index], hidden)
        if isinstance(layer, Problem):
            return layer
        layers.append(layer)
    ends = {key: n for key, n in sizes.items() if not _LAYER.search(key)}
    tied = _end(tensors, _HEAD) is None
    others = sum(ends.values()) - vocab * hidden * (1 if tied else 2)
    if len(by_layer) != max(by_layer) + 1:
        return _incomplete(sizes, name)
    return Architecture(
        name, hidden, vocab, stacked(layers), tied, 0, True, max(others, 0), basis="header",
        weight_bits=bits, notes=("shapes from the tensors of the file; heads of 128 are assumed",),
    )  # fmt: skip


def _incomplete(sizes: Sizes, name: str) -> Problem:
    shard = _SHARD.search(name)
    part = f"it is part {int(shard[1])} of {int(shard[2])} of a model" if shard else "part of one"
    words = f"the header holds {sum(sizes.values()):,} parameters and no whole model: {part}"
    return Problem("incomplete_model", words, remedy="give the config.json beside it")


def _sizes(tensors: Mapping[str, Any]) -> tuple[dict[str, int] | Problem, float | None]:
    """Parameters of each tensor, packed ones counted in full, and bits where they are packed."""
    sizes: dict[str, int] = {}
    bits: float | None = None
    for key, entry in tensors.items():
        if key == "__metadata__" or any(word in key for word in _SCALES):
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
            words = f"the tensor {key[:60]!r} has no shape of whole numbers"
            return Problem("wrong_format", words, remedy="download it again"), None
        packed = _PER_NUMBER.get(entry.get("dtype"), 1) if len(shape) > 1 else 1
        sizes[key] = math.prod(shape) * packed
        if packed > 1:
            bits = 4.5
        elif str(entry.get("dtype", "")).startswith("F8"):
            bits = bits or 8.0
    return sizes, bits


def _end(tensors: Mapping[str, Any], names: tuple[str, ...]) -> tuple[int, int] | None:
    for key, entry in tensors.items():
        last = key.removesuffix(".weight").rsplit(".", 1)[-1]
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if last in names and not _LAYER.search(key) and isinstance(shape, list) and len(shape) == 2:
            return int(shape[0]), int(shape[1])
    return None


def _by_layer(sizes: Sizes) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for key, size in sizes.items():
        match = _LAYER.search(key)
        if match is not None:
            found.setdefault(int(match[1]), {})[match[2]] = size
    return found


def _layer(sizes: Sizes, hidden: int) -> tuple[Mixer | None, FeedForward | None, int] | Problem:
    if any("expert" in key for key in sizes):
        words = "the header has experts, but does not say how many of them a token uses"
        return Problem("missing_value", words, remedy="give the config.json beside it")
    roles = _roles(sizes)
    queries, keys = roles.get("q", 0), roles.get("k", 0)
    if "qkv" in roles:
        queries = roles["o"] or roles["qkv"] // 3
        keys = (roles["qkv"] - queries) // 2
    if not queries or "down" not in roles:
        words = "the header's layers have no attention and feed-forward that are known by name"
        return Problem("unknown_architecture", words, remedy="give the config.json beside it")
    dim = 128 if queries // hidden % 128 == 0 else 64 if queries // hidden % 64 == 0 else 1
    attention = Attention(max(queries // hidden // dim, 1), max(keys // hidden // dim, 1), dim, dim)
    gated = "gate" in roles
    feed = FeedForward(roles["down"] // hidden, gated)
    counted = attention.matmul_weights(hidden) + feed.weights(hidden, active=True)
    return attention, feed, max(sum(sizes.values()) - counted, 0)


def _roles(sizes: Sizes) -> dict[str, int]:
    """Elements of each matrix of a layer by what it does."""
    found: dict[str, int] = {}
    for key, size in sizes.items():
        parts = key.lower().split(".")
        in_attention = any(p in part for part in parts[:-2] for p in _ATTENTION_PARTS)
        leaf = parts[-2] if len(parts) > 1 else parts[-1]
        if parts[-1] in ("bias",) or "norm" in leaf or "ln" in leaf:
            continue
        for role, names in _ROLES.items():
            belongs = in_attention if role in ("q", "k", "v", "qkv", "o") else not in_attention
            if leaf in names and belongs:
                found.setdefault(role, size)
    return found
