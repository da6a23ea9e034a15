"""Starting, stopping and losing a whole platform of real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.e2e.conftest import COMMAND, Instance, wait_for

SLEEPER = "name: sleeper\nrun: |\n  echo begun\n  sleep {seconds}\n  echo done\n"
COUNTER = """\
name: counter
checkpoint: {signal: SIGTERM, grace: 2s}
run: |
  n=$(cat "$DUSUAN_CHECKPOINT_DIR/n" 2>/dev/null || echo 0)
  echo "from $n"
  trap 'echo "$n" > "$DUSUAN_CHECKPOINT_DIR/n"; echo "saved $n"; exit 75' TERM
  while [ "$n" -lt 110 ]; do sleep 0.1; n=$((n+1)); done
  echo finished
"""


ONCE_MORE = """\
name: once-more
checkpoint: {signal: SIGTERM, grace: 1s}
run: |
  if [ -e "$DUSUAN_CHECKPOINT_DIR/begun" ]; then echo again; exit 0; fi
  touch "$DUSUAN_CHECKPOINT_DIR/begun"
  sleep 60
"""


def problem(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    return dict(json.loads(done.stderr))


def test_up_answers_says_so_when_asked_twice_and_goes_down(instance: Instance) -> None:
    status = instance.up()
    assert set(status) >= {"url", "pid", "data_dir", "database_url"}
    assert httpx.get(f"{status['url']}/healthz").status_code == 200
    assert httpx.get(f"{status['url']}/openapi.json").status_code == 401
    key_file = instance.data / "operator.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    key = {"Authorization": f"Bearer {key_file.read_text().strip()}"}
    assert (
        httpx.get(f"{status['url']}/openapi.json", headers=key).json()["openapi"].startswith("3.1")
    )
    again = instance.run("up", "--port", "0", "--detach", check=False)
    assert again.returncode == 1
    assert problem(again)["code"] == "already_running"
    assert status["url"] in str(problem(again)["detail"])
    instance.down()
    wait_for(lambda: not instance.processes(), "its processes to end")
    assert instance.run("jobs", check=False).returncode == 1
    instance.down()  # nothing to stop is no error


def test_the_pool_is_measured_at_the_first_start(instance: Instance) -> None:
    instance.up()
    devices = instance.ask("pool")["devices"]
    assert len(devices) == len(os.sched_getaffinity(0))
    for device in devices:
        assert device["rating_gflops"] > 1
        assert device["rating_basis"] == "calibrated"
        assert device["state"] == "ready"
        assert device["spread"] >= 0
        assert device["measured_at"]
    measured_at = [d["measured_at"] for d in devices]
    again = instance.ask("calibrate")["devices"]
    assert all(new["measured_at"] > old for new, old in zip(again, measured_at, strict=True))


def test_a_port_in_use_is_a_clear_error(instance: Instance) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = instance.run("up", "--port", port, "--detach", check=False)
    assert done.returncode == 1
    assert problem(done)["code"] == "port_in_use"
    assert "--port" in str(problem(done)["remedy"])
    instance.up()  # nothing was left behind that would hinder the next try


def test_a_data_directory_of_a_newer_version_is_left_alone(instance: Instance) -> None:
    instance.data.mkdir()
    (instance.data / "VERSION").write_text("99\n")
    done = instance.run("up", "--port", "0", "--detach", check=False)
    assert done.returncode == 1
    assert problem(done)["code"] == "data_dir_newer"
    assert [f.name for f in instance.data.iterdir()] == ["VERSION"]


def test_a_database_of_a_newer_version_is_left_alone(instance: Instance) -> None:
    url = instance.up()["database_url"]
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    instance.down()
    done = instance.run("up", "--port", "0", "--detach", check=False)
    assert done.returncode == 1
    assert problem(done)["code"] == "data_dir_newer"
    wait_for(lambda: not instance.processes(), "the database server to be stopped again")


def test_a_read_only_data_directory_is_a_clear_error(instance: Instance, tmp_path: Path) -> None:
    words = [*COMMAND, "up", "--data", str(instance.data), "--json", "--port", "0", "--detach"]
    instance.data.mkdir()
    if os.getuid() == 0:  # whom no mode stops
        mount = f'mount -t tmpfs -o ro tmpfs {instance.data} && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", mount, "sh", *words]
    else:
        instance.data.chmod(0o555)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine lets nobody mount: " + done.stderr.strip())
    assert done.returncode == 1
    assert problem(done)["code"] == "data_dir_unusable"
    assert str(instance.data) in str(problem(done)["detail"])


def test_a_database_that_does_not_answer_is_a_clear_error(instance: Instance) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    done = instance.run("up", "--port", "0", "--detach", "--database", url, check=False)
    assert done.returncode == 1
    assert problem(done)["code"] == "database_unreachable"


def test_another_database_server_can_be_used(instance: Instance, database_url: str) -> None:
    status = instance.up("--database", database_url)
    assert not (instance.data / "postgres").exists()
    assert status["database_url"] == database_url
    assert instance.ask("audit")["ok"]


def test_a_databases_password_is_shown_nowhere(instance: Instance, database_url: str) -> None:
    """Not in answers, files, logs, nor where everyone may look: the arguments of processes."""
    more = "&" if "?" in database_url else "?"
    status = instance.up("--database", f"{database_url}{more}password=hunter2")
    assert status["database_url"] == database_url
    assert instance.ask("audit")["ok"]
    kept = [path for path in instance.data.rglob("*") if path.is_file()]
    assert len(kept) >= 3
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]
    key = (instance.data / "operator.key").read_bytes().strip()
    holders = {path.name for path in kept if key in path.read_bytes()}
    assert holders == {"operator.key"}
    assert (instance.data / "operator.key").stat().st_mode & 0o077 == 0
    shown = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            shown.append((process / "cmdline").read_bytes())
    assert any(b"dusuan" in argv and b"up" in argv for argv in shown)
    assert not [argv for argv in shown if b"hunter2" in argv or key in argv]


def test_kill_9_of_the_service_in_the_middle_of_a_job(instance: Instance, tmp_path: Path) -> None:
    instance.up()
    path = instance.account("acme/lab")
    job_id = instance.submit(path, SLEEPER.format(seconds=9), tmp_path)
    attempt = instance.wait_state(job_id, "running")["attempts"][0]["attempt_id"]
    time.sleep(1.5)
    os.kill(instance.service_pid(), signal.SIGKILL)
    before = instance.journal_held_ms(attempt)
    wait_for(
        lambda: instance.journal_held_ms(attempt) > before + 1_500, "the job to go on by itself"
    )
    started = time.monotonic()
    instance.up()
    assert time.monotonic() - started < 15
    job = instance.wait_state(job_id, "succeeded")
    receipt = instance.ask("receipt", job_id)
    assert len(job["attempts"]) == 1
    assert receipt["held_ms"] == instance.journal_held_ms(attempt)
    assert 9_000 <= receipt["held_ms"] <= 11_000
    assert receipt["held_gflop"] == receipt["rating_gflops"] * receipt["held_ms"] // 1_000
    assert receipt["overrun_gflop"] == 0
    assert instance.ask("audit")["ok"]


def test_kill_9_of_everything_and_up_again(instance: Instance, tmp_path: Path) -> None:
    instance.up()
    path = instance.account("acme/lab")
    plain = instance.submit(path, SLEEPER.format(seconds=60), tmp_path)
    saved = instance.submit(path, ONCE_MORE, tmp_path)
    attempts = [
        instance.wait_state(job, "running")["attempts"][0]["attempt_id"] for job in (plain, saved)
    ]
    time.sleep(1.5)
    instance.kill_everything()
    seen = [instance.journal_held_ms(attempt) for attempt in attempts]
    instance.up()
    lost = instance.wait_state(plain, "failed")
    assert lost["stop_reason"] == "lost"
    assert instance.ask("receipt", plain)["held_ms"] == seen[0]
    done = instance.wait_state(saved, "succeeded")
    assert [a["end_reason"] for a in done["attempts"]] == ["lost", "exit"]
    assert instance.ask("audit")["ok"]


def test_a_balance_is_spent_to_its_end_by_a_real_job(instance: Instance, tmp_path: Path) -> None:
    instance.up()
    rating = min(d["rating_gflops"] for d in instance.ask("pool")["devices"])
    gflop = str(9 * rating)
    instance.run("package", "create", "nine-seconds", "--gflop", gflop, "--price-fen", "9")
    instance.run("org", "create", "acme")
    instance.run("package", "buy", "nine-seconds", "--account", "acme")
    stubborn = "name: s\nrun: |\n  trap '' TERM\n  while true; do sleep 0.1; done\n"
    job_id = instance.submit("acme", stubborn, tmp_path)
    job = instance.wait_state(job_id, "failed")
    receipt, wallet = instance.ask("receipt", job_id), instance.ask("wallet", "--account", "acme")
    assert job["stop_reason"] == "balance"
    assert receipt["overrun_gflop"] == 0
    assert 0 <= wallet["balance_gflop"] < rating  # the kill comes a moment before the ceiling
    assert wallet["balance_gflop"] == 9 * rating - receipt["held_gflop"]
    assert wallet["pending_gflop"] == 0
    assert instance.ask("audit")["ok"]


def test_a_job_stopped_by_its_balance_goes_on_after_a_top_up(
    instance: Instance, tmp_path: Path
) -> None:
    instance.up()
    rating = max(d["rating_gflops"] for d in instance.ask("pool")["devices"])
    gflop = str(8 * rating)
    instance.run("package", "create", "little", "--gflop", gflop, "--price-fen", "100")
    instance.run("org", "create", "acme")
    instance.run("package", "buy", "little", "--account", "acme")
    job_id = instance.submit("acme", COUNTER, tmp_path)
    wait_for(
        lambda: (instance.job(job_id)["waiting"] or {}).get("code") == "balance",
        "the job to be stopped by its balance",
    )
    assert instance.ask("why", job_id)["code"] == "balance"
    instance.run("package", "buy", "demo-pack", "--account", "acme")
    job = instance.wait_state(job_id, "succeeded")
    assert [a["end_reason"] for a in job["attempts"]] == ["lease", "exit"]
    log = instance.run("logs", job_id).stdout
    assert "from 0" in log
    assert "saved" in log
    assert "finished" in log
    assert "from 0" not in log.partition("saved")[2]
    assert instance.ask("receipt", job_id)["overrun_gflop"] == 0
    assert instance.ask("audit")["ok"]


def test_the_database_server_is_started_again_when_it_dies(
    instance: Instance, tmp_path: Path
) -> None:
    instance.up()
    path = instance.account("acme/lab")
    job_id = instance.submit(path, SLEEPER.format(seconds=6), tmp_path)
    instance.wait_state(job_id, "running")
    servers = [
        p for p in instance.processes() if b"postgres" in Path(f"/proc/{p}/comm").read_bytes()
    ]
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: instance.run("jobs", check=False).returncode == 0, "the API to work again")
    assert instance.wait_state(job_id, "succeeded")["stop_reason"] == "exit"
    assert instance.ask("audit")["ok"]


def test_a_local_key_is_not_sent_to_another_platform(instance: Instance) -> None:
    instance.up()
    environment = {**instance.environment, "DUSUAN_URL": "http://127.0.0.1:9"}
    words = [*COMMAND, "jobs", "--data", str(instance.data), "--json"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert problem(done)["code"] == "no_key"
