"""Count to a number of steps of matrix work; save on a signal and go on from there.

On SIGUSR1 or SIGTERM it saves within milliseconds and exits with 75; started again with the same
checkpoint directory it goes on at the saved step and finishes. Exit 0 means all steps are done.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from protocol import EXIT_SAVED, Report, StopRequest, directory, log

SIDE = 512  # of the square matrices
PRODUCTS_PER_STEP = 16
STEP_FLOP = PRODUCTS_PER_STEP * 2 * SIDE**3


@dataclass
class State:
    """What is done, and the steps at which an attempt took over."""

    step: int = 0
    flop: int = 0
    resumed_from: list[int] = field(default_factory=list)


def main() -> int:
    """Work, or go on working; returns the exit code."""
    stop = StopRequest()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int, nargs="?", default=100, help="steps in all")
    total = parser.parse_args().steps
    checkpoint = directory("DUSUAN_CHECKPOINT_DIR", "checkpoint") / "state.json"
    state, report = resume(checkpoint), Report()
    report.progress(state.step, total, state.flop, now=True)
    if not work(state, total, report, stop):
        save(state, checkpoint)
        log(f"{stop.signal_name}: saved at step {state.step}, exit {EXIT_SAVED}")
        return EXIT_SAVED
    report.result(steps=state.step, resumed_from=state.resumed_from)
    log(f"done: {state.step} steps, {state.flop / 1e9:.1f} GFLOP")
    checkpoint.unlink(missing_ok=True)
    return 0


def resume(checkpoint: Path) -> State:
    """The saved state, or a fresh one."""
    if not checkpoint.exists():
        log("starting from the beginning")
        return State()
    state = State(**json.loads(checkpoint.read_text()))
    state.resumed_from.append(state.step)
    log(f"resumed at step {state.step}")
    return state


def save(state: State, checkpoint: Path) -> None:
    """Write the state, all or nothing."""
    partial = checkpoint.with_name(checkpoint.name + ".partial")
    partial.write_text(json.dumps(asdict(state)))
    partial.replace(checkpoint)


def work(state: State, total: int, report: Report, stop: StopRequest) -> bool:
    """Do the steps that are left. False when a signal came first."""
    import numpy as np  # after the signal handlers are in place

    left = np.full((SIDE, SIDE), 1 / SIDE, dtype=np.float32)
    right = np.eye(SIDE, dtype=np.float32)
    out = np.empty_like(left)
    while state.step < total and not stop:
        for _ in range(PRODUCTS_PER_STEP):
            np.matmul(left, right, out=out)
        state.step += 1
        state.flop += STEP_FLOP
        report.progress(state.step, total, state.flop)
        if state.step % 25 == 0:
            log(f"step {state.step}/{total}")
    report.progress(state.step, total, state.flop, now=True)
    return state.step >= total


if __name__ == "__main__":
    sys.exit(main())
