"""`estimate` of one workload, `catalog`, `convert`: without a platform, from files and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import MadeUpLauncher
from tests.core.test_architectures import LLAMA, gguf_file, header, llama_tensors
from typer.testing import CliRunner

from dusuan.cli import build

FIELDS = {
    *("flop_total", "delivered_degrees", "memory_gib_per_device", "fits", "layout"),
    *("held_degrees_p10", "held_degrees_p50", "held_degrees_p90"),
    *("device_hours_p10", "device_hours_p50", "device_hours_p90"),
    *("energy_kwh_p50", "assumptions"),
}


def ask(*words: str) -> Any:
    """The JSON that a command answers with."""
    result = CliRunner().invoke(build(MadeUpLauncher("", "", running=False)), [*words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words: str) -> Any:
    """The problem that a command ends with; exit 2."""
    result = CliRunner().invoke(build(MadeUpLauncher("", "", running=False)), [*words, "--json"])
    assert result.exit_code == 2, result.output
    problem = json.loads(result.stderr)
    assert problem["detail"]
    assert problem["remedy"]
    return problem


def test_a_parameter_count_alone_is_enough() -> None:
    found = ask("estimate", "--params", "72e9")
    assert found.keys() >= FIELDS
    assert found["tokens_low"] < found["tokens"] < found["tokens_high"]
    assert isinstance(found["flop_total"], int)


def test_files_and_names_of_one_model_agree(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    weights = tmp_path / "model.gguf"
    weights.write_bytes(gguf_file())
    tokens = ("--tokens", "1e9", "--seq", "8192")
    models = (str(config), str(tmp_path), str(weights), "meta-llama/Meta-Llama-3-8B-Instruct")
    found = [ask("estimate", "--model", each, *tokens)["flop_total"] for each in models]
    assert len(set(found)) == 1


def test_a_safetensors_file(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(header(llama_tensors()) + b"\0" * 100)
    found = ask("estimate", "--model", str(weights), "--tokens", "1M", "--count", "1")
    assert found["params_total"] > 512_000
    assert found["fits"]


def test_a_layout_and_a_device_are_kept_to() -> None:
    words = ("--tokens", "1T", "--device", "H100-SXM5-80GB", "--layout", "tp=8,pp=4,recompute=full")
    found = ask("estimate", "--model", "Llama-3.1-70B", *words, "--count", "64")
    assert (found["layout"]["tp"], found["layout"]["pp"], found["layout"]["dp"]) == (8, 4, 2)
    assert found["device"] == "H100-SXM5-80GB"


@pytest.mark.parametrize(
    "words",
    [
        ("--model", "Llama-3.1-8B", "--finetune", "lora", "--device", "A100", "--count", "1"),
        ("--model", "Llama-3.1-70B", "--kind", "serve", "--device", "H200"),
        ("--model", "DeepSeek-R1", "--kind", "batch", "--requests", "1e6", "--count", "16"),
        ("--model", "vit-l/16", "--images", "1.28M", "--epochs", "300"),
        ("--model", "resnet-50", "--epochs", "90", "--samples", "1281167"),
        ("--params", "235B", "--active", "22B", "--tokens", "36T", "--count", "1024"),
    ],
)
def test_workloads_of_every_kind(words: tuple[str, ...]) -> None:
    found = ask("estimate", *words)
    assert found["device_hours_p10"] <= found["device_hours_p50"] <= found["device_hours_p90"]
    shown = CliRunner().invoke(build(MadeUpLauncher("", "", running=False)), ["estimate", *words])
    assert shown.exit_code == 0
    assert "device-hours" in shown.stdout


def test_resnet_50_in_degrees() -> None:
    found = ask("estimate", "--model", "resnet-50", "--epochs", "90", "--samples", "1281167")
    assert float(found["delivered_degrees"]) == pytest.approx(2.53, rel=0.01)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "missing_value"),
        (("--params", "nan"), "not_finite"),
        (("--params", "1e15"), "out_of_range"),
        (("--params", "7B", "--tokens", "0"), "out_of_range"),
        (("--params", "7B", "--tokens", "-1"), "out_of_range"),
        (("--params", "7B", "--seq", "1.5"), "wrong_value"),
        (("--params", "7B", "--model", "gpt2"), "contradiction"),
        (("--params", "7B", "--count", "0"), "out_of_range"),
        (("--params", "7B", "--device", "H1000"), "unknown_device"),
        (("--params", "7B", "--precision", "fp7"), "unknown_value"),
        (("--model", "nobody/knows"), "unknown_model"),
        (("--model", "no/such/config.json"), "no_such_file"),
        (("--model", "resnet-51"), "unknown_model"),
        (("--model", "resnet-50", "--tokens", "1e9"), "contradiction"),
        (("--model", "gpt2", "--images", "1e9"), "contradiction"),
        (("--params", "7B", "--layout", "tp=0"), "wrong_layout"),
    ],
)
def test_bad_input_says_what_is_wrong(words: tuple[str, ...], code: str) -> None:
    assert refused("estimate", *words)["code"] == code


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("config.json", b"{", "wrong_format"),
        ("config.json", b"[]", "wrong_format"),
        ("config.json", json.dumps({**LLAMA, "hidden_size": None}).encode(), "missing_value"),
        ("config.json", json.dumps({**LLAMA, "hidden_size": float("nan")}).encode(), "not_finite"),
        ("config.json", json.dumps({**LLAMA, "num_key_value_heads": 5}).encode(), "contradiction"),
        ("m.safetensors", header(llama_tensors())[:-9], "truncated_header"),
        ("m.gguf", gguf_file()[:40], "truncated_header"),
        ("m.bin", b"", "wrong_format"),
    ],
)
def test_bad_files_say_what_is_wrong(name: str, content: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refused("estimate", "--model", str(path))["code"] == code


def test_the_catalogue_is_listed_and_filtered() -> None:
    every = ask("catalog")["devices"]
    assert len(every) > 60
    domestic = ask("catalog", "--origin", "domestic", "--min-memory", "64")["devices"]
    assert domestic
    assert all(d["origin"] == "domestic" and d["memory_gb"] >= 64 for d in domestic)
    assert all(d["fp8_tflops"] for d in ask("catalog", "--precision", "fp8")["devices"])
    assert {d["make"] for d in ask("catalog", "--make", "metax")["devices"]} == {"MetaX"}
    assert all(d["conflicts"] for d in ask("catalog", "--conflicts")["devices"])
    unpublished = next(d for d in every if d["name"] == "S60")
    assert unpublished["bf16_tflops"] is unpublished["rating_gflops"] is None
    assert unpublished["quotable"] is False
    assert "not published" in unpublished["reason"]


def test_one_device_shows_the_source_of_every_figure() -> None:
    found = ask("catalog", "show", "h200_sxm")
    assert found["name"] == "H200-SXM-141GB"
    assert all(figure["source"] for figure in found["figures"].values())
    assert refused("catalog", "show", "H100")["code"] == "ambiguous_device"
    shown = CliRunner().invoke(
        build(MadeUpLauncher("", "", running=False)), ["catalog", "--sources", "--conflicts"]
    )
    assert "AIConfigurator" in shown.stdout
    missing = CliRunner().invoke(
        build(MadeUpLauncher("", "", running=False)), ["catalog", "show", "H1000"]
    )
    assert missing.exit_code == 4


def test_card_hours_of_any_card() -> None:
    assert ask("convert", "1", "card-hours:h200_sxm", "degree")["value"] == "3.17115384615"
    assert ask("convert", "312", "PFLOPS", "cards:A100")["value"] == "1000"
    assert refused("convert", "1", "card-hours:H100", "degree")["code"] == "ambiguous_device"
    assert refused("convert", "1", "E", "degree")["code"] == "ambiguous_unit"
