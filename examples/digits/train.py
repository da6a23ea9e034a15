"""Train a network to read handwritten digits; stop and go on at any step.

It names no device and no count: the number of threads is whatever the platform set. On SIGUSR1 or
SIGTERM it saves its state and exits with 75; started again, it goes on from there. Exit 0 means
that `model.npz` and `metrics.json` are in the output directory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from protocol import EXIT_SAVED, Report, StopRequest, directory, log

if TYPE_CHECKING:
    from mlp import Data, Training

STEPS = 140
EVALUATE_EVERY_STEPS = 10
SAVE_EVERY_STEPS = 50


def main() -> int:
    """Train, or go on training; returns the exit code."""
    stop = StopRequest()  # before the slow imports, so that no signal finds the job unprepared
    import mlp

    parser = argparse.ArgumentParser(description=__doc__)
    default = int(os.environ.get("DIGITS_STEPS", STEPS))
    parser.add_argument("--steps", type=int, default=default, help="steps in all")
    total = parser.parse_args().steps
    checkpoint = directory("DUSUAN_CHECKPOINT_DIR", "checkpoint") / "training.npz"
    data, run, report = mlp.load_data(), resume(checkpoint), Report()
    report.progress(run.step, total, run.flop, now=True)
    if not train(run, data, total, checkpoint, report, stop):
        return EXIT_SAVED
    finish(run, data, total, report)
    checkpoint.unlink(missing_ok=True)  # a finished run must not be where the next one begins
    return 0


def resume(checkpoint: Path) -> Training:
    """The saved run, or a fresh one when there is none that can be read."""
    import mlp

    if not checkpoint.exists():
        log("starting from the beginning")
        return mlp.start()
    try:
        run = mlp.load(checkpoint)
    except Exception as error:  # whatever is wrong with the file, the job can start afresh
        log(f"the checkpoint cannot be read ({error}); starting from the beginning")
        return mlp.start()
    log(f"resumed at step {run.step}")
    return run


def train(
    run: Training, data: Data, total: int, checkpoint: Path, report: Report, stop: StopRequest
) -> bool:
    """Train up to `total` steps. False when a signal came first; the state is then saved."""
    import mlp

    while run.step < total:
        if stop:
            mlp.save(run, checkpoint)
            report.progress(run.step, total, run.flop, now=True)
            log(f"{stop.signal_name}: saved at step {run.step}, exit {EXIT_SAVED}")
            return False
        mlp.train_step(run, data)
        if run.step % EVALUATE_EVERY_STEPS == 0:
            share = mlp.accuracy(run, data)
            log(f"step {run.step}/{total}  loss {run.loss:.4f}  held-out accuracy {share:.4f}")
        if run.step % SAVE_EVERY_STEPS == 0:
            mlp.save(run, checkpoint)
        report.progress(run.step, total, run.flop)
    return True


def finish(run: Training, data: Data, total: int, report: Report) -> None:
    """Write the artifact and the last report."""
    import mlp

    output = directory("DUSUAN_OUTPUT_DIR", "output")
    share = mlp.accuracy(run, data)
    mlp.save_model(run, output / "model.npz")
    metrics = {"accuracy": share, "steps": run.step, "flop": run.flop}
    (output / "metrics.json").write_text(json.dumps(metrics) + "\n")
    report.progress(run.step, total, run.flop, now=True)
    report.result(accuracy=share, steps=run.step)
    log(f"done: {run.step} steps, {run.flop / 1e9:.1f} GFLOP, held-out accuracy {share:.4f}")


if __name__ == "__main__":
    sys.exit(main())
