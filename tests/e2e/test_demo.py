"""The main job, for real: what `make demo` runs, checked from outside."""

from __future__ import annotations

import json
import subprocess

import psycopg
from tests.e2e.conftest import COMMAND, Instance

RECEIPT = """
    job_id device count rating_gflops rating_basis meter_basis held_ms held_gflop delivered_gflop
    delivered_source lots charge_fen balance_before_gflop balance_after_gflop isolation result
"""


def test_the_demo_keeps_what_it_promises(instance: Instance) -> None:
    words = [*COMMAND, "demo", "--data", str(instance.data), "--json"]
    done = subprocess.run(
        words, capture_output=True, text=True, env=instance.environment, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    json.loads(done.stdout)
    receipt = json.loads((instance.data / "demo" / "receipt.json").read_text())
    assert set(RECEIPT.split()) <= set(receipt)
    assert receipt["state"] == "succeeded"
    assert receipt["result"]["accuracy"] >= 0.95
    assert receipt["held_gflop"] == receipt["rating_gflops"] * receipt["held_ms"] // 1_000
    # On a machine with much else to do the job passes its quote, and the centre bears the rest.
    paid = receipt["held_gflop"] - receipt["borne_gflop"] - receipt["overrun_gflop"]
    assert paid == sum(lot["gflop"] for lot in receipt["lots"]) > 0
    assert receipt["balance_before_gflop"] - receipt["balance_after_gflop"] == paid
    assert receipt["charge_fen"] > 0
    assert receipt["delivered_source"] == "reported by the job"
    assert list((instance.data / "demo").rglob("model.npz"))
    assert not instance.processes() or instance.run("down").returncode == 0


def test_a_hand_made_change_is_found_by_the_command(instance: Instance) -> None:
    url = instance.up()["database_url"]
    instance.account("acme/lab")
    assert instance.ask("audit")["ok"]
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE ledger_account SET posted_cr = posted_cr + 1 WHERE path = 'acme/lab:wallet'"
        )
    done = instance.run("audit", check=False)
    assert done.returncode == 1
    broken = [check for check in json.loads(done.stdout)["checks"] if not check["ok"]]
    assert any("acme/lab:wallet" in subject for check in broken for subject in check["subjects"])
