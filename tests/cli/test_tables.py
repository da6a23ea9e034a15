"""`estimate batch | mfu | serving`: every row comes back, with an answer or with what is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import Result
from tests.cli.conftest import MadeUpLauncher
from typer.testing import CliRunner

from dusuan.cli import build

RUNS = """model,kind,params_total_b,params_active_b,tokens_b,seq_len,hardware,hw_variant,n_devices
Llama-2-7B,dense,6.74,6.74,2000,4096,A100,SXM4-80,
Nobody-9B,,9,,100,,H100,,64
x,dense,,,,,,,
"a,b",dense,7,7,NaN,2048,S60,,8
"""
STEPS = "Model,GPU,NumParams\n7b,h100_80gb,6658859008\n7b,abacus,\n"
SERVING = """backend,model_path,system,precision,mode,isl,osl,batch_size,tp_size
vllm,Qwen/Qwen3-32B,h100_sxm,fp8,agg,1024,1024,16,2
,Qwen/Qwen3-32B,h100_sxm,,,,,,
vllm,nobody/knows,h100_sxm,fp8,agg,1024,1024,16,2
"""


def dusuan(*words: str) -> Result:
    return CliRunner().invoke(build(MadeUpLauncher("", "")), ["estimate", *words])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_runs_get_the_columns_of_an_estimate(tmp_path: Path) -> None:
    source, target = tmp_path / "runs.csv", tmp_path / "out.csv"
    source.write_text(RUNS, "utf-8")
    result = dusuan("batch", str(source), "-o", str(target), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["rows"], told["answered"]) == (4, 2)
    assert told["errors"] == {"no_hardware": 1, "unpublished": 1}
    made = rows(target)
    assert [r["model"] for r in made] == ["Llama-2-7B", "Nobody-9B", "x", "a,b"]
    first = made[0]
    hours = [float(first[f"device_hours_{p}"]) for p in ("p10", "p50", "p90")]
    assert 100_000 < hours[0] < hours[1] < hours[2] < 400_000
    assert float(first["held_degrees_p50"]) == pytest.approx(hours[1], rel=1e-4)  # of an A100
    assert float(first["delivered_degrees"]) < float(first["held_degrees_p10"])
    assert first["fits"] == "true"
    assert 1 < float(first["memory_gib_per_device"]) <= 80
    assert float(first["energy_kwh_p50"]) > hours[1] * 0.4
    assert "devices are assumed" in first["assumptions"]
    assert made[2]["device_hours_p50"] == ""
    assert "hardware is blank" in made[2]["error"]


def test_carbon_follows_the_grid_and_the_hall(tmp_path: Path) -> None:
    source, target = tmp_path / "runs.csv", tmp_path / "out.csv"
    source.write_text(RUNS, "utf-8")

    def emitted(*options: str) -> float:
        assert dusuan("batch", str(source), "-o", str(target), *options).exit_code == 0
        row = rows(target)[0]
        return float(row["co2_kg_p50"]) / float(row["energy_kwh_p50"])

    assert emitted() == pytest.approx(1.2 * 0.5306, rel=1e-4)
    assert emitted("--grid", "贵州", "--pue", "1.1") == pytest.approx(1.1 * 0.5683, rel=1e-4)
    for options in (("--grid", "Atlantis"), ("--pue", "0.4")):
        refused = dusuan("batch", str(source), "--json", *options)
        assert refused.exit_code == 2
        assert json.loads(refused.stderr)["remedy"]


def test_steps_and_serving_rows(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("\ufeff" + STEPS, "utf-8")
    assert dusuan("mfu", str(source), "-o", str(target)).exit_code == 0
    made = rows(target)
    assert 0.2 < float(made[0]["mfu_p50"]) < 0.6
    assert made[1]["mfu_p50"] == ""
    assert made[1]["error"].startswith("unknown_device")
    source.write_text(SERVING, "utf-8")
    result = dusuan("serving", str(source), "--json")
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)["table"]
    assert 5 < float(table[0]["tpot_ms"]) < 30
    assert 20 < float(table[0]["ttft_ms"]) < 1_000
    assert float(table[1]["tpot_ms"]) > 0
    assert "assumed" in table[1]["assumptions"]
    assert table[2]["error"].startswith("unknown_model")


def test_without_a_target_the_table_is_printed(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(STEPS, "utf-8")
    result = dusuan("mfu", str(source))
    assert result.exit_code == 0
    assert next(csv.DictReader(result.stdout.splitlines()))["mfu_p50"]


@pytest.mark.parametrize(
    ("text", "code"),
    [(None, "no_such_file"), (b"\xff\xfe\x00", "unreadable"), (b"a,b\n1,2\n", "missing_column")],
)
def test_a_file_that_is_no_such_table_is_refused(
    tmp_path: Path, text: bytes | None, code: str
) -> None:
    source = tmp_path / "in.csv"
    if text is not None:
        source.write_bytes(text)
    result = dusuan("mfu", str(source), "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["code"] == code


def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(STEPS, "utf-8")
    result = dusuan("mfu", str(source), "-o", str(tmp_path / "no" / "out.csv"), "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["code"] == "unwritable"
