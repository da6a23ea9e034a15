"""Fit the step model on measured steps; writes src/dusuan/facts/step_model.json.

One coefficient a term with a log-normal prior around a physical guess; errors are logarithms under
a smooth absolute loss.

    python -m bench.accuracy.fit_mfu [--data bench/accuracy/data/mfu_points.csv] [--dry-run]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from dusuan.core.workload import stepmfu, steprows
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.stepmfu import TERMS, Step
from dusuan.facts.library import library

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "bench/accuracy/data/mfu_points.csv"
TARGET = ROOT / "src/dusuan/facts/step_model.json"
COMMAND = "python -m bench.accuracy.fit_mfu"

# What each coefficient is before a row is seen; one is the hardware's limit.
GUESS = {
    **{"products": 0.95, "narrow": 0.05, "head": 1.0, "attention": 1.0, "elements": 2.0},
    **{"logits": 1.0, "casts": 0.5, "network": 0.3, "node_link": 1.0, "optimizer": 1.0},
    **{"launches": 0.2, "latency": 0.1},
}
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


def fit(data: Sequence[Point]) -> dict[str, float]:
    """One coefficient a term."""
    rows = [stepmfu.terms(p.step) for p in data]
    matrix = np.array([[row[name] for name in TERMS] for row in rows])
    spent = [p.step.flop_per_token / (p.step.peak_counted * p.utilisation) for p in data]
    guess, target = np.array([GUESS[name] for name in TERMS]), np.log(spent)
    prior = math.sqrt(RIDGE * len(data))

    def residuals(theta: np.ndarray) -> np.ndarray:
        error = (np.log(matrix @ (guess * np.exp(theta))) - target) / NOISE
        smooth = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error * error) - 1))
        return np.concatenate([smooth, prior * theta])

    found = guess * np.exp(least_squares(residuals, np.zeros(len(TERMS))).x)
    return {name: round(float(v), 4) for name, v in zip(TERMS, found, strict=True)}


def error(coefficients: dict[str, float], point: Point) -> float:
    """Log of predicted over true utilisation."""
    said = stepmfu.utilisation(stepmfu.StepModel(coefficients, {}), point.step)
    return math.log(said / point.utilisation)


def document(data: Sequence[Point], today: str) -> dict[str, object]:
    """What the package ships."""
    return {
        "coefficients": fit(data),
        "provenance": {
            "data": "bench/accuracy/data/mfu_points.csv: mosaicml/llm-foundry@8c8dd48f",
            "command": COMMAND,
            "date": today,
            "rows": len(data),
        },
    }


def main() -> None:
    """Fit, and write or show the document."""
    parser = argparse.ArgumentParser(description="Fit the step model.")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    made = document(points(args.data), datetime.datetime.now(datetime.UTC).date().isoformat())
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    if args.dry_run:
        print(text)
    else:
        TARGET.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
