"""The layers of a config.json: which mixer and which feed-forward each of them has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dusuan.core.workload.architecture import Attention, FeedForward, Latent, Mixer, Recurrence
from dusuan.core.workload.hffamilies import Family
from dusuan.core.workload.hfvalues import Bad, Values

Layer = tuple[Mixer | None, FeedForward | None, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that every layer shares. `width` is the dense feed-forward's, where there is one."""

    hidden: int
    layers: int
    vocab: int
    heads: int
    width: int | None


def layers(values: Values, family: Family, shape: Shape) -> list[Layer]:
    """One `(mixer, feed-forward, norm weights)` for each layer. Raises `Bad`."""
    if values.has("hybrid_override_pattern") or values.has("layers_block_type"):
        return _alternating(values, family, shape)
    if values.has("block_configs"):
        return _searched(values, family, shape)
    norms = family.norms * shape.hidden * (2 if family.norm_bias else 1)
    if values.flag("parallel_attn", False) and not values.flag("new_decoder_architecture", False):
        norms //= 2  # Falcon-7B normalises once for both
    mixer, feed = _mixer_of(values, family, shape), _feed_of(values, family, shape)
    return [(mixer(i), feed(i), norms) for i in range(shape.layers)]


def _mixer_of(values: Values, family: Family, shape: Shape) -> Callable[[int], Mixer]:
    """The mixer of layer `i`: full or windowed attention, latent attention, or a recurrence."""
    if values.has("kv_lora_rank"):
        latent = _latent(values, shape)
        return lambda _: latent
    full = _attention(values, family, shape, None)
    kinds = _kinds(values, shape)
    if kinds is None:
        return lambda _: full
    local = _local(values, family, shape, full)
    recurrent = _recurrence(values, shape) if "linear" in kinds else None
    by_kind: dict[str, Mixer] = {"full": full, "local": local}
    if recurrent is not None:
        by_kind["linear"] = recurrent
    return lambda i: by_kind[kinds[i]]


def _kinds(values: Values, shape: Shape) -> list[str] | None:
    """`full`, `local` or `linear` for every layer, or None where all are full."""
    named = values.numbers("layer_types")
    listed = values.numbers("attn_type_list") or values.numbers("hybrid_layer_pattern")
    every = values.maybe_count("full_attention_interval")
    pattern = values.maybe_count("sliding_window_pattern") or values.maybe_count(
        "_sliding_window_pattern"
    )
    if named is not None:
        kinds = [_kind(str(word)) for word in named]
    elif values.has("attn_type_list") and listed is not None:
        kinds = ["full" if kind else "linear" for kind in listed]
    elif listed is not None:  # MiMo: 1 is a sliding window
        kinds = ["local" if kind else "full" for kind in listed]
    elif every is not None:
        kinds = ["full" if (i + 1) % every == 0 else "linear" for i in range(shape.layers)]
    elif _window(values) is not None:
        step = pattern or _family_pattern(values)
        kinds = ["full" if step and (i + 1) % step == 0 else "local" for i in range(shape.layers)]
    else:
        return _chunked(values, shape)
    if len(kinds) < shape.layers:
        raise Bad.contradiction(f"{len(kinds)} layer types are listed for {shape.layers} layers")
    return kinds


def _kind(word: str) -> str:
    lowered = word.lower()
    if "linear" in lowered or "mamba" in lowered or "conv" in lowered or "recurrent" in lowered:
        return "linear"
    return "local" if "sliding" in lowered or "chunk" in lowered or "local" in lowered else "full"


def _chunked(values: Values, shape: Shape) -> list[str] | None:
    """Llama 4: chunks of 8,192 tokens, and every fourth layer attends to everything."""
    if values.maybe_count("attention_chunk_size") is None or not _is_llama4(values):
        return None
    return ["full" if (i + 1) % 4 == 0 else "local" for i in range(shape.layers)]


def _is_llama4(values: Values) -> bool:
    return values.word("model_type").startswith("llama4")


def _family_pattern(values: Values) -> int | None:
    kind = values.word("model_type")
    if kind.startswith(("gemma2", "gpt_oss")):
        return 2
    if kind.startswith("gemma3"):
        return 6
    return 4 if kind.startswith(("cohere2", "olmo3")) else None


def _window(values: Values) -> int | None:
    window = values.maybe_count("sliding_window") or values.maybe_count("sliding_window_size")
    window = window or values.maybe_count("window_size") or values.maybe_count("attention_window")
    if window is None and _is_llama4(values):
        window = values.maybe_count("attention_chunk_size")
    return window if values.flag("use_sliding_window", True) else None


def _local(values: Values, family: Family, shape: Shape, full: Attention) -> Attention:
    window = _window(values)
    if window is None:
        return full
    narrow = values.maybe_count("swa_num_key_value_heads")
    if narrow is None:
        return _attention(values, family, shape, window)
    heads = values.count("swa_num_attention_heads", full.heads)
    dim, v_dim = values.count("swa_head_dim", full.head_dim), values.maybe_count("swa_v_head_dim")
    return Attention(heads, narrow, dim, v_dim or dim, window)


def _attention(values: Values, family: Family, shape: Shape, window: int | None) -> Attention:
    heads, kv_heads = shape.heads, _kv_heads(values, shape)
    dim = values.maybe_count("head_dim") or _divided(values, shape)
    v_dim = values.maybe_count("v_head_dim") or dim
    if heads % kv_heads:
        words = f"{heads} attention heads cannot share {kv_heads} key-value heads evenly"
        raise Bad.contradiction(words)
    gated = values.flag("attn_output_gate", values.word("model_type") == "qwen3_next")
    extra = _attention_extra(values, family, shape, (heads, kv_heads, dim, v_dim))
    chunked = window is not None and _is_llama4(values)
    return Attention(heads, kv_heads, dim, v_dim, window, chunked, gated, extra)


def _kv_heads(values: Values, shape: Shape) -> int:
    if values.word("model_type") == "chatglm" and not values.flag("multi_query_attention", True):
        return shape.heads
    found = values.maybe_count("kv_heads")
    plain_falcon = not values.flag("new_decoder_architecture", False)
    if values.flag("multi_query", False) and plain_falcon:
        return 1
    return shape.heads if found is None else found


def _divided(values: Values, shape: Shape) -> int:
    if shape.hidden % shape.heads:
        words = f"hidden size {shape.hidden} is no multiple of {shape.heads} attention heads"
        if not values.has("head_dim"):
            raise Bad.contradiction(f"{words}, and no head_dim is given")
    return shape.hidden // shape.heads


def _attention_extra(
    values: Values, family: Family, shape: Shape, sizes: tuple[int, int, int, int]
) -> int:
    """Biases, norms of queries and keys, and sinks of one attention."""
    heads, kv_heads, dim, v_dim = sizes
    qkv = heads * dim + kv_heads * (dim + v_dim)
    said = values.flag("attention_bias", values.flag("qkv_bias", values.flag("use_bias", False)))
    extra = 0
    if family.bias in ("all", "qkv", "all_attention") or said:
        extra += qkv
    if family.bias in ("all", "out", "all_attention") or (said and family.bias == "none"):
        extra += shape.hidden
    if values.word("model_type") == "gpt_oss":
        extra += heads
    norm = "full" if values.word("qk_norm_type") == "per_layer" else family.qk_norm
    if norm == "none" and values.flag("use_qk_norm", False):
        norm = "head"
    extra += shape.hidden * heads * dim if family.relative else 0
    return extra + {"none": 0, "head": 2 * dim, "full": (heads + kv_heads) * dim}[norm]


def _latent(values: Values, shape: Shape) -> Latent:
    nope = values.count("qk_nope_head_dim", 128)
    return Latent(
        heads=shape.heads,
        q_rank=values.maybe_count("q_lora_rank"),
        kv_rank=values.count("kv_lora_rank"),
        nope_dim=nope,
        rope_dim=values.count("qk_rope_head_dim", 64),
        v_head_dim=values.count("v_head_dim", nope),
        selected=values.maybe_count("index_topk"),
        index_heads=values.maybe_count("index_n_heads") or 0,
        index_dim=values.maybe_count("index_head_dim") or 0,
    )


def _recurrence(values: Values, shape: Shape) -> Recurrence:
    """Gated delta net (Qwen3-Next) or lightning attention (MiniMax-01), by what is given."""
    key_heads = values.maybe_count("linear_num_key_heads")
    if key_heads is None:
        dim = values.maybe_count("head_dim") or _divided(values, shape)
        width = shape.heads * dim
        return Recurrence(4 * width, width, width * dim, extra_weights=width)
    value_heads = values.count("linear_num_value_heads")
    key_dim, value_dim = values.count("linear_key_head_dim"), values.count("linear_value_head_dim")
    keys, outs = key_heads * key_dim, value_heads * value_dim
    kernel = values.count("linear_conv_kernel_dim", 4)
    channels = 2 * keys + outs
    return Recurrence(
        in_width=2 * keys + 2 * outs + 2 * value_heads,
        out_width=outs,
        state=value_heads * key_dim * value_dim,
        conv_weights=channels * kernel,
        conv_state=channels * (kernel - 1),
        extra_weights=2 * value_heads + value_dim,
    )


def _mamba(values: Values) -> Recurrence:
    """Mamba-2. Source: arXiv 2405.21060 and `modeling_nemotron_h.py`."""
    heads = values.count("mamba_num_heads", values.maybe_count("n_mamba_heads"))
    inner = heads * values.count("mamba_head_dim", 64)
    groups = values.count("n_groups", values.maybe_count("mamba_n_groups"))
    state = values.count("ssm_state_size", values.maybe_count("mamba_d_state"))
    kernel = values.count("conv_kernel", 4)
    channels = inner + 2 * groups * state
    return Recurrence(
        in_width=inner + channels + heads,
        out_width=inner,
        state=inner * state,
        conv_weights=channels * kernel,
        conv_state=channels * (kernel - 1),
        extra_weights=channels + 3 * heads + inner,
    )


def _feed_of(values: Values, family: Family, shape: Shape) -> Callable[[int], FeedForward]:
    """The feed-forward of layer `i`: dense, or experts where the config says so."""
    experts = values.maybe_count("experts") or 0
    if experts <= 1 or values.flag("use_moe", True) is False:
        dense = _dense(values, family, shape)
        return lambda _: dense
    routed = _experts(values, family, shape, experts)
    is_dense = _dense_layers(values, shape)
    if not any(is_dense):
        return lambda _: routed
    dense = _dense(values, family, shape)
    return lambda i: dense if is_dense[i] else routed


def _dense(values: Values, family: Family, shape: Shape) -> FeedForward:
    bias = family.bias in ("all", "out", "feed") or values.flag("mlp_bias", False)
    kind, width = values.word("model_type"), shape.width
    special = values.maybe_count("dense_intermediate_size") or values.maybe_count(
        "intermediate_size_mlp"
    )
    if kind == "mpt":
        width = values.count("expansion_ratio", 4) * shape.hidden
    width = special or width
    if width is None:
        raise Bad.missing("feed-forward width", "feed")
    if kind == "qwen":  # two halves of what the config calls the width
        width //= 2
    return FeedForward(width, family.gated, bias)


def _experts(values: Values, family: Family, shape: Shape, experts: int) -> FeedForward:
    width = values.maybe_count("expert_feed") or shape.width
    if width is None:
        raise Bad.missing("width of an expert", "expert_feed")
    active = values.maybe_count("active") or _usual_active(values)
    if active is None:
        raise Bad.missing("number of experts a token uses", "active")
    if active > experts:
        raise Bad.contradiction(f"a token uses {active} of only {experts} experts")
    kind = values.word("model_type")
    return FeedForward(
        width=width,
        gated=family.gated,
        bias=family.bias == "all",
        experts=experts,
        active=active,
        shared_width=_shared_width(values, width),
        shared_gate=kind.startswith(("qwen2_moe", "qwen3_next", "qwen3_5")),
        router_bias=kind == "gpt_oss" or values.word("scoring_func") == "sigmoid",
        latent=values.maybe_count("moe_latent_size") or 0,
    )


def _usual_active(values: Values) -> int | None:
    return 1 if _is_llama4(values) else None


def _shared_width(values: Values, width: int) -> int:
    said = (
        *("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"),
        *("shared_intermediate_size", "share_expert_dim"),
    )
    for key in said:
        found = values.maybe_count(key, zero=True)
        if found is not None:
            return found
    if _is_llama4(values):
        return width
    count = values.maybe_count("n_shared_experts") or values.maybe_count("num_shared_experts") or 0
    return (count or values.maybe_count("moe_num_shared_experts") or 0) * width


def _dense_layers(values: Values, shape: Shape) -> list[bool]:
    """For every layer whether it is dense although the model has experts."""
    first = values.maybe_count("first_k_dense_replace") or values.maybe_count(
        "moe_layer_start_index"
    )
    step = values.maybe_count("decoder_sparse_step") or values.maybe_count(
        "interleave_moe_layer_step"
    )
    step = step or values.maybe_count("moe_layer_freq") or 1
    only = {int(i) for i in values.numbers("mlp_only_layers") or []}
    frequent = values.numbers("moe_layer_freq")
    if frequent is not None:
        return [not each for each in [*frequent, *([1] * shape.layers)][: shape.layers]]
    after = first or 0
    if values.word("model_type").startswith("deepseek") or after:
        return [i < after or (step > 1 and i % step != 0) for i in range(shape.layers)]
    return [i in only or (i + 1) % step != 0 for i in range(shape.layers)]


def alternating_count(values: Values) -> int | None:
    """How many layers a hybrid pattern lists, or None where there is no pattern."""
    letters = values.raw("hybrid_override_pattern")
    listed = values.numbers("layers_block_type")
    if isinstance(letters, str):
        return len(letters)
    return None if listed is None else len(listed)


def _alternating(values: Values, family: Family, shape: Shape) -> list[Layer]:
    """Nemotron-H: every layer is one of mamba, attention, feed-forward or experts alone."""
    letters = values.raw("hybrid_override_pattern")
    if not isinstance(letters, str):
        words = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
        letters = "".join(words.get(str(w), "M") for w in values.numbers("layers_block_type") or [])
    attention = _attention(values, family, shape, None)
    made: dict[str, Layer] = {"*": (attention, None, shape.hidden)}
    if "M" in letters:
        made["M"] = (_mamba(values), None, shape.hidden)
    if "-" in letters:
        made["-"] = (None, _dense(values, family, shape), shape.hidden)
    if "E" in letters:
        experts = values.count("experts")
        made["E"] = (None, _experts(values, family, shape, experts), shape.hidden)
    unknown = set(letters) - set(made)
    if unknown:
        raise Bad.contradiction(f"hybrid_override_pattern has unknown letters {sorted(unknown)}")
    return [made[letter] for letter in letters]


def _searched(values: Values, family: Family, shape: Shape) -> list[Layer]:
    """Nemotron by architecture search: every layer has its own groups and feed-forward."""
    found: list[Layer] = []
    for block in values.numbers("block_configs") or []:
        attention, feed = block["attention"], block["ffn"]
        mixer: Mixer | None = None
        group = attention.get("n_heads_in_group")
        if group:
            dim = _divided(values, shape)
            mixer = Attention(shape.heads, shape.heads // group, dim, dim)
        elif attention.get("replace_with_linear"):
            mixer = Recurrence(shape.hidden, 0, 0)
        found.append((mixer, _scaled_feed(feed, family, shape), family.norms * shape.hidden))
    return found


def _scaled_feed(feed: dict[str, float], family: Family, shape: Shape) -> FeedForward | None:
    if feed.get("no_op"):
        return None
    if feed.get("replace_with_linear"):
        return FeedForward(shape.hidden // 2, gated=False)
    wide = int(2 * feed["ffn_mult"] * shape.hidden / 3)
    return FeedForward(-(-wide // 256) * 256, family.gated)
