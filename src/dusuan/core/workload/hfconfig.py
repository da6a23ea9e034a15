"""An architecture from a Hugging Face `config.json`, whatever its makers called the keys.

Returns an `Architecture`, or a `Problem` that names what is missing or contradicts itself. Source
of the keys: `transformers/models/*/configuration_*.py` 5.24 and the remote code of releases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dusuan.core.workload import hflayers
from dusuan.core.workload.architecture import Architecture, stacked
from dusuan.core.workload.hffamilies import FAMILIES, Family
from dusuan.core.workload.hfvalues import Bad, Values
from dusuan.core.workload.jobspec import Problem

NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "text_cfg")
PARAMS_MAX = 10**14  # the largest model known has about 1e13
_GATES = ("silu", "swish", "swiglu", "geglu", "reglu", "gated")
WEIGHT_BITS = {
    **dict.fromkeys(("fp8", "float8", "compressed-tensors-fp8", "w8a8", "int8"), 8.0),
    **dict.fromkeys(("gptq", "awq", "nvfp4", "mxfp4", "fp4", "int4", "w4a16", "bitsandbytes"), 4.5),
}


def from_config(
    document: Mapping[str, Any], name: str = "", basis: str = "config", source: str = ""
) -> Architecture | Problem:
    """The architecture that `document`, the content of a config.json, describes."""
    try:
        built = _build(document, name or str(document.get("_name_or_path") or "model"))
    except Bad as bad:
        return bad.problem
    return replace(built, basis=basis, source=source)


def _build(document: Mapping[str, Any], name: str) -> Architecture:
    values, notes = _text_part(document)
    family, note = _family(values)
    notes += [note] if note else []
    shape = _shape(values, family)
    layers = hflayers.layers(values, family, shape)
    built = Architecture(
        name=name,
        hidden=shape.hidden,
        vocab=shape.vocab,
        blocks=stacked(layers),
        tied=values.flag("tie_word_embeddings", family.tied),
        positions=_positions(values, family),
        causal=family.causal and not values.flag("is_encoder", False),
        other_weights=_others(values, family, shape),
        context=values.maybe_count("context"),
        weight_bits=weight_bits(document),
        notes=tuple(notes),
    )
    return _sensible(built)


def _text_part(document: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """The part that describes the language model, flat, and what is left out of the count."""
    inner = next((document[k] for k in NESTED if isinstance(document.get(k), Mapping)), None)
    if inner is None:
        return Values(document), []
    if isinstance(inner.get("text_config"), Mapping):  # Qwen-Omni's thinker
        inner = inner["text_config"]
    outer = {k: document[k] for k in ("model_type", "tie_word_embeddings") if k in document}
    tower = "vision_config" in document or "audio_config" in document
    notes = ["only the language model is counted, not its vision or audio towers"] if tower else []
    return Values({**outer, **inner}), notes


def _family(values: Values) -> tuple[Family, str]:
    kind = values.word("model_type")
    known = FAMILIES.get(kind)
    if known is not None:
        return known, ""
    act = values.word("hidden_act") or values.word("activation_function")
    gated = any(gate in act for gate in _GATES) or not act
    what = f"model type {kind!r} is not known" if kind else "no model type is given"
    shape = "gated" if gated else "plain"
    return Family(gated=gated), f"{what}: read as a pre-norm decoder with a {shape} feed-forward"


def _shape(values: Values, family: Family) -> hflayers.Shape:
    hidden, count = values.count("hidden"), hflayers.alternating_count(values)
    count = values.count("layers", count)
    vocab = values.count("vocab")
    heads = values.maybe_count("heads")
    if heads is None and not values.has("hybrid_override_pattern"):
        raise Bad.missing("attention heads", "heads")
    width = values.maybe_count("feed")
    if width is None and family.feed_default is not None:
        width = family.feed_default * hidden
    return hflayers.Shape(hidden, count, vocab, heads or 1, width)


def _positions(values: Values, family: Family) -> int:
    if values.flag("learned_pos_emb", False) and not values.flag("alibi", False):  # MPT
        return values.count("context")
    if family.positions is None:
        return 0
    key, beyond = family.positions
    return values.count(key) + beyond


def _others(values: Values, family: Family, shape: hflayers.Shape) -> int:
    """The final norm, a norm of the embeddings, a bias of the head, a projection around."""
    vectors = 2 if family.norm_bias else 1
    norms = (1 if family.norms else 0) + (1 if family.embedding_norm else 0)
    if not family.causal:  # BERT has a norm after the embeddings and none at the end
        norms -= 1
    head = shape.vocab if family.head_bias else 0
    narrow = values.maybe_count("word_embed_proj_dim")
    saved = 0
    if narrow is not None and narrow != shape.hidden:  # OPT-350m embeds in half of the width
        saved = 2 * narrow * shape.hidden - shape.vocab * (shape.hidden - narrow)
    return norms * vectors * shape.hidden + head + saved


def _sensible(built: Architecture) -> Architecture:
    if built.params_total > PARAMS_MAX:
        raise Bad(too_many(built.params_total))
    return built


def too_many(params: float) -> Problem:
    """The refusal of a size that no model has."""
    words = f"{params:.3g} parameters is more than any model has (at most 1e14 are counted)"
    return Problem("out_of_range", words, remedy="check the unit: 72e9 is 72 billion")


def weight_bits(document: Mapping[str, Any]) -> float | None:
    """Bits a weight takes in a quantised release, scales included; None for 16-bit or unknown."""
    config = document.get("quantization_config")
    if not isinstance(config, Mapping):
        return None
    bits = config.get("bits") or config.get("w_bit")
    if isinstance(bits, int | float) and math.isfinite(bits) and 1 <= bits <= 16:
        return float(bits) + 0.5 if bits < 8 else float(bits)
    said = (
        f"{config.get('quant_method', '')} {config.get('quant_algo', '')} {config.get('fmt', '')}"
    )
    for word, width in WEIGHT_BITS.items():
        if word in said.lower():
            return width
    return _compressed_bits(config)


def _compressed_bits(config: Mapping[str, Any]) -> float | None:
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping):
        return None
    for group in groups.values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        bits = weights.get("num_bits") if isinstance(weights, Mapping) else None
        if isinstance(bits, int):
            return bits + 0.5 if bits < 8 else float(bits)
    return None
