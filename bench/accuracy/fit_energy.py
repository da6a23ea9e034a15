"""Fit the power of a device with its share of the node; writes src/dusuan/facts/power_model.json.

Least squares on measured points, each as a share of the rated power. A point of the device alone
gets the node's share of DGX A100: (4.49 kW - 8 x 338 W) / 8 = 223 W, 56 % of the rated power.

    python -m bench.accuracy.fit_energy [--data bench/accuracy/data/power_points.csv] [--dry-run]
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench.accuracy import fitting

from dusuan.facts.library import library

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "bench/accuracy/data/power_points.csv"
TARGET = ROOT / "src/dusuan/facts/power_model.json"
COMMAND = "python -m bench.accuracy.fit_energy"
NODE_SHARE = (4_490 - 8 * 338) / 8 / 400


@dataclass(frozen=True)
class Point:
    """Measured power as a share of the rated one, at a FLOP utilisation."""

    name: str
    utilisation: float
    share: float


def points(path: Path = DATA) -> list[Point]:
    """The measured points."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [_point(row) for row in csv.DictReader(lines)]


def _point(row: dict[str, str]) -> Point:
    device = library().device(row["device"]).device
    share = float(row["watts"]) / device.tdp_w
    share += NODE_SHARE if row["level"] == "device" else 0.0
    return Point(row["name"], float(row["utilisation"]), share)


def fit(data: Sequence[Point]) -> tuple[float, float]:
    """Idle and slope."""
    design = np.array([[1.0, p.utilisation] for p in data])
    idle, slope = np.linalg.lstsq(design, np.array([p.share for p in data]), rcond=None)[0]
    return float(idle), float(slope)


def document(data: Sequence[Point], today: str) -> dict[str, object]:
    """What the package ships."""
    idle, slope = fit(data)
    return {
        "idle": round(idle, 3),
        "slope": round(slope, 3),
        "provenance": {
            "data": "bench/accuracy/data/power_points.csv: measured points, each with its source",
            "command": COMMAND,
            "date": today,
            "points": len(data),
        },
    }


if __name__ == "__main__":
    fitting.run("power model", DATA, TARGET, lambda path, today: document(points(path), today))
