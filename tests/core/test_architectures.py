"""Architectures: published sizes, names as people write them, configs, headers, bad input."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from dusuan.core.workload import gguf, safetensors
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.guess import from_params, size_in
from dusuan.core.workload.hfconfig import PARAMS_MAX, from_config
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.named import Entry
from dusuan.facts import models

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def built(name: str) -> Architecture:
    found = models().find(name)
    assert isinstance(found, Architecture), found
    return found


def configured(**changes: Any) -> Architecture:
    found = from_config({**LLAMA, **changes})
    assert isinstance(found, Architecture), found
    return found


@pytest.mark.parametrize("entry", models().entries, ids=lambda e: e.names[0])
def test_sizes_are_as_published(entry: Entry) -> None:
    """Total within 1 %; active, which publications round or give without embeddings, 12 %."""
    arch = entry.built()
    assert isinstance(arch, Architecture), arch
    assert entry.source
    if entry.params_b is not None:
        assert arch.params_total / 1e9 == pytest.approx(entry.params_b, rel=0.01)
    if entry.active_b is not None:
        assert arch.params_active / 1e9 == pytest.approx(entry.active_b, rel=0.12)
    assert arch.params_active <= arch.params_total


def test_every_name_of_the_table_finds_its_entry() -> None:
    for entry in models().entries:
        direct = entry.built()
        assert isinstance(direct, Architecture)
        for name in entry.names:
            assert built(name).blocks == direct.blocks, name


SPELLINGS = [
    ("meta-llama/Llama-3.1-70B-Instruct", 70.55, None),
    ("meta-llama/Meta-Llama-3.1-405B-Instruct-FP8", 405.9, 8.0),
    ("nvidia/DeepSeek-R1-FP4", 671.0, 4.5),
    ("deepseek-ai/DeepSeek-R1", 671.0, 8.0),
    ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", 235.1, 8.0),
    ("MiniMaxAI/MiniMax-M2.5", 228.7, 8.0),
    ("zhipuai/GLM-5", 743.9, None),
    ("moonshotai/Kimi-K2-Instruct-0905", 1026.4, 8.0),
    ("nvidia/Kimi-K2-Thinking-NVFP4", 1026.4, 4.5),
    ("bartowski/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", 8.03, 4.5),
    ("neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w8a8", 70.55, 8.0),
    ("TheBloke/Llama-2-70B-Chat-GPTQ", 68.98, 4.5),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7, None),
    ("Llama 2 70B", 68.98, None),
    ("llama3.1-8b", 8.03, None),
    ("GPT-3", 174.6, None),
    ("BLOOM-176B", 176.2, None),
    ("TinyLlama-1.1B (300B tok)", 1.1, None),
    ("Qwen/Qwen2.5-Coder-32B-Instruct-GPTQ-Int8", 32.76, 8.0),
    ("unsloth/gpt-oss-120b-BF16", 116.8, 16.0),
    ("google/gemma-3-12b-it-qat-q4_0-gguf", 11.77, 4.5),
    ("HuggingFaceH4/zephyr-7b-beta", 7.24, None),
    ("zai-org/GLM-4.7-Flash", 29.94, None),
    ("deepseek-ai/DeepSeek-V4-Flash", 284.0, None),
    ("mistralai/Mistral-Large-3-675B-Instruct-2512-NVFP4", 673.0, 4.5),
    ("tencent/Tencent-Hunyuan-Large", 389.0, None),
    ("ai21labs/AI21-Jamba-1.5-Large", 398.0, None),
    ("xai-org/grok-2", 269.5, None),
    ("CohereLabs/command-a-03-2025", 111.1, None),
]


@pytest.mark.parametrize(("name", "size_b", "bits"), SPELLINGS)
def test_names_as_hubs_and_papers_write_them(name: str, size_b: float, bits: float | None) -> None:
    arch = built(name)
    assert arch.basis == "named"
    assert arch.params_total / 1e9 == pytest.approx(size_b, rel=0.01)
    assert arch.weight_bits == bits


def test_a_release_of_which_only_the_size_is_published_says_so() -> None:
    arch = built("inclusionAI/Ling-1T")
    assert arch.params_active / 1e9 == pytest.approx(50, rel=0.01)
    assert arch.is_moe
    assert "only the size is known" in arch.notes[0]
    assert "arXiv 2510.22115" in arch.source


def test_an_unknown_name_falls_back_to_the_size_it_states_and_says_so() -> None:
    arch = built("acme/Foo-235B-A22B-FP8")
    assert arch.basis == "parameters"
    assert arch.params_total / 1e9 == pytest.approx(235, rel=0.01)
    assert arch.params_active / 1e9 == pytest.approx(22, rel=0.01)
    assert arch.weight_bits == 8.0
    assert "not among the known" in arch.notes[0]


def test_an_unknown_name_without_a_size_is_refused() -> None:
    refused = models().find("acme/Foo")
    assert isinstance(refused, Problem)
    assert "states no size" in refused.text
    assert "--params" in refused.remedy


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("Qwen3-235B-A22B", (235e9, 22e9)),
        ("Mixtral-8x7B-v0.1", (56e9, 14e9)),
        ("Foo-2x7B", (14e9, None)),
        ("opt-1p3b", (1.3e9, None)),
        ("pythia-70m", (70e6, None)),
        ("Foo-1T-A32B", (1e12, 32e9)),
        ("model (300B tok)-7B", (7e9, None)),
        ("gpt2", None),
    ],
)
def test_sizes_in_names(name: str, stated: tuple[float, float | None] | None) -> None:
    assert size_in(name) == stated


@pytest.mark.parametrize("total", [1e6, 1.2e8, 1e9, 7e9, 72e9, 405e9, 1.8e12, 1e13])
def test_a_bare_count_gives_a_shape_of_that_size(total: float) -> None:
    arch = from_params(total)
    assert isinstance(arch, Architecture)
    assert arch.params_total == pytest.approx(total, rel=0.01)
    assert arch.heads % 8 == 0 or arch.heads < 16
    assert "not known" in arch.notes[0]


@pytest.mark.parametrize(
    ("total", "active", "code"),
    [
        (float("nan"), None, "not_finite"),
        (float("inf"), None, "not_finite"),
        (0, None, "out_of_range"),
        (-7e9, None, "out_of_range"),
        (1e15, None, "out_of_range"),
        (7e9, 8e9, "contradiction"),
        (7e9, -1.0, "out_of_range"),
    ],
)
def test_bad_counts(total: float, active: float | None, code: str) -> None:
    problem = from_params(total, active)
    assert isinstance(problem, Problem)
    assert problem.code == code
    assert problem.remedy


def test_the_cache_of_one_token() -> None:
    assert built("Llama-3.1-70B").kv_bytes_per_token() == 2 * 80 * 8 * 128 * 2
    assert built("DeepSeek-V3").kv_bytes_per_token() == 61 * (512 + 64) * 2
    assert built("falcon-7b").kv_bytes_per_token() == 2 * 32 * 64 * 2


def test_windows_and_recurrences_cap_the_cache() -> None:
    windowed = built("gemma-3-27b")
    assert windowed.kv_bytes(100_000) < 0.2 * 100_000 * windowed.kv_bytes_per_token()
    assert windowed.kv_bytes(1_000) == pytest.approx(1_000 * windowed.kv_bytes_per_token())
    hybrid = built("Qwen3-Next-80B-A3B")
    assert hybrid.kv_bytes_per_token() == 12 * 2 * 2 * 256 * 2
    assert hybrid.kv_bytes(0) > 0


def test_a_nested_config_is_read_and_said() -> None:
    outer = {"model_type": "some_vl", "text_config": LLAMA, "vision_config": {"hidden_size": 1}}
    arch = from_config(outer)
    assert isinstance(arch, Architecture)
    assert arch.params_total == configured().params_total
    assert "vision" in arch.notes[0]


def test_a_model_type_that_is_not_known_is_read_and_said() -> None:
    arch = configured(model_type="llamoid", hidden_act="silu")
    assert arch.params_total == configured().params_total
    assert "'llamoid' is not known" in arch.notes[0]


MISSING = ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]


@pytest.mark.parametrize("key", [*MISSING, "intermediate_size"])
def test_what_a_config_lacks_is_named(key: str) -> None:
    problem = from_config({k: v for k, v in LLAMA.items() if k != key})
    assert isinstance(problem, Problem)
    assert problem.code == "missing_value"
    assert key in problem.text
    assert problem.remedy


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"num_attention_heads": 33}, "no multiple"),
    ({"num_key_value_heads": 5}, "cannot share"),
    ({"num_local_experts": 8, "num_experts_per_tok": 9}, "9 of only 8"),
    ({"num_local_experts": 8}, "experts a token uses"),
    ({"layer_types": ["full_attention"] * 3}, "3 layer types"),
    ({"hidden_size": 0}, "outside"),
    ({"hidden_size": -4096}, "outside"),
    ({"hidden_size": float("nan")}, "whole number"),
    ({"hidden_size": 4096.5}, "whole number"),
    ({"hidden_size": "big"}, "not a number"),
    ({"hidden_size": 10**8, "head_dim": 128}, "more than any model"),
]


@pytest.mark.parametrize(("change", "said"), CONTRADICTIONS)
def test_what_cannot_be_true_is_named(change: dict[str, Any], said: str) -> None:
    problem = from_config({**LLAMA, **change})
    assert isinstance(problem, Problem), problem
    assert said in problem.text
    assert problem.remedy


def test_the_largest_model_that_is_believed() -> None:
    assert PARAMS_MAX == 10**14


def header(tensors: dict[str, Any]) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


def llama_tensors(layers: int = 2, hidden: int = 256) -> dict[str, Any]:
    shapes = {
        "model.embed_tokens": [1000, hidden],
        "lm_head": [1000, hidden],
        "model.norm": [hidden],
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{n}_proj": [hidden, hidden] for n in "qo"}
        shapes |= {f"{at}self_attn.{n}_proj": [128, hidden] for n in "kv"}
        shapes |= {f"{at}mlp.{n}_proj": [512, hidden] for n in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj": [hidden, 512], f"{at}input_layernorm": [hidden]}
    return {f"{k}.weight": {"dtype": "BF16", "shape": v} for k, v in shapes.items()}


def test_a_safetensors_header_gives_the_same_as_its_config() -> None:
    tensors = llama_tensors()
    arch = safetensors.from_safetensors(header({"__metadata__": {}, **tensors}))
    assert isinstance(arch, Architecture), arch
    assert arch.params_total == sum(n["shape"][0] * (n["shape"] + [1])[1] for n in tensors.values())
    config = configured(
        hidden_size=256, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=512, vocab_size=1000,
    )  # fmt: skip
    assert arch.matmul_params_active == config.matmul_params_active
    assert arch.kv_values_per_token() == config.kv_values_per_token()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "truncated_header"),
        (b"\x10\x00", "truncated_header"),
        (header(llama_tensors())[:-30], "truncated_header"),
        (b"\xff" * 64, "wrong_format"),
        ((20).to_bytes(8, "little") + b"not json, not at all", "wrong_format"),
        (header({"a": {"dtype": "BF16"}}), "wrong_format"),
        (header({"model.embed_tokens.weight": {"dtype": "BF16", "shape": [9, 8]}}),
         "incomplete_model"),
    ],
)  # fmt: skip
def test_bad_safetensors_headers(data: bytes, code: str) -> None:
    problem = safetensors.from_safetensors(data, "model-00001-of-00030")
    assert isinstance(problem, Problem)
    assert problem.code == code
    assert problem.remedy


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_file(**changes: int) -> bytes:
    numbers = {
        "embedding_length": 4096,
        "block_count": 32,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
        "feed_forward_length": 14336,
        "context_length": 8192,
        "vocab_size": 128256,
    } | changes
    pairs = [gguf_string("general.architecture") + struct.pack("<I", 8) + gguf_string("llama")]
    pairs += [
        gguf_string(f"llama.{key}") + struct.pack("<II", 4, n) for key, n in numbers.items() if n
    ]
    tensor = gguf_string("output.weight") + struct.pack("<IQQIQ", 2, 4096, 128256, 12, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensor


def test_a_gguf_header_gives_the_same_as_its_config() -> None:
    arch = gguf.from_gguf(gguf_file())
    assert isinstance(arch, Architecture), arch
    assert arch.params_total == configured().params_total
    assert arch.weight_bits == 4.5


def test_bad_gguf_headers() -> None:
    whole = gguf_file()
    for cut in (5, 20, 60, len(whole) - 4):
        problem = gguf.from_gguf(whole[:cut])
        assert isinstance(problem, Problem)
        assert problem.code == "truncated_header"
    no_file, no_hidden = (
        gguf.from_gguf(b"PK\x03\x04"),
        gguf.from_gguf(gguf_file(embedding_length=0)),
    )
    assert isinstance(no_file, Problem)
    assert no_file.code == "wrong_format"
    assert isinstance(no_hidden, Problem)
    assert "hidden size" in no_hidden.text
