"""The example jobs as real processes: result, checkpoint signal, resume, exact FLOP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from dusuan.core.workload.jobfile import parse_job
from dusuan.core.workload.jobspec import Checkpoint, Parsed, Workload

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRAIN = (sys.executable, str(EXAMPLES / "digits" / "train.py"))
WORK = (sys.executable, str(EXAMPLES / "checkpoint" / "work.py"))
EXIT_SAVED = 75
ROWS, HELD_OUT = 1024, 360
WORK_STEP_FLOP = 16 * 2 * 512**3

pytest.importorskip("sklearn", reason="the digits ship with scikit-learn")


@dataclass
class Bench:
    """A place to run one job in, with the variables that the platform sets."""

    root: Path

    def start(self, *argv: str, threads: int = 1) -> subprocess.Popen[str]:
        env = os.environ | {
            "DUSUAN_REPORT": str(self.root / "report.jsonl"),
            "DUSUAN_OUTPUT_DIR": str(self.root / "out"),
            "DUSUAN_CHECKPOINT_DIR": str(self.root / "checkpoints"),
            "OMP_NUM_THREADS": str(threads),
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, cwd=self.root, env=env, stdout=pipe, text=True)

    def run(self, *argv: str) -> str:
        process = self.start(*argv)
        log, _ = process.communicate(timeout=120)
        assert process.returncode == 0, log
        return log

    def reports(self) -> list[dict[str, object]]:
        path = self.root / "report.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def progress(self) -> list[tuple[int, int, int]]:
        """(step, total, FLOP) of every report of progress."""
        found = [(line["progress"], line["flop"]) for line in self.reports() if "progress" in line]
        return [(*steps, flop) for steps, flop in found]  # JSON is untyped

    def wait_for_step(self, step: int) -> None:
        deadline_s = time.monotonic() + 60
        while not any(done >= step for done, _, _ in self.progress()):
            assert time.monotonic() < deadline_s, "no progress was reported"
            time.sleep(0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def forward(rows: int) -> int:
    """FLOP of one forward pass, from the layer shapes: 64 -> 1024 -> 1024 -> 10."""
    return 2 * rows * (64 * 1024 + 1024 * 1024 + 1024 * 10)


def training_flop(steps: int) -> int:
    """Forward, weight gradients, input gradients of the upper two layers; one test in ten steps."""
    upper = 2 * ROWS * (1024 * 1024 + 1024 * 10)
    return steps * (2 * forward(ROWS) + upper) + steps // 10 * forward(HELD_OUT)


def test_the_whole_training(bench: Bench) -> None:
    log = bench.run(*TRAIN)
    metrics = json.loads((bench.root / "out" / "metrics.json").read_text())
    assert metrics["accuracy"] >= 0.95
    assert bench.reports()[-1] == {"result": {"accuracy": metrics["accuracy"], "steps": 140}}
    steps = [done for done, _, _ in bench.progress()]
    assert steps[0] == 0 and steps[-1] == 140 and steps == sorted(steps)
    assert bench.progress()[-1][2] == training_flop(140) + forward(HELD_OUT) == metrics["flop"]
    assert (bench.root / "out" / "model.npz").stat().st_size > 4_000_000
    assert "held-out accuracy" in log


def test_every_report_counts_flop_from_the_layer_shapes(bench: Bench) -> None:
    bench.run(*TRAIN, "--steps", "25")
    *reports, last = bench.progress()
    assert all(flop == training_flop(step) for step, _, flop in reports)
    assert last == (25, 25, training_flop(25) + forward(HELD_OUT))


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_training_saves_on_a_signal_and_goes_on(bench: Bench, number: signal.Signals) -> None:
    process = bench.start(*TRAIN, "--steps", "30")
    bench.wait_for_step(5)
    process.send_signal(number)
    asked_s = time.monotonic()
    log, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_SAVED, log
    assert time.monotonic() - asked_s < 2
    saved_step, _, saved_flop = bench.progress()[-1]
    assert f"saved at step {saved_step}" in log
    before = len(bench.progress())

    log = bench.run(*TRAIN, "--steps", "30")
    assert f"resumed at step {saved_step}" in log
    assert bench.progress()[before] == (saved_step, 30, saved_flop)
    assert bench.progress()[-1] == (30, 30, training_flop(30) + forward(HELD_OUT))
    assert not list((bench.root / "checkpoints").iterdir())


def test_going_on_ends_where_an_unbroken_run_ends(tmp_path: Path) -> None:
    whole, parts = Bench(tmp_path / "whole"), Bench(tmp_path / "parts")
    whole.root.mkdir()
    parts.root.mkdir()
    whole.run(*TRAIN, "--steps", "12")
    process = parts.start(*TRAIN, "--steps", "12")
    parts.wait_for_step(3)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    parts.run(*TRAIN, "--steps", "12")
    assert (whole.root / "out/metrics.json").read_text() == (
        parts.root / "out/metrics.json"
    ).read_text()


def test_a_signal_before_the_first_step_is_not_lost(bench: Bench) -> None:
    process = bench.start(*TRAIN, "--steps", "30")
    bench.wait_for_step(0)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == EXIT_SAVED
    assert "resumed at step" in bench.run(*TRAIN, "--steps", "4")


def test_a_checkpoint_that_cannot_be_read_starts_afresh(bench: Bench) -> None:
    (bench.root / "checkpoints").mkdir()
    (bench.root / "checkpoints" / "training.npz").write_bytes(b"half a file")
    log = bench.run(*TRAIN, "--steps", "2")
    assert "cannot be read" in log
    assert bench.progress()[-1][0] == 2


def test_training_by_hand_needs_no_platform(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("DUSUAN_")}
    argv = [*TRAIN, "--steps", "2"]
    subprocess.run(argv, cwd=tmp_path, env=env, check=True, timeout=60, capture_output=True)
    assert (tmp_path / "output" / "metrics.json").exists()


def test_work_is_stopped_twice_and_finishes(bench: Bench) -> None:
    resumed_from = []
    for stop_at in (10, 30):
        process = bench.start(*WORK, "60")
        bench.wait_for_step(stop_at)
        process.send_signal(signal.SIGUSR1)
        log, _ = process.communicate(timeout=30)
        assert process.returncode == EXIT_SAVED, log
        resumed_from.append(bench.progress()[-1][0])
    log = bench.run(*WORK, "60")
    assert f"resumed at step {resumed_from[-1]}" in log
    assert bench.reports()[-1] == {"result": {"steps": 60, "resumed_from": resumed_from}}
    assert all(flop == step * WORK_STEP_FLOP for step, _, flop in bench.progress())
    assert bench.progress()[-1][0] == 60


@pytest.mark.parametrize(
    ("path", "workload", "checkpoint"),
    [
        ("digits/job.yaml", Workload("train", 140.0), Checkpoint("SIGUSR1", 2.0)),
        ("checkpoint/job.yaml", Workload("command", 100.0), Checkpoint("SIGUSR1", 2.0)),
        ("checkpoint/short.yaml", Workload("command", 40.0), None),
    ],
)
def test_the_job_files_name_no_device(
    path: str, workload: Workload, checkpoint: Checkpoint | None
) -> None:
    parsed = parse_job((EXAMPLES / path).read_text())
    assert isinstance(parsed, Parsed), parsed
    assert parsed.warnings == ()
    assert parsed.spec.resources.device is None and parsed.spec.resources.count is None
    assert (parsed.spec.workload, parsed.spec.checkpoint) == (workload, checkpoint)


def test_the_protocol_file_is_the_same_in_both_examples() -> None:
    one, other = (EXAMPLES / name / "protocol.py" for name in ("digits", "checkpoint"))
    assert one.read_text() == other.read_text()
