"""An architecture from the header of a GGUF file: its metadata and the list of its tensors.

Format: ggml/docs/gguf.md. Magic, version, counts of tensors and of metadata (all little-endian),
the metadata as typed key-value pairs, then name, shape and type of every tensor. The weights
themselves are not needed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.hfconfig import from_config
from dusuan.core.workload.jobspec import Problem

MAGIC = b"GGUF"
COUNT_MAX = 1_000_000
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"}
_NUMBERS |= {10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# Bits a weight takes by tensor type: bytes of a block over its weights (ggml-common.h).
_TENSOR_BITS = {0: 32.0, 1: 16.0, 2: 4.5, 3: 5.0, 6: 5.5, 7: 6.0, 8: 8.5, 9: 9.0, 10: 2.625}
_TENSOR_BITS |= {11: 3.4375, 12: 4.5, 13: 5.5, 14: 6.5625, 15: 8.5, 16: 2.0625, 17: 2.3125}
_TENSOR_BITS |= {18: 3.0625, 19: 1.5625, 20: 4.5, 21: 3.4375, 22: 2.5, 23: 4.25, 30: 16.0}
_TENSOR_BITS |= {39: 4.25}
_TYPES = {
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next",
    "deepseek2": "deepseek_v3",
    "gpt-oss": "gpt_oss",
    "glm4moe": "glm4_moe",
    "gptneox": "gpt_neox",
    "starcoder": "gpt_bigcode",
    "command-r": "cohere",
    "gemma3": "gemma3_text",
    "phi2": "phi",
    "minimax-m2": "minimax_m2",
}
# Keys of the format (after the architecture's name) by those of config.json.
_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "kv_lora_rank": "attention.kv_lora_rank",
    "q_lora_rank": "attention.q_lora_rank",
    "sliding_window": "attention.sliding_window",
}


class _Cut(Exception):
    """The file ends before its header does, or is no such file."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise _Cut
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def count(self) -> int:
        found = int(self.number("<Q"))
        if found > COUNT_MAX:
            raise _Cut
        return found

    def string(self) -> str:
        return self.take(int(self.number("<Q"))).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A value; of an array its first few items and its length, which is all that matters."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            if kind not in _NUMBERS:
                raise _Cut
            return self.number(_NUMBERS[kind])
        inner, length = int(self.number("<I")), int(self.number("<Q"))
        if length > 10 * COUNT_MAX:
            raise _Cut
        return [self.value(inner) for _ in range(length)]


def from_gguf(data: bytes, name: str = "model") -> Architecture | Problem:
    """The architecture that the header at the start of `data` describes."""
    if data[: len(MAGIC)] != MAGIC:
        words = "the file does not begin with GGUF: it is no such file"
        return Problem("wrong_format", words, remedy="give a .gguf file or a config.json")
    try:
        metadata, tensors = _header(_Reader(data[len(MAGIC) :]))
    except (_Cut, struct.error):
        words = f"the GGUF header is cut off or damaged within the first {len(data)} bytes"
        return Problem("truncated_header", words, remedy="download it again")
    return _architecture(metadata, tensors, name)


Tensors = dict[str, tuple[tuple[int, ...], int]]


def _header(reader: _Reader) -> tuple[dict[str, Any], Tensors]:
    reader.number("<I")  # the version: 2 and 3 differ in nothing that is read here
    tensor_count, metadata_count = reader.count(), reader.count()
    metadata: dict[str, Any] = {}
    for _ in range(metadata_count):
        key = reader.string()
        metadata[key] = reader.value(int(reader.number("<I")))
    tensors: Tensors = {}
    for _ in range(tensor_count):
        key, dimensions = reader.string(), int(reader.number("<I"))
        if dimensions > 8:
            raise _Cut
        shape = tuple(int(reader.number("<Q")) for _ in range(dimensions))
        tensors[key] = (shape, int(reader.number("<I")))
        reader.number("<Q")  # where its weights begin
    return metadata, tensors


def _architecture(
    metadata: Mapping[str, Any], tensors: Tensors, name: str
) -> Architecture | Problem:
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str):
        words = "the GGUF metadata has no general.architecture"
        return Problem("missing_value", words, remedy="give the config.json of the model")
    config = _config(metadata, tensors, kind)
    title = metadata.get("general.name")
    built = from_config(config, title if isinstance(title, str) and title else name, "header")
    return built if isinstance(built, Problem) else _released(built, tensors)


def _config(metadata: Mapping[str, Any], tensors: Tensors, kind: str) -> dict[str, Any]:
    config: dict[str, Any] = {"model_type": _TYPES.get(kind, kind)}
    for key, theirs in _KEYS.items():
        value = metadata.get(f"{kind}.{theirs}")
        value = max(value) if isinstance(value, list) and value else value
        if value:
            config[key] = value
    config |= _head_dims(metadata, kind, "kv_lora_rank" in config)
    embedding = tensors.get("token_embd.weight")
    if "vocab_size" not in config and embedding is not None and len(embedding[0]) == 2:
        config["vocab_size"] = embedding[0][1]
    words = metadata.get("tokenizer.ggml.tokens")
    if "vocab_size" not in config and isinstance(words, list):
        config["vocab_size"] = len(words)
    if tensors:
        config["tie_word_embeddings"] = "output.weight" not in tensors
    return config


def _head_dims(metadata: Mapping[str, Any], kind: str, latent: bool) -> dict[str, int]:
    key, value = (metadata.get(f"{kind}.attention.{n}_length") for n in ("key", "value"))
    if not isinstance(key, int) or not isinstance(value, int):
        return {}
    if not latent:
        return {"head_dim": key, "v_head_dim": value}
    key = metadata.get(f"{kind}.attention.key_length_mla", key)
    value = metadata.get(f"{kind}.attention.value_length_mla", value)
    rope = metadata.get(f"{kind}.rope.dimension_count", 64)
    return {"qk_nope_head_dim": key - rope, "qk_rope_head_dim": rope, "v_head_dim": value}


def _released(built: Architecture, tensors: Tensors) -> Architecture:
    """With the bits of its weights, and a word where the tensors do not add up to the shape."""
    sizes = {key: math.prod(shape) for key, (shape, _) in tensors.items()}
    total = sum(sizes.values())
    if not total:
        return built
    bits = sum(sizes[key] * _TENSOR_BITS.get(kind, 16.0) for key, (_, kind) in tensors.items())
    notes = built.notes
    if abs(total / built.params_total - 1) > 0.02:
        notes = (*notes, f"its tensors hold {total:,} parameters, its shape {built.params_total:,}")
    width = bits / total
    return replace(built, weight_bits=round(width, 3) if width < 15.5 else None, notes=notes)
