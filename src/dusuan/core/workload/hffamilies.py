"""What a `model_type` of Hugging Face's means where its config.json does not say.

A saved config leaves out whatever equals its class's default, so these defaults are part of the
format. Source of each: `transformers/models/*/configuration_*.py` and `modeling_*.py`, 5.24, and
for types with remote code the modelling file of the release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Defaults of a model type.

    `norms`: normalisations of a layer, each `norm_vectors` of the hidden size. `bias`: `none`,
    `qkv` or `all`. `qk_norm`: `none`, `head` (one head wide) or `full` (all heads wide).
    `positions`: key of the count of learned positions, and what the table has beyond it.
    """

    gated: bool = True
    tied: bool = False
    norms: int = 2
    norm_bias: bool = False
    bias: str = "none"
    qk_norm: str = "none"
    positions: tuple[str, int] | None = None
    causal: bool = True
    head_bias: bool = False
    feed_default: int | None = None  # feed-forward width over hidden size where none is given
    kv_default: int | None = None
    embedding_norm: bool = False
    relative: bool = False  # a projection of relative positions in every layer


_LLAMA = Family()
_QWEN3 = Family(qk_norm="head")
_GPT = Family(gated=False, tied=True, norm_bias=True, bias="all", feed_default=4)
_DEEPSEEK = Family()

FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(
        (
            *("llama", "mistral", "mixtral", "yi", "internlm2", "internlm3", "baichuan"),
            *("aquila", "minicpm", "exaone", "deepseek", "granite", "granitemoe", "phi3"),
            *("phimoe", "ministral", "ministral3", "mistral3", "smollm3", "arcee", "ernie4_5"),
            *("ernie4_5_moe", "seed_oss", "solar", "mimo", "nemotron-nas", "decilm"),
            *("hunyuan_v1_dense", "llama4", "llama4_text", "xverse", "orion", "minimax"),
            *("minimax_text_01", "minimax_m1", "step3p7", "step3p5", "mimo_v2_flash", "solar_open"),
        ),
        _LLAMA,
    ),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2"), _DEEPSEEK),
    **dict.fromkeys(("glm_moe_dsa", "glm4_moe_lite", "minicpm3", "longcat_flash"), _DEEPSEEK),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "qwen"), Family(bias="qkv")),
    **dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text"), Family(bias="qkv")),
    **dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text"), _QWEN3),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_5"), _QWEN3),
    **dict.fromkeys(("qwen3_5_moe", "dots1", "hunyuan_v1_moe", "exaone4"), _QWEN3),
    "minimax_m2": Family(qk_norm="full"),
    "minimax_m3": Family(qk_norm="head"),
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, norms=4),
    "gemma3": Family(tied=True, norms=4, qk_norm="head"),
    "gemma3_text": Family(tied=True, norms=4, qk_norm="head"),
    "olmo": Family(norms=0),
    **dict.fromkeys(("olmo2", "olmo3"), Family(qk_norm="full")),
    "olmoe": Family(qk_norm="full"),
    "cohere": Family(tied=True, norms=1),
    "cohere2": Family(tied=True, norms=1),
    "chatglm": Family(bias="qkv"),
    "glm": Family(bias="qkv"),
    "glm4": Family(bias="qkv", norms=4),
    "glm4_moe": Family(bias="qkv"),
    "gpt_oss": Family(bias="all"),
    "internlm": Family(bias="all_attention"),
    "stablelm": Family(norm_bias=True),
    "gpt2": Family(
        gated=False, tied=True, norm_bias=True, bias="all", feed_default=4, positions=("context", 0)
    ),
    "gpt_bigcode": Family(
        gated=False, tied=True, norm_bias=True, bias="all", feed_default=4, positions=("context", 0)
    ),
    "gpt_neo": Family(
        gated=False, tied=True, norm_bias=True, bias="out", feed_default=4, positions=("context", 0)
    ),
    "opt": Family(
        gated=False, tied=True, norm_bias=True, bias="all", feed_default=4, positions=("context", 2)
    ),
    "xglm": Family(gated=False, tied=True, norm_bias=True, bias="all", feed_default=4),
    # Gopher and Chinchilla: relative positions as in Transformer-XL, one more h^2 a layer.
    "transformer_xl": Family(gated=False, tied=True, bias="feed", relative=True),
    "gptj": Family(
        gated=False, norms=1, norm_bias=True, bias="feed", feed_default=4, head_bias=True
    ),
    "codegen": Family(
        gated=False, norms=1, norm_bias=True, bias="feed", feed_default=4, head_bias=True
    ),
    "gpt_neox": Family(gated=False, norm_bias=True, bias="all", feed_default=4),
    "bloom": Family(
        gated=False, tied=True, norm_bias=True, bias="all", feed_default=4, embedding_norm=True
    ),
    "mpt": Family(gated=False, tied=True, feed_default=4),
    "falcon": Family(gated=False, tied=True, norm_bias=True, feed_default=4),
    "refinedweb": Family(gated=False, tied=True, norm_bias=True, feed_default=4),
    "starcoder2": Family(gated=False, tied=True, norm_bias=True, bias="all"),
    "phi": Family(gated=False, norms=1, norm_bias=True, bias="all", feed_default=4, head_bias=True),
    "nemotron": Family(gated=False, norm_bias=True),
    "nemotron_h": Family(gated=False, norms=1),
    "persimmon": Family(gated=False, norm_bias=True, bias="all", qk_norm="head"),
    "dbrx": Family(norm_bias=False),
    "jamba": Family(),
    "openelm": Family(tied=True, qk_norm="head"),
    "bert": Family(
        gated=False,
        tied=True,
        norm_bias=True,
        bias="all",
        positions=("context", 2),
        causal=False,
        embedding_norm=True,
    ),
    "roberta": Family(
        gated=False,
        tied=True,
        norm_bias=True,
        bias="all",
        positions=("context", 1),
        causal=False,
        embedding_norm=True,
    ),
}
