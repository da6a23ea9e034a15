"""Described workloads: sized at once, on the pool's devices and on what the centre could have."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from tests.app.conftest import Desk

from dusuan.app import jobs, overrides, pool, quotes
from dusuan.app.context import Refused
from dusuan.engines.base import Device
from dusuan.sim.engine import Behaviour

A100 = "A100-SXM4-80GB"
FINETUNE = {
    "kind": "finetune",
    "model": "qwen2.5-7b",
    "method": "lora",
    "samples": 2_000,
    "seq_len": 1_024,
    "batch": 16,
}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2_048,
    "intermediate_size": 5_632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "max_position_embeddings": 2_048,
}


@pytest.fixture
def centre(desk: Desk) -> Desk:
    """A pool of eight A100 and one T4 beside two cores that have measured nothing of the kind."""
    cards = [Device(f"gpu:{i}", "g1", "NVIDIA", A100, "gpu", i, 81_920) for i in range(8)]
    cards.append(Device("gpu:8", "g2", "NVIDIA", "T4", "gpu", 8, 16_384))
    desk.world.devices.update({d.device: d for d in cards})
    with desk.platform.store.transaction() as tx:
        pool.record_inventory(desk.platform, tx, list(desk.world.devices.values()))
        rated = [pool.Measured(d.device, 250_000, "bf16") for d in cards]
        pool.record_ratings(desk.platform, tx, rated)
    desk.account(gflop=10**13, fen=10**9)
    return desk


def quote(desk: Desk, workload: dict[str, Any], **keys: Any) -> dict[str, Any]:
    options = {k: keys.pop(k) for k in ("what_if", "upload_id") if k in keys}
    document = {"name": "tune", "argv": ["work"], "workload": workload, **keys}
    return dict(desk.call(quotes.create, "acme", json.dumps(document), **options))


def problem(desk: Desk, workload: dict[str, Any], **keys: Any) -> Any:
    with pytest.raises(Refused) as refused:
        quote(desk, workload, **keys)
    return refused.value.problem


def test_a_described_job_is_sized_at_once_without_a_probe(centre: Desk) -> None:
    found = quote(centre, FINETUNE)
    assert found["state"] == "ready"
    assert centre.sql("SELECT count(*) FROM job")[0][0] == 0
    plans = [p for p in found["plans"] if p["device"] == A100]
    assert {p["count"] for p in plans} <= {1, 2, 4, 8}
    for plan in plans:
        assert plan.keys() >= {"held_degrees_p50", "price_fen_p50", "price_fen_max", "layout"}
        assert (plan["basis"], plan["binding"], plan["work"]) == ("estimated", True, 125.0)
        assert plan["energy_kwh"] > 0
        assert plan["co2_kg"] is None
        assert plan["rating_gflops"] == 250_000
    excluded = {e["device"]: e["reason"] for e in found["excluded"]}
    assert "calibrate --class train_step" in excluded["Core"]
    assert "memory" in excluded["T4"] or "cost no less" in excluded["T4"]
    assert any("carbon is not known" in note for note in found["notes"])
    assert found["chosen"] is not None


def test_an_estimate_binds_like_a_measurement(centre: Desk) -> None:
    found = quote(centre, FINETUNE)
    (plan,) = [p for p in found["plans"] if p["plan_id"] == found["chosen"]]
    job = str(centre.call(jobs.submit_plan, found["quote_id"], None)["job_id"])
    seconds = plan["finish_p90_s"] * 1.5
    centre.behaviours[job] = Behaviour(
        run_ms=round(seconds * 1_000), steps_per_s=125 / seconds, steps=125.0
    )
    every_ms = 10_000  # ticks of journals bound how coarse it may be: leases are hours
    centre.run(seconds + 20, every_ms=every_ms)
    receipt = centre.receipt(job)
    assert centre.state(job) == "succeeded"
    assert receipt["charged_gflop"] == plan["billed_gflop_max"]
    assert receipt["quote"]["basis"] == "estimated"
    assert receipt["borne_gflop"] == receipt["held_gflop"] - plan["billed_gflop_max"] > 0
    centre.assert_clean()


def test_what_if_shows_cards_that_the_pool_does_not_have(centre: Desk) -> None:
    found = quote(centre, FINETUNE, what_if=True)
    elsewhere = [p for p in found["plans"] if not p["in_pool"]]
    assert elsewhere
    assert not any(p["binding"] for p in elsewhere)
    assert found["chosen"] in {p["plan_id"] for p in found["plans"] if p["in_pool"]}
    assert len(found["plans"]) + len(found["excluded"]) > 60
    with pytest.raises(Refused) as refused:
        centre.call(jobs.submit_plan, found["quote_id"], elsewhere[0]["plan_id"])
    assert refused.value.problem.code == "not_in_pool"
    domestic = quote(centre, FINETUNE, what_if=True, resources={"origin": "domestic"})
    assert domestic["chosen"] is None
    assert {p["in_pool"] for p in domestic["plans"]} == {False}
    reasons = {e["device"]: e["reason"] for e in domestic["excluded"]}
    assert reasons[A100].startswith("origin: ")


def test_a_quote_uses_the_figures_that_the_operator_has_set(centre: Desk) -> None:
    before = quote(centre, FINETUNE, what_if=True)
    assert "not published" in {e["device"]: e["reason"] for e in before["excluded"]}["S60"]
    centre.call(overrides.change, "S60", "bf16", 400.0, "GEMM sweep")
    after = quote(centre, FINETUNE, what_if=True)
    assert "S60" in {p["device"] for p in after["plans"]}


def test_a_model_that_fits_nowhere_says_so_for_each_device(centre: Desk) -> None:
    whole = {"kind": "train", "model": "llama-3-70b", "tokens": "1B", "seq_len": 4_096}
    found = quote(centre, whole)
    assert (found["state"], found["plans"]) == ("failed", [])
    assert found["problem"]["code"] == "fits_nowhere"
    assert f"{A100}: memory: " in found["problem"]["text"]


def test_a_config_in_the_workdir_is_read(centre: Desk) -> None:
    upload = archive(centre, {"model/config.json": json.dumps(CONFIG).encode()})
    described = {**FINETUNE, "model": "model/config.json"}
    assert quote(centre, described, upload_id=upload, workdir=".")["state"] == "ready"
    for files, wrong in (
        ({"model/config.json": b"{"}, "not JSON"),
        ({"model/config.json": b"[]"}, "no keys"),
        ({"model/config.json": b'{"model_type": "llama"}'}, "hidden_size"),
        ({"other": b""}, "no file"),
    ):
        upload = archive(centre, files)
        assert wrong in problem(centre, described, upload_id=upload, workdir=".").text
    assert "no workdir" in problem(centre, described).text


def archive(desk: Desk, files: dict[str, bytes]) -> str:
    """An upload that holds `files`."""
    upload_id = desk.platform.new_id("upl")
    with tarfile.open(desk.platform.uploads / f"{upload_id}.tar.gz", "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    desk.sql(f"INSERT INTO upload VALUES ('{upload_id}', NULL, 'x', 1, now())")
    return str(upload_id)


@pytest.mark.parametrize(
    ("workload", "code", "word"),
    [
        ({**FINETUNE, "model": "no-such-model-at-all"}, None, "no-such-model-at-all"),
        ({**FINETUNE, "params": "70B"}, "contradiction", "parameters"),
        ({"kind": "train", "params": "1e15", "tokens": "1B"}, "out_of_range", "parameters"),
        ({"kind": "train", "params": "7B"}, "amount_missing", "how much"),
        ({"kind": "train", "tokens": "1B"}, "model_missing", "no model"),
        ({"kind": "train", "params": "7B", "tokens": 0}, "out_of_range", "above zero"),
        ({"kind": "train", "params": "7B", "tokens": -5}, "out_of_range", "above zero"),
        ({"kind": "train", "params": ".nan", "tokens": "1B"}, None, "nan"),
        ({"params": "7B", "tokens": "1B"}, "kind_missing", "kind"),
        ({"kind": "train", "params": "7B", "images": 5}, "out_of_place", "images"),
        ({"kind": "train", "params": "7B", "tokens": "1B", "steps": 10, "batch": 8,
          "seq_len": 1024}, "contradiction", "tokens"),
        ({"kind": "train", "modle": "x"}, "unknown_key", "modle"),
        ({"kind": "vision", "model": "llama-3-8b", "images": 5}, "contradiction", "images"),
    ],
)  # fmt: skip
def test_a_bad_description_says_what_is_wrong(
    centre: Desk, workload: dict[str, Any], code: str | None, word: str
) -> None:
    said = problem(centre, workload)
    assert code in (None, said.code), said
    assert word in said.text
    assert said.remedy or said.line


def test_a_vision_model_and_serving_are_sized(centre: Desk) -> None:
    seen = quote(centre, {"kind": "vision", "model": "resnet-50", "images": 100_000, "batch": 256})
    assert seen["plans"]
    served = {"kind": "batch", "model": "qwen2.5-7b", "samples": 1_000, "output_tokens": 100}
    assert quote(centre, served)["plans"]
    bare = quote(centre, {"kind": "finetune", "params": "1.5B", "method": "qlora", "samples": 100,
                          "seq_len": 512, "batch": 8})  # fmt: skip
    assert len([note for note in bare["notes"] if note.startswith("assumed: ")]) > 1
