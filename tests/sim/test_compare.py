"""Comparisons, generated traces, pages, and the commands over traces."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dusuan.cli import build
from dusuan.core.scheduling.arrays import FOREVER_MS
from dusuan.core.workload.jobspec import Problem
from dusuan.sim.compare import FIGURES, drawn, estimate, table
from dusuan.sim.generate import ARRIVALS, MIXES, Wanted, generate
from dusuan.sim.trace import Trace

FIELDS = {
    *("jobs", "jobs_rejected", "avg_jct_s", "avg_wait_s", "avg_bounded_slowdown", "p50_wait_s"),
    *("p90_wait_s", "p99_wait_s", "p999_wait_s", "max_wait_s", "makespan_s", "utilisation"),
    *("allocation", "fragmentation", "fragmentation_peak", "jain_slowdown", "jain_share"),
    *("shortfall_most", "shortfall_gpu_s", "sold_degrees", "energy_kwh", "accounts"),
    *("restarts", "lost_gpu_s", "load_s", "wall_s", "decisions", "decisions_per_s"),
}


def ran(*words: object) -> tuple[int, Any, Any]:
    """Exit code, and what is on stdout and stderr as JSON where it is."""
    result = CliRunner().invoke(build(None), [*map(str, words), "--json"])  # type: ignore[arg-type]  # no platform is asked
    out = json.loads(result.stdout) if result.stdout else None
    return result.exit_code, out, result.stderr


def trace_file(folder: Path, jobs: int = 300, *more: object) -> Path:
    path = folder / "trace.jsonl"
    code, made, err = ran("sim", "make", "-o", path, "--jobs", jobs, "--devices", 32, *more)
    assert code == 0, err
    assert made["jobs"] == jobs
    return path


def made(**wanted: Any) -> Trace:
    found = generate(Wanted(**{"jobs": 4000, "devices": 640, **wanted}))
    assert isinstance(found, Trace)
    return found


@pytest.mark.parametrize("mix", sorted(MIXES))
@pytest.mark.parametrize("arrivals", ARRIVALS)
def test_a_made_up_trace_has_the_load_that_was_asked_for(mix: str, arrivals: str) -> None:
    trace = made(mix=mix, arrivals=arrivals, load=0.7)
    jobs = trace.jobs
    work = float((jobs["devices"] * jobs["milli"] / 1000 * jobs["run_ms"]).sum())
    span = float(jobs["submit_ms"].max())
    assert 0.6 < work / (640 * span) < 0.9
    assert (np.diff(jobs["submit_ms"]) >= 0).all()
    assert (jobs["run_ms"] > 0).all()


def test_load_grows() -> None:
    steady, growing = (made(growth=g, arrivals="steady", jobs=20_000) for g in (0.0, 3.0))
    for trace, wanted in ((steady, 0.5), (growing, 0.35)):  # of 4/(1+4) by area: (1+2.5)/2/2.5
        half = trace.jobs["submit_ms"] < trace.jobs["submit_ms"].max() / 2
        assert half.mean() == pytest.approx(wanted, abs=0.03)


def test_same_seed_same_trace() -> None:
    assert made(seed=1).jobs.tobytes() == made(seed=1).jobs.tobytes()
    assert made(seed=1).jobs.tobytes() != made(seed=2).jobs.tobytes()


@pytest.mark.parametrize(
    "wrong",
    [{"mix": "trainning"}, {"arrivals": "never"}, {"jobs": 0}, {"devices": 0}, {"load": 0.0}],
)
def test_what_cannot_be_made_is_told(wrong: dict[str, Any]) -> None:
    found = generate(Wanted(**{"jobs": 10, "devices": 8, **wrong}))
    assert isinstance(found, Problem)
    assert found.remedy


def test_days_are_redrawn() -> None:
    trace = made()
    assert drawn(trace, 0) is trace
    again = drawn(trace, 1)
    assert len(set(again.names)) == len(again.names)
    assert (again.jobs["submit_ms"] >= 0).all()
    assert again.jobs["submit_ms"].max() < trace.jobs["submit_ms"].max() + 86_400_000
    assert 0.3 < len(again.jobs) / len(trace.jobs) < 3


def test_limits_of_a_redrawn_job_move_with_it() -> None:
    trace = made()
    trace.jobs["earliest_ms"][::2] = trace.jobs["submit_ms"][::2] + 1
    trace.jobs["deadline_ms"][::3] = trace.jobs["submit_ms"][::3] + 2
    again = drawn(trace, 1).jobs
    early, due = again["earliest_ms"] > 0, again["deadline_ms"] < FOREVER_MS
    assert set(again["earliest_ms"][early] - again["submit_ms"][early]) == {1}
    assert set(again["deadline_ms"][due] - again["submit_ms"][due]) == {2}
    assert 0 < early.sum() < len(again) and 0 < due.sum() < len(again)


def test_an_interval_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.303 * 1.0 / 3**0.5)
    assert estimate([5.0]).half is None


def test_ratios_are_of_pairs() -> None:
    def figures(value: float) -> dict[str, float | None]:
        return dict.fromkeys(FIGURES, value) | {"energy_kwh": None}

    rows = table({"a": [figures(1), figures(10)], "b": [figures(2), figures(20)]})
    assert rows[0]["energy_kwh"] is None, "what is not known is not nothing"
    assert rows[1]["avg_jct_s"]["ratio"] == {"mean": 2.0, "plus_minus": 0.0}


def test_a_run_has_the_promised_fields_and_its_log_runs_again(tmp_path: Path) -> None:
    path, log = trace_file(tmp_path), tmp_path / "log.jsonl"
    words = ("--format", "journal", "--cluster", "4x8")
    code, found, _ = ran("sim", "run", *words, "--jobs", path, "--log", log)
    assert code == 0
    assert set(found) >= FIELDS
    assert found["jobs"] == 300
    code, again, _ = ran("sim", "run", *words, "--jobs", log)
    assert code == 0
    same = FIELDS - {"load_s", "wall_s", "decisions_per_s"}
    assert {k: again[k] for k in same} == {k: found[k] for k in same}
    code, broken, _ = ran("sim", "run", *words, "--jobs", path, "--faults", 200, "--seed", 3)
    assert code == 0
    assert broken["down"] > 0
    rates = tmp_path / "rates.yaml"
    rates.write_text("device: {per_thousand_days: 0}\nnode: {repair_h: 1}\n")
    broken_again = ran(
        "sim", "run", *words, "--jobs", path, "--faults", 200, "--fault-rates", rates
    )
    assert broken_again[0] == 0
    assert 0 < broken_again[1]["down"] < broken["down"]


def test_a_comparison_and_its_page(tmp_path: Path) -> None:
    path, page = trace_file(tmp_path, 200), tmp_path / "page.html"
    words = ("--format", "journal", "--cluster", "4x8", "--jobs", path, "--seeds", 3)
    code, found, _ = ran("sim", "compare", *words, "--policies", "fcfs,easy,dusuan", "-o", page)
    assert code == 0
    assert [row["policy"] for row in found["policies"]] == ["fcfs", "easy", "dusuan"]
    assert all(row["avg_jct_s"]["plus_minus"] > 0 for row in found["policies"])
    text = page.read_text()
    assert text.count("<svg") == 2
    assert not re.search(r"""(src|href)=["']?[a-z]+:|url\(["']?[a-z]+:|@import""", text)


def test_a_report(tmp_path: Path) -> None:
    path, page = trace_file(tmp_path, 100), tmp_path / "page.html"
    words = ("--format", "journal", "--cluster", "4x8", "--jobs", path)
    code, found, _ = ran("sim", "report", *words, "-o", page)
    assert code == 0
    assert found["page"] == str(page)
    assert page.read_text().count("<svg") == 4
    assert "owed_gpu_s" in page.read_text()
    code, _, err = ran("sim", "report", *words, "-o", tmp_path / "no" / "page.html")
    assert code == 1
    assert json.loads(err.splitlines()[-1])["code"] == "unwritable"


def test_a_policy_is_shown_and_tried(tmp_path: Path) -> None:
    assert ran("policy", "show", "dusuan")[1]["predict"] == "last2"
    names = [each["name"] for each in ran("policy", "show")[1]["policies"]]
    assert {"fcfs", "easy", "conservative", "sjf", "sjf-backfill", "srtf", "las", "fair"} < {*names}
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: dusuan\nbackfill: strict\n")
    path = trace_file(tmp_path, 100)
    words = ("--format", "journal", "--cluster", "4x8", "--jobs", path)
    code, found, _ = ran("policy", "try", mine, *words)
    assert code == 0
    assert [row["policy"] for row in found["policies"]] == ["dusuan", "mine"]


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("--cluster", "0x8"), 2, "no_devices"),
        (("--cluster", "4x8", "--policy", "fcsf"), 2, "unknown_policy"),
        (("--cluster", "4x8", "--policy", "wrong.yaml"), 2, "unknown_part"),
        (("--cluster", "4x8", "--policy", "none.yaml"), 2, "no_such_file"),
        ((), 2, "which_cluster"),
        (("--cluster", "4x8", "--format", "swff"), 2, "unknown_format"),
        (("--cluster", "4x8", "--format", "swf"), 1, "bad_value"),
        (("--cluster", "4x8", "--jobs", "gone.jsonl"), 1, "no_such_file"),
        (("--nodes", "gone.csv"), 1, "no_such_file"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    name: str,
) -> None:
    path = trace_file(tmp_path, 10)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("backfil: easy\n")
    exit_code, out, err = ran("sim", "run", "--format", "journal", "--jobs", path, *words)
    problem = json.loads(err.splitlines()[-1])
    assert (exit_code, out, problem["code"]) == (code, None, name)
    assert problem["detail"] and "Traceback" not in err
