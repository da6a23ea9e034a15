"""Commands: what they answer as JSON, what they print, and the code each failure ends with."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Command


def write(text: str, name: str = "job.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_a_customer_from_nothing_to_a_wallet(dusuan: Command) -> None:
    assert dusuan.json("org", "create", "acme")["path"] == "acme"
    assert dusuan.json("account", "create", "acme/vision")["path"] == "acme/vision"
    assert [i["path"] for i in dusuan.json("org", "list")["items"]] == ["acme"]
    assert len(dusuan.json("account", "list")["items"]) == 2
    member = dusuan.json("member", "add", "mei", "--account", "acme", "--role", "owner")
    assert member["path"] == "acme:mei"
    assert dusuan.json("member", "list", "--account", "acme")["items"][0]["name"] == "mei"
    key = dusuan.json("key", "create", "mei", "--org", "acme")
    paid = dusuan.json("cash", "add", "--account", "acme/vision", "--fen", "2500")
    assert paid["fen"] == 2500
    buy = ("package", "buy", "demo-pack", "--account", "acme/vision")
    bought = dusuan.json(*buy, key=key["key"])
    assert bought["available_gflop"] == 20_000
    wallet = dusuan.json("wallet", "--account", "acme/vision")
    assert wallet["cash_fen"] == 500
    assert wallet.keys() >= {"account", "available_gflop", "pending_gflop", "cash_fen", "lots"}
    assert dusuan.json("account", "budget", "acme/vision", "--degrees", "1")["budget_gflop"] == (
        1_123_200_000
    )
    assert dusuan.json("account", "budget", "acme/vision", "--none")["budget_gflop"] is None
    assert dusuan.json("key", "revoke", key["id"])["revoked"] is True
    assert dusuan.problem(*buy, key=key["key"])[0] == 1


def test_keys_end_and_are_listed_without_their_secrets(dusuan: Command) -> None:
    dusuan.json("org", "create", "acme")
    dusuan.json("member", "add", "mei", "--account", "acme", "--role", "owner")
    made = dusuan.json("key", "create", "mei", "--org", "acme", "--expires", "30d")
    ends = datetime.fromisoformat(made["expires_at"])
    assert (
        timedelta(0) <= dusuan.centre.clock.now() + timedelta(days=30) - ends < timedelta(minutes=1)
    )
    at = dusuan.json("key", "create", "mei", "--expires", "2099-01-31T00:00:00Z")["expires_at"]
    assert datetime.fromisoformat(at) == datetime(2099, 1, 31, tzinfo=UTC)
    dusuan.json("key", "revoke", made["id"])
    listed = dusuan.json("key", "list", "--org", "acme")
    assert [key["state"] for key in listed["items"]] == ["valid", "revoked"]
    assert made["key"] not in json.dumps(listed)
    shown = dusuan("key", "list", "--org", "acme")
    assert "revoked" in shown.stdout
    assert made["key"] not in shown.stdout


def test_the_centre(dusuan: Command) -> None:
    device = dusuan.json("pool")["devices"][0]
    assert device.keys() >= {"device", "node", "make", "model", "rating_gflops", "rating_basis"}
    assert dusuan.json("calibrate")["devices"][1]["rating_gflops"] == 100
    audit = dusuan.json("audit")
    assert audit["ok"] and audit["checks"][0].keys() >= {"name", "ok", "subjects"}
    assert dusuan.json("package", "list")["packages"][0]["name"] == "demo-pack"
    made = dusuan.json("package", "create", "big", "--degrees", "0.5", "--price-fen", "9")
    assert made["gflop"] == 561_600_000


def test_up_and_down(dusuan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    started = dusuan.json("up", "--detach", "--port", "0", "--data", "there")
    assert started.keys() >= {"url", "pid", "data_dir", "database_url"}
    assert dusuan.launcher.asked == [(Path("there"), 0, None, True)]
    monkeypatch.setenv("DUSUAN_DATA", "elsewhere")
    assert dusuan.json("down")["data_dir"] == "elsewhere"


def test_a_broken_invariant_is_exit_1(dusuan: Command) -> None:
    with dusuan.centre.store.transaction() as tx:
        tx._connection.execute("UPDATE ledger_account SET posted_cr = posted_cr + 1 WHERE id = 1")
    assert dusuan.json("audit", code=1)["ok"] is False
    assert "BROKEN" in dusuan("audit").stdout


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (("1", "degree", "GFLOP"), 0, {"value": "1123200000", "unit": "GFLOP", "exact": True}),
        (("-1", "degree", "GFLOP"), 0, {"value": "-1123200000", "unit": "GFLOP", "exact": True}),
        (("1", "P", "degree"), 2, "ambiguous_unit"),
        (("x", "degree", "FLOP"), 2, "wrong_value"),
        (("1", "PFLOPS", "degree"), 2, "needs_time"),
    ],
)
def test_convert(dusuan: Command, words: tuple[str, ...], code: int, answer: object) -> None:
    dusuan.launcher.running = False  # it needs no platform
    if code == 0:
        assert dusuan.json("convert", *words) == answer
    else:
        exit_code, problem = dusuan.problem("convert", *words)
        assert (exit_code, problem["code"]) == (code, answer)


def test_version(dusuan: Command) -> None:
    dusuan.launcher.running = False
    assert dusuan.json("version")["version"]


def test_a_job_that_succeeds_and_one_that_fails(dusuan: Command) -> None:
    dusuan.centre.organisation("acme", 1)
    done = dusuan.json("submit", write("run: echo hi\n"))
    assert (done["state"], done["attempts"][0]["exit_code"]) == ("succeeded", 0)
    failed = dusuan.json("submit", write("run: exit 3\n"), code=1)
    assert (failed["state"], failed["attempts"][0]["exit_code"]) == ("failed", 3)
    seen = dusuan("submit", write("run: echo hi\n"))
    assert seen.exit_code == 0
    assert "running echo hi" in seen.stdout
    assert "held" in seen.stderr
    words = ("python", "-c", 'print("度 \U0001f600 \x7f")', "--flag")
    ran = dusuan("run", "--json", "--", *words)
    assert json.loads(ran.stdout)["state"] == "succeeded"
    [order] = [r.order for r in dusuan.centre.engine.runs.values() if r.order.argv]
    assert order.argv == words
    jobs = dusuan.json("jobs")
    assert len(jobs["jobs"]) == 4
    job_id = done["job_id"]
    assert dusuan.json("job", job_id)["job_id"] == job_id
    assert dusuan.json("why", job_id)["code"] == "succeeded"
    receipt = dusuan.json("receipt", job_id)
    assert receipt["held_gflop"] == 60
    assert dusuan.json("logs", job_id)["attempts"] == [{"attempt": 1, "text": "running echo hi\n"}]
    assert dusuan("logs", job_id).stdout == "running echo hi\n"
    assert dusuan("logs", job_id, "-f").stdout == "running echo hi\n"
    lines = [json.loads(x) for x in dusuan("logs", job_id, "-f", "--json").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["log", "end"]
    fetched = dusuan.json("outputs", job_id, "--download", "got")
    assert fetched["files"][0]["path"] == "model/weights.bin"
    assert Path("got/model/weights.bin").read_bytes() == b"weights"


def test_detached_and_cancelled(dusuan: Command) -> None:
    dusuan.centre.organisation("acme", 1)
    job = dusuan.json("submit", "--detach", write("run: hang\n"))
    assert job["state"] in ("queued", "starting", "running")
    assert job.keys() >= {"job_id", "state", "stop_reason", "attempts", "waiting"}
    assert dusuan.json("cancel", job["job_id"])["job_id"] == job["job_id"]
    assert dusuan("logs", job["job_id"], "-f").exit_code == 0
    assert dusuan.json("job", job["job_id"])["state"] == "cancelled"


def test_a_quote_and_its_confirmation(dusuan: Command) -> None:
    dusuan.centre.organisation("acme", 1)
    job = write("run: python train.py\nworkload: {steps: 400}\n")
    quote = dusuan.json("quote", job)
    assert quote["plans"][0].keys() >= {"plan_id", "device", "count", "held_degrees_p50"}
    assert "→ cpu-x1-standard" in dusuan("quote", job).stdout
    code, problem = dusuan.problem("submit", job)
    assert (code, problem["code"]) == (2, "not_confirmed")
    assert dusuan.json("submit", "--yes", job)["plan_id"] == "cpu-x1-standard"
    assert dusuan.json("submit", "--yes", "--plan", "cpu-x2-standard", job)["count"] == 2
    assert dusuan.problem("submit", "--yes", "--plan", "gpu-x9", job)[0] == 4
    assert dusuan.json("submit", "--no-quote", job)["quote_id"] is None


@pytest.mark.parametrize(
    ("goal", "code"), [("deadline: 1ms", 1), ("deadline: 0.1s", 1), ("budget: 1", 3)]
)
def test_a_goal_that_no_plan_meets(dusuan: Command, goal: str, code: int) -> None:
    dusuan.centre.organisation("acme", 1)
    job = write(f"run: python train.py\nworkload: {{steps: 4e9}}\ngoal: {{{goal}}}\n")
    result = dusuan("submit", "--yes", job)
    assert result.exit_code in (code, 2), result.output
    assert "next:" in result.stderr


def test_not_enough_is_exit_3(dusuan: Command) -> None:
    dusuan.centre.organisation("acme")
    owner = dusuan.centre.person_key("acme", "one", "owner")
    code, problem = dusuan.problem("submit", write("run: a\n"), key=owner)
    assert (code, problem["code"], problem["status"]) == (3, "balance_too_small", 402)
    assert dusuan.problem("package", "buy", "demo-pack", key=owner)[0] == 3


@pytest.mark.parametrize(
    "words",
    [
        ("job", "job_none"),
        ("why", "job_none"),
        ("receipt", "job_none"),
        ("logs", "job_none"),
        ("logs", "-f", "job_none"),
        ("outputs", "job_none"),
        ("cancel", "job_none"),
        ("key", "revoke", "../jobs"),
        ("wallet", "--account", "none"),
        ("package", "buy", "none", "--account", "acme"),
        ("submit", "job.yaml", "--account", "none"),
        ("job", "../../healthz"),
    ],
)
def test_not_found_is_exit_4(dusuan: Command, words: tuple[str, ...]) -> None:
    dusuan.centre.organisation("acme", 1)
    write("run: a\n")
    code, problem = dusuan.problem(*words)
    assert (code, problem["status"]) == (4, 404)
    told = dusuan(*words)
    assert told.exit_code == 4
    assert told.stderr.startswith("Error: ")
    assert "Traceback" not in told.output


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("account", "budget", "acme"), "which_budget"),
        (("account", "budget", "acme", "--degrees", "many"), "bad_degrees"),
        (("account", "budget", "acme", "--degrees", "1e30"), "bad_degrees"),
        (("account", "budget", "acme", "--degrees", "nan"), "bad_degrees"),
        (("package", "create", "p", "--price-fen", "1"), "how_much"),
        (("member", "add", "mei", "--account", "acme", "--role", "king"), "invalid_request"),
        (("key", "create", "mei", "--org", "acme", "--expires", "soon"), "bad_expiry"),
        (("org", "create", "No Name"), "bad_name"),
        (("jobs", "--state", "odd"), "invalid_request"),
    ],
)
def test_bad_usage_is_exit_2(dusuan: Command, words: tuple[str, ...], code: str) -> None:
    dusuan.centre.organisation("acme")
    exit_code, problem = dusuan.problem(*words)
    assert (exit_code, problem["code"]) == (2, code)


@pytest.mark.parametrize("words", [("nothing",), ("jobs", "--limit", "0"), ("job",), ("run",)])
def test_a_command_line_that_is_none(dusuan: Command, words: tuple[str, ...]) -> None:
    assert dusuan(*words).exit_code == 2


def test_which_account(dusuan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dusuan.problem("wallet")[1]["code"] == "which_account"
    dusuan.centre.organisation("acme")
    assert dusuan.json("wallet")["account"] == "acme"
    dusuan.json("account", "create", "acme/vision")
    code, problem = dusuan.problem("wallet")
    assert (code, problem["code"]) == (2, "which_account")
    assert "acme, acme/vision" in problem["detail"]
    dusuan.json("package", "buy", "demo-pack", "--account", "acme/vision")
    dusuan.json("account", "create", "acme/vision/pooled", "--pooled")
    assert dusuan.json("wallet")["account"] == "acme/vision"
    monkeypatch.setenv("DUSUAN_ACCOUNT", "acme")
    assert dusuan.json("wallet")["account"] == "acme"
    assert dusuan.json("wallet", "--account", "acme/vision")["account"] == "acme/vision"


def test_no_platform(dusuan: Command) -> None:
    dusuan.launcher.url = "http://127.0.0.1:9"
    code, problem = dusuan.problem("pool")
    assert (code, problem["code"]) == (1, "not_running")
    assert "dusuan up" in problem["remedy"]
    for url in ("nonsense", "http://[", "ftp://example.org"):
        dusuan.launcher.url = url
        assert dusuan.problem("pool")[1]["code"] == "bad_address"
    dusuan.launcher.running = False
    assert dusuan.problem("pool")[0] == 1


def test_an_address_that_is_no_dusuan(dusuan: Command) -> None:
    dusuan.launcher.url = f"{dusuan.centre.url}/v1/packages?"
    result = dusuan("pool")
    assert result.exit_code in (1, 4)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("key", ["dk_unknown", "dk_sec\nret", "dk_sec ret", "度"])
def test_a_bad_key(dusuan: Command, key: str) -> None:
    result = dusuan("pool", key=key)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert "sec" not in result.output
    assert result.stderr.startswith("Error: ")
