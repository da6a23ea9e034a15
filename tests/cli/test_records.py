"""The log of a live service on the command line: as a file, and decided again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Command

from dusuan.app import exporting


def lived(dusuan: Command) -> None:
    """Three jobs come and go."""
    dusuan.centre.organisation("acme", 1)
    for n in range(3):
        Path("job.yaml").write_text(f"run: echo {n}\nwall_time: 5m\n")
        assert dusuan("submit", "--yes", "--no-quote", "job.yaml").exit_code == 0


def test_a_recorded_day_replays_from_a_file_plain_or_packed(dusuan: Command) -> None:
    lived(dusuan)
    for name in ("day.jsonl", "day.jsonl.gz"):
        made = dusuan.json("sim", "record", "--out", name)
        assert made["rounds"] >= 3
        found = dusuan.json("sim", "replay", name)
        assert found["same"] is True
        assert found["difference"] is None
        assert found["starts"] == found["decisions"] == 3
        assert found["policy"] == found["recorded_policy"] == "centre"
    packed = gzip.decompress(Path("day.jsonl.gz").read_bytes()).decode()
    ours, theirs = Path("day.jsonl").read_text().splitlines(), packed.splitlines()
    assert ours[1:] == theirs[1:]  # the header has the moment
    assert "acme" not in packed
    shown = dusuan("sim", "replay", "day.jsonl")
    assert "decisions" in shown.stdout


@pytest.mark.timeout(600)  # the first run compiles the simulator
def test_a_recorded_day_is_a_trace_of_its_own_cluster(dusuan: Command) -> None:
    lived(dusuan)
    dusuan.json("sim", "record", "--out", "day.jsonl")
    for policy in ("dusuan", "fcfs"):
        run = ("sim", "run", "--format", "journal", "--jobs", "day.jsonl", "--policy", policy)
        found = dusuan.json(*run)
        assert (found["jobs"], found["jobs_rejected"], found["decisions"]) == (3, 0, 3)
        assert found["allocation"] == 1.0  # all three on the one device of the record
        assert [each["jobs"] for each in found["accounts"]] == [3]


def test_a_difference_is_told_in_words_and_by_the_exit_status(dusuan: Command) -> None:
    lived(dusuan)
    dusuan.json("sim", "record", "--out", "day.jsonl")
    lines = [json.loads(line) for line in Path("day.jsonl").read_text().splitlines()]
    changed = next(line for line in lines if line.get("moves", {}).get("starts"))
    start = changed["moves"]["starts"][0]
    start["devices"], job = ["elsewhere:0"], start["job_id"]
    Path("other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = dusuan.json("sim", "replay", "other.jsonl", code=1)
    assert found["same"] is False
    assert found["difference"]["job"] == job
    assert found["difference"]["replayed"].startswith("starts on")
    told = dusuan("sim", "replay", "other.jsonl")
    assert told.exit_code == 1
    assert "first difference: round" in told.stdout
    another = dusuan("sim", "replay", "day.jsonl", "--policy", "fcfs")
    assert another.exit_code == 0
    assert "sim run --format journal" in " ".join(another.stdout.split())


def test_what_cannot_be_done_says_why(dusuan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("empty").write_text("")
    assert dusuan.problem("sim", "replay", "empty")[1]["code"] == "empty"
    status, problem = dusuan.problem("sim", "replay", "nowhere")
    assert (status, problem["code"]) == (1, "no_such_file")
    assert dusuan.problem("sim", "replay", "empty", "--policy", "fcsf")[0] == 2
    status, problem = dusuan.problem("sim", "record", "--out", "log", "--since", "yesterday")
    assert status == 2
    assert "since" in problem["detail"]
    assert not list(Path().glob("log*"))
    dusuan.json("sim", "record", "--out", "log")
    assert dusuan.problem("sim", "replay", "log")[1]["code"] == "no_rounds"
    assert dusuan.problem("sim", "record", "--out", "no/such/log")[1]["code"] == "unwritable"
    assert dusuan.problem("sim", "record", "--out", "log2", key="dk_nobody")[0] != 0
    assert not Path("log2").exists()

    def breaks(*_: Any) -> Any:
        yield '{"kind":"header"}\n'
        raise RuntimeError("the platform fails here")

    monkeypatch.setattr(exporting, "rounds", breaks)
    status, problem = dusuan.problem("sim", "record", "--out", "log3")
    assert (status, problem["code"]) == (1, "connection_lost")
    assert not list(Path().glob("log3*"))
