"""Values of a config.json by meaning, checked: what is missing or no sensible number says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dusuan.core.workload.jobspec import Problem

COUNT_MAX = 10**9
# Every name that a meaning goes by, the usual one first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model", "model_dim", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": (
        *("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads"),
        *("multi_query_group_num", "kv_n_heads", "num_attention_groups"),
    ),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels", "d_kv", "attention_head_size"),
    "feed": ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim"),
    "vocab": ("vocab_size", "padded_vocab_size", "n_vocab"),
    "context": (
        *("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"),
        *("max_sequence_length", "n_ctx", "max_seq_length"),
    ),
    "experts": (
        *("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts"),
        "n_experts",
    ),
    "active": (
        *("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k"),
        *("experts_per_token", "top_k_experts", "num_selected_experts"),
    ),
    "expert_feed": ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
}
_WORDS = {
    "hidden": "hidden size",
    "layers": "number of layers",
    "heads": "number of attention heads",
    "feed": "feed-forward width",
    "vocab": "size of the vocabulary",
    "context": "longest sequence",
    "experts": "number of experts",
    "active": "number of experts a token uses",
    "expert_feed": "width of an expert",
}


class Bad(Exception):
    """A config that cannot be read, and why. Caught where reading began."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem

    @classmethod
    def missing(cls, what: str, meaning: str) -> Bad:
        """Something without which there is no architecture."""
        keys = ", ".join(NAMES.get(meaning, (meaning,))[:3])
        words = f"the config has no {what} ({keys})"
        remedy = "add it, or give the parameter count: dusuan estimate --params N"
        return cls(Problem("missing_value", words, remedy=remedy))

    @classmethod
    def contradiction(cls, text: str) -> Bad:
        """Two values that cannot both be true."""
        return cls(Problem("contradiction", text, remedy="check both in config.json"))


class Values:
    """Reads one config."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        flat = dict(document)
        for nested in ("attn_config", "ffn_config", "ssm_cfg"):  # MPT, DBRX
            if isinstance(flat.get(nested), Mapping):
                flat = {**flat[nested], **flat}
        self._document = flat

    def has(self, key: str) -> bool:
        """Whether `key` is there and says something."""
        return self._document.get(key) is not None

    def raw(self, key: str) -> Any:
        """The value as it stands."""
        return self._document.get(key)

    def word(self, key: str) -> str:
        """A word in lower case, or an empty one."""
        value = self._document.get(key)
        return value.lower() if isinstance(value, str) else ""

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        value = self._document.get(key)
        return value if isinstance(value, bool) else default

    def count(self, meaning: str, default: int | None = None) -> int:
        """A whole number above zero under any of its names. Raises `Bad` where there is none."""
        found = self.maybe_count(meaning)
        if found is None and default is None:
            raise Bad.missing(_WORDS.get(meaning, meaning), meaning)
        return default if found is None else found  # type: ignore[return-value] # not both None

    def maybe_count(self, meaning: str, *, zero: bool = False) -> int | None:
        """The same, or None where it is not given; with `zero`, zero counts as given."""
        for key in NAMES.get(meaning, (meaning,)):
            value = self._document.get(key)
            if value is None or (isinstance(value, int) and value == 0 and meaning not in _WORDS):
                if value == 0 and zero:
                    return 0
                continue
            if isinstance(value, Sequence) and not isinstance(value, str):
                continue  # one number a layer is read by who knows what it means
            return _whole(key, value, least=0 if meaning in ("experts", "active") else 1)
        return None

    def numbers(self, key: str) -> list[Any] | None:
        """A list, or None."""
        value = self._document.get(key)
        return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None


def _whole(key: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        words = f"{key} is {str(value)[:40]!r} and not a number"
        raise Bad(Problem("wrong_value", words, remedy="give a whole number"))
    if not math.isfinite(value) or value != int(value):
        words = f"{key} is {value} and not a whole number"
        raise Bad(Problem("not_finite", words, remedy="give a whole number"))
    if not least <= value <= COUNT_MAX:
        words = f"{key} is {value}, outside {least} to {COUNT_MAX}"
        raise Bad(Problem("out_of_range", words, remedy="check it in config.json"))
    return int(value)
