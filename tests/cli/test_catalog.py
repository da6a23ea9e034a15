"""An operator's own figures for accelerators: set, seen, used in estimates, and never forgotten."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Command

SOURCE = ("--source", "letter of the maker, 2026-03-01")


def test_figures_set_on_a_platform_count_there_and_keep_their_history(dusuan: Command) -> None:
    assert dusuan.json("catalog", "history")["overrides"] == []
    for value in ("120", "128"):
        found = dusuan.json("catalog", "set", "s60", "bf16", value, *SOURCE)
    assert found["bf16_tflops"] == 128
    assert found["figures"]["bf16_tflops"]["confidence"] == "operator"
    assert "letter of the maker" in found["figures"]["bf16_tflops"]["source"]
    history = dusuan.json("catalog", "history", "S60")["overrides"]
    assert [each["value"] for each in history] == [120, 128]
    assert history[0]["by"].startswith("key_")
    assert history[0]["at"] <= history[1]["at"]
    assert dusuan.json("catalog", "show", "S60")["overrides"] == history
    assert dusuan.json("catalog", "history", "H200-SXM-141GB")["overrides"] == []
    shown = " ".join(dusuan("catalog", "history").stdout.split())
    assert "128" in shown and "2026-03-01T" in shown


def test_what_was_set_is_taken_back_and_the_shipped_figure_counts_again(dusuan: Command) -> None:
    shipped = dusuan.json("catalog", "show", "A100-SXM4-80GB")["tdp_w"]
    assert dusuan.json("catalog", "set", "A100-SXM4-80GB", "tdp", "350", *SOURCE)["tdp_w"] == 350
    back = dusuan.json("catalog", "set", "A100-SXM4-80GB", "tdp", "shipped", *SOURCE)
    assert back["tdp_w"] == shipped
    assert back["figures"]["tdp_w"]["confidence"] == "high"
    assert len(back["overrides"]) == 2


def test_estimates_and_conversions_use_the_figures_of_their_platform(dusuan: Command) -> None:
    work = ("estimate", "--params", "7B", "--tokens", "1T", "--device", "S60", "--count", "64")
    assert dusuan.json(*work)["device_hours_p50"] is None
    assert dusuan.problem("convert", "1", "card-hours:S60", "degree")[1]["code"] == "unpublished"
    dusuan.json("catalog", "set", "S60", "bf16", "156", *SOURCE)
    found = dusuan.json(*work)
    assert found["device_hours_p50"] > 0
    assert any("S60" in note and "bf16_tflops" in note for note in found["assumptions"])
    assert dusuan.json("convert", "1", "card-hours:S60", "degree")["value"] == "0.5"
    dusuan.launcher.running = False
    assert dusuan.json(*work)["device_hours_p50"] is None


def test_a_card_that_is_not_shipped_is_added_by_its_make(dusuan: Command) -> None:
    code, problem = dusuan.problem("catalog", "set", "G100", "bf16", "96", *SOURCE)
    assert (code, problem["code"]) == (4, "unknown_device")
    assert "make" in problem["remedy"]
    added = dusuan.json("catalog", "set", "Lisuan G100", "bf16", "96", *SOURCE, "--make", "Lisuan")
    assert (added["make"], added["origin"], added["quotable"]) == ("Lisuan", "domestic", False)
    for field, value in (("memory", "48"), ("bandwidth", "1200"), ("tdp", "250")):
        added = dusuan.json("catalog", "set", "g100", field, value, *SOURCE)
    assert added["quotable"] and added["rating_gflops"] == 96_000
    assert [each["field"] for each in added["overrides"]][:2] == ["bf16_tflops", "memory_gb"]
    assert len(dusuan.json("catalog", "history", "lisuan g100")["overrides"]) == 4
    listed = dusuan.json("catalog", "--make", "lisuan")["devices"]
    assert [each["name"] for each in listed] == ["Lisuan G100"]
    work = ("estimate", "--params", "7B", "--tokens", "1T", "--device", "G100", "--count", "64")
    assert dusuan.json(*work)["device_hours_p50"] > 0
    assert dusuan.json("convert", "1", "card-hours:G100", "degree")["value"].startswith("0.307")
    taken = dusuan.json("catalog", "set", "G100", "bf16", "shipped", *SOURCE)
    assert (taken["bf16_tflops"], taken["quotable"]) == (None, False)


def test_a_platform_that_does_not_answer_leaves_the_shipped_figures(dusuan: Command) -> None:
    dusuan.launcher.url = "http://127.0.0.1:9"
    assert len(dusuan.json("catalog")["devices"]) > 60
    told = dusuan("catalog", "show", "S60")
    assert told.exit_code == 0
    assert "as shipped" in told.stderr
    assert dusuan.problem("catalog", "history")[1]["code"] == "not_running"


def test_members_see_figures_and_set_none(dusuan: Command) -> None:
    dusuan.centre.organisation("acme")
    dusuan.json("member", "add", "mei", "--account", "acme", "--role", "owner")
    key = dusuan.json("key", "create", "mei", "--org", "acme")["key"]
    dusuan.json("catalog", "set", "S60", "bf16", "120", *SOURCE)
    seen = dusuan.json("catalog", "history", key=key)["overrides"]
    assert [(each["value"], each["by"]) for each in seen] == [(120, "the operator")]
    code, problem = dusuan.problem("catalog", "set", "S60", "bf16", "1", *SOURCE, key=key)
    assert (code, problem["code"]) == (1, "operator_only")


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        (("H1000", "bf16", "1", *SOURCE), 4, "unknown_device"),
        (("H100", "bf16", "1", *SOURCE), 2, "ambiguous_device"),
        (("S60", "colour", "1", *SOURCE), 2, "unknown_field"),
        (("S60", "bf16", "many", *SOURCE), 2, "wrong_value"),
        (("S60", "bf16", "nan", *SOURCE), 2, "not_finite"),
        (("S60", "bf16", "0", *SOURCE), 2, "out_of_range"),
        (("S60", "bf16", "-5", *SOURCE), 2, "out_of_range"),
        (("S60", "bf16", "1e9", *SOURCE), 2, "out_of_range"),
        (("S60", "bf16", "1", "--source", " "), 2, "no_source"),
        (("S60", "bf16", "1", *SOURCE, "--make", "Huawei"), 2, "known_device"),
        (("H100", "bf16", "1", *SOURCE, "--make", "NVIDIA"), 2, "ambiguous_device"),
        (("?!", "bf16", "1", *SOURCE, "--make", "NVIDIA"), 2, "wrong_name"),
        (("G100", "bf16", "1", *SOURCE, "--make", "x" * 61), 2, "wrong_name"),
        (("S60", "bf16", "1", "--source", "x" * 1_001), 2, "too_long"),
    ],
)
def test_what_makes_no_sense_is_refused(
    dusuan: Command, words: tuple[str, ...], exit_code: int, code: str
) -> None:
    found, problem = dusuan.problem("catalog", "set", *words)
    assert (found, problem["code"]) == (exit_code, code)
    assert problem["remedy"]
    body = {"device": words[0], "field": words[1], "value": 1.0, "source": words[4]}
    body |= {"make": words[6]} if "--make" in words else {}
    wrong = ("unknown_device", "ambiguous_device", "unknown_field", "no_source")
    if code in (*wrong, "known_device", "wrong_name"):
        answer = dusuan.centre.operator.post("/v1/catalog/overrides", json=body)
        assert answer.json()["code"] == code
    assert dusuan.json("catalog", "history")["overrides"] == []


def test_the_pool_tells_its_domestic_share(dusuan: Command) -> None:
    assert dusuan.json("pool")["domestic_share"] == 0
    with dusuan.centre.store.transaction() as tx:
        tx._connection.execute("UPDATE device SET make = 'Huawei' WHERE device = 'cpu:1'")
    assert dusuan.json("pool")["domestic_share"] == 0.5
    assert "domestic makes: 50.0%" in dusuan("pool").stdout


def test_quotable_and_not(dusuan: Command) -> None:
    good = dusuan.json("catalog", "--quotable")["devices"]
    bad = dusuan.json("catalog", "--not-quotable")["devices"]
    assert all(d["quotable"] for d in good)
    assert "S60" in {d["name"] for d in bad}
    assert len(good) + len(bad) == len(dusuan.json("catalog")["devices"])
    assert json.dumps(good)
