"""Architectures by name, as hubs and papers write them, quantised releases included.

`meta-llama/Llama-3.1-70B-Instruct`, `nvidia/DeepSeek-R1-FP4` and `Qwen3-235B-A22B-GPTQ-Int4` are
entries of the table with words that say nothing of the shape. A name that is in no entry falls
back to the parameters it states (`-235B-A22B`) and says so; without any it is refused.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dusuan.core.workload import guess
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.hfconfig import from_config
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import nearest

# Words of a release's name that change nothing of its shape.
_PLAIN = frozenset(
    (
        *("instruct", "chat", "it", "base", "hf", "pt", "sft", "dpo", "rlhf", "thinking", "think"),
        *("preview", "latest", "inst", "deduped", "meta", "nvidia", "model", "text", "english"),
        *("gguf", "mlx", "bnb", "unsloth", "dynamic", "static", "tensor", "pertensor", "per"),
        *("block", "quantized", "quant", "eagle", "eagle3", "mtp", "beta", "qat", "nonthinking"),
        *("uncased", "cased", "turbo", "exp", "open", "weights", "1m", "8k", "4k", "128k", "32k"),
        *("v0", "v0.1", "v1", "v1.0", "v1.1", "version", "dev", "ckpt", "checkpoint", "ai"),
    )
)
# What says how many bits a weight takes, scales included; the least of those named counts.
_BITS: Mapping[str, float] = {
    **dict.fromkeys(("bf16", "fp16", "float16"), 16.0),
    **dict.fromkeys(("fp8", "float8", "int8", "w8a8", "8bit", "q8", "w8a16"), 8.0),
    **dict.fromkeys(("fp4", "nvfp4", "mxfp4", "int4", "w4a16", "4bit", "q4"), 4.5),
    **dict.fromkeys(("w4a8", "w4afp8", "nf4"), 4.5),
    **dict.fromkeys(("int3", "3bit", "q3"), 3.5),
    **dict.fromkeys(("q5",), 5.5),
    **dict.fromkeys(("q6",), 6.5),
}
NEAR = 0.7  # how alike a name has to be to be asked after
_FOUR_BITS = 4.5  # what a release by AWQ or GPTQ takes that does not say it
_METHODS = frozenset(("awq", "gptq"))
_DATE = re.compile(r"\d{4}|\d{6}")
_VERSION = re.compile(r"v(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table: a release, what its config.json says, and its published size.

    Without a config its size is all that is known of it; its shape is then a usual one.
    """

    names: tuple[str, ...]
    config: Mapping[str, Any]
    params_b: float | None
    active_b: float | None
    source: str

    def built(self) -> Architecture | Problem:
        """Its architecture."""
        if not self.config:
            return self._of_its_size()
        return from_config(self.config, self.names[0], basis="named", source=self.source)

    def _of_its_size(self) -> Architecture | Problem:
        active = None if self.active_b is None else self.active_b * 1e9
        guessed = guess.from_params((self.params_b or 0.0) * 1e9, active, name=self.names[0])
        if isinstance(guessed, Problem):
            return guessed
        note = f"of {self.names[0]} only the size is known ({self.source}): in a usual shape"
        return replace(guessed, basis="named", source=self.source, notes=(note,))


@dataclass(frozen=True)
class ModelTable:
    """All named architectures."""

    entries: tuple[Entry, ...]
    by_key: Mapping[str, tuple[Entry, str]]
    by_loose_key: Mapping[str, tuple[Entry, str]]

    def find(self, name: str) -> Architecture | Problem:
        """The architecture that `name` means, or a `Problem` that says what would help."""
        known = self.known(name)
        return self._by_size(name, plain_words(name)[1]) if known is None else known

    def known(self, name: str) -> Architecture | Problem | None:
        """The architecture of the entry that `name` means, or None where there is no entry."""
        words, bits = plain_words(name)
        found = self._entry(name, words)
        if found is None:
            return None
        built = found[0].built()
        if isinstance(built, Problem):
            return built
        return replace(built, name=found[1], weight_bits=bits or built.weight_bits)

    def _entry(self, name: str, words: tuple[str, ...]) -> tuple[Entry, str] | None:
        whole = "".join(_words(name))
        undated = tuple(w for w in words if not _DATE.fullmatch(w))
        for key in (whole, "".join(words), "".join(undated)):
            if key in self.by_key:
                return self.by_key[key]
        return self.by_loose_key.get("".join(sorted(undated)))

    def _by_size(self, name: str, bits: float | None) -> Architecture | Problem:
        stated = guess.size_in(name)
        if stated is None:
            near = nearest(name, (n for e in self.entries for n in e.names), NEAR)
            remedy = "give its config.json, or its size: dusuan estimate --params N"
            asked = f"; did you mean {near}?" if near else ""
            words = f"no architecture is known for {name[:80]!r}, and its name states no size"
            return Problem("unknown_model", words, remedy=remedy + asked)
        guessed = guess.from_params(*stated, name=name)
        if isinstance(guessed, Problem):
            return guessed
        active = f" of which {stated[1] / 1e9:g}B active" if stated[1] else ""
        note = (
            f"{name} is not among the known architectures: taken by the {stated[0] / 1e9:g}B "
            f"parameters{active} that its name states, in a usual shape"
        )
        return replace(guessed, notes=(note,), weight_bits=bits)


def parse(table_csv: str) -> ModelTable:
    """The table from its text."""
    entries = tuple(_entry(row) for row in csv.DictReader(io.StringIO(table_csv)))
    by_key: dict[str, tuple[Entry, str]] = {}
    loose: dict[str, tuple[Entry, str]] = {}
    for entry in entries:
        for name in entry.names:
            words, _ = plain_words(name)
            by_key.setdefault("".join(_words(name)), (entry, name))
            by_key.setdefault("".join(words), (entry, name))
            undated = [w for w in words if not _DATE.fullmatch(w)]
            loose.setdefault("".join(sorted(undated)), (entry, name))
    return ModelTable(entries, by_key, loose)


_COLUMNS = {
    "type": "model_type",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv": "num_key_value_heads",
    "dim": "head_dim",
    "ff": "intermediate_size",
    "vocab": "vocab_size",
    "context": "max_position_embeddings",
}


def _entry(row: Mapping[str, str]) -> Entry:
    config: dict[str, Any] = {}
    for column, key in _COLUMNS.items():
        if row[column]:
            config[key] = row[column] if column == "type" else int(row[column])
    config |= json.loads(row["extra"]) if row["extra"] else {}
    return Entry(
        names=tuple(row["names"].split("|")),
        config=config,
        params_b=float(row["params_b"]) if row["params_b"] else None,
        active_b=float(row["active_b"]) if row["active_b"] else None,
        source=row["source"],
    )


def plain_words(name: str) -> tuple[tuple[str, ...], float | None]:
    """The words of a name that tell its shape, and the bits of a weight where it is quantised."""
    bits, kept, words = None, [], _words(name)
    for word in words:
        found = _BITS.get(word.removeprefix("i") if word.startswith("iq") else word)
        if found is not None:
            bits = found if bits is None else min(bits, found)
        elif word not in _PLAIN and word not in _METHODS:
            kept.append(word)
    if bits is None and _METHODS.intersection(words):
        bits = _FOUR_BITS
    return tuple(kept), bits


def _words(name: str) -> list[str]:
    last = name.strip().lower().rstrip("/").rsplit("/", 1)[-1]
    last = re.sub(r"[-.](gguf|safetensors|bin)$|\s*\([^)]*\)", "", last)
    last = re.sub(r"[-.]((?:i?q\d)_[a-z0-9_]+)$", lambda m: "-" + m[1][: m[1].index("_")], last)
    last = re.sub(r"\.(w\da\d+)", r"-\1", last)
    words = [w for w in re.split(r"[-\s:()\[\],]+|_(?![\dk])|(?<=[a-z])_", last) if w]
    return [piece for word in words for piece in _split(word)]


def _split(word: str) -> list[str]:
    """`llama3.1` is `llama 3.1`; `v3` is `3`, so that versions meet however they are written."""
    word = word.replace("_", ".") if re.fullmatch(r"[a-z]*\d+_\d+[a-z]?", word) else word
    version = _VERSION.fullmatch(word)
    if version is not None and word not in _PLAIN:
        return [version[1]]
    match = re.fullmatch(r"([a-z]{3,})(\d+(?:\.\d+)*)", word)
    if match is not None and word not in _BITS and word not in _PLAIN:
        return [match[1], match[2]]
    return [word]
