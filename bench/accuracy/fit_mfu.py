"""Fit the step model on measured steps; writes src/dusuan/facts/step_model.json.

One coefficient a term with a log-normal prior around a physical guess; errors are logarithms under
a smooth absolute loss. The terms of tensor parallelism are fitted afterwards, on Megatron's step
times, with the others held.

    python -m bench.accuracy.fit_mfu [--data bench/accuracy/data/mfu_points.csv] [--dry-run]
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench.accuracy import fitting
from scipy.optimize import least_squares

from dusuan.core.workload import stepmfu, steprows
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.stepmfu import Step
from dusuan.facts.library import library

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "bench/accuracy/data/mfu_points.csv"
SPLIT_DATA = ROOT / "bench/accuracy/data/step_points.csv"
TARGET = ROOT / "src/dusuan/facts/step_model.json"
COMMAND = "python -m bench.accuracy.fit_mfu"

# What each coefficient is before a row is seen; one is the hardware's limit.
GUESS = {
    **{"products": 0.95, "narrow": 0.05, "head": 1.0, "attention": 1.0, "elements": 2.0},
    **{"logits": 1.0, "casts": 0.5, "network": 0.3, "node_link": 1.0, "optimizer": 1.0},
    **{"launches": 0.2, "latency": 0.1},
}
SPLIT_GUESS = {"split": 0.2, "sums": 2.5}  # 83 % of the rate, and as fast as weights move
NOISE = 0.04
RIDGE = 0.1  # weight of the priors, for each row


@dataclass(frozen=True)
class Point:
    """A measured step."""

    step: Step
    size: str
    device: str
    section: str
    utilisation: float


def points(path: Path = DATA) -> list[Point]:
    """All rows of the table."""
    found = []
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            read = steprows.step(row, library().device)
            if not isinstance(read, Problem):
                reached = float(row["MFU"]) / 100
                found.append(Point(read[0], row["Model"], row["GPU"], row["section"], reached))
    return found


def split_points(path: Path = SPLIT_DATA) -> list[Point]:
    """Megatron's steps on A100: seconds, or TFLOPS with the recomputed third counted in."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [_split_point(row) for row in csv.DictReader(lines)]


def _split_point(row: dict[str, str]) -> Point:
    names = ("hidden", "layers", "seq", "vocab", "n_gpus", "tp", "pp", "global_batch")
    h, layers, seq, vocab, devices, tensor, pipeline, batch = (int(row[n]) for n in names)
    recompute = row["recompute"] == "full"
    step = Step(
        *(12 * layers * h * h + vocab * h, h, layers, vocab, seq, devices),
        *(float(row["micro_batch"]), batch, 312e12, 2_039e9, 600e9),
        recompute=recompute,
        gathers_weights=False,
        sharded=False,
        tensor=tensor,
        pipeline=pipeline,
        interleave=int(row["interleave"]),
    )
    reached = float(row["step_s_or_tflops"]) / 312 * (0.75 if recompute else 1.0)
    if row["unit"].startswith("s/"):
        formula = 72 * layers * h * h * (1 + seq / (6 * h) + vocab / (12 * layers * h))
        reached = formula * batch * seq / (float(row["step_s_or_tflops"]) * devices * 312e12)
    return Point(step, row["model"], "a100_80gb", "Megatron", reached)


def fit(data: Sequence[Point]) -> dict[str, float]:
    """One coefficient a term."""
    return _fit(data, GUESS, {})


def fit_split(data: Sequence[Point], held: Mapping[str, float]) -> dict[str, float]:
    """The coefficients of tensor parallelism, the others held."""
    return _fit(data, SPLIT_GUESS, held)


def _fit(
    data: Sequence[Point], start: Mapping[str, float], held: Mapping[str, float]
) -> dict[str, float]:
    rows = [stepmfu.terms(p.step) for p in data]
    names = tuple(start)
    matrix = np.array([[row[name] for name in names] for row in rows])
    rest = np.array([sum(held[name] * row[name] for name in held) for row in rows])
    spent = [p.step.flop_per_token / (p.step.peak_counted * p.utilisation) for p in data]
    guess, target = np.array(list(start.values())), np.log(spent)
    prior = math.sqrt(RIDGE * len(data))

    def residuals(theta: np.ndarray) -> np.ndarray:
        error = (np.log(rest + matrix @ (guess * np.exp(theta))) - target) / NOISE
        smooth = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error * error) - 1))
        return np.concatenate([smooth, prior * theta])

    found = guess * np.exp(least_squares(residuals, np.zeros(len(names))).x)
    return {name: round(float(v), 4) for name, v in zip(names, found, strict=True)}


def error(coefficients: dict[str, float], point: Point) -> float:
    """Log of predicted over true utilisation."""
    said = stepmfu.utilisation(stepmfu.StepModel(coefficients, {}), point.step)
    return math.log(said / point.utilisation)


def document(data: Sequence[Point], today: str) -> dict[str, object]:
    """What the package ships."""
    held, split = fit(data), split_points()
    return {
        "coefficients": held | fit_split(split, held),
        "provenance": {
            "data": "bench/accuracy/data/mfu_points.csv: mosaicml/llm-foundry@8c8dd48f",
            "data_of_split": "bench/accuracy/data/step_points.csv: arXiv 2205.05198, 2104.04473",
            "rows_of_split": len(split),
            "command": COMMAND,
            "date": today,
            "rows": len(data),
        },
    }


if __name__ == "__main__":
    fitting.run("step model", DATA, TARGET, lambda path, today: document(points(path), today))
