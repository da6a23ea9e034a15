"""Fit the device-hours model on published training runs; writes src/dusuan/facts/run_model.json.

Ridge towards stated priors with a heavy-tailed likelihood: some seventy runs cannot carry more. The
strength of the ridge is chosen by leaving one family of models out; the half width of the interval
is the 80 % quantile of the errors that the left-out families show in a nested loop (families
outside, strength inside). Rows that publish only a step's utilisation count with a small weight,
times 0.85: the median of effective over step utilisation. Rows marked `aside` were set aside before
anything was chosen and are fitted on for what ships alone; rows marked `distilled` never.

    python -m bench.accuracy.fit_runs [--data FILE.csv ...] [--dry-run]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dusuan.core.workload import goodput, runs
from dusuan.facts.library import library

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "bench/accuracy/data/training_runs.csv"
MORE = ROOT / "bench/accuracy/data/more_runs.csv"
TARGET = ROOT / "src/dusuan/facts/run_model.json"
COMMAND = "python -m bench.accuracy.fit_runs"

# Mean and standard deviation of each coefficient before any run is seen. Base: what llm-foundry's
# steps reach on A100 with 7 B to 30 B models (52 %), times 0.85. Hunger: what they reach on H100
# (42 %), and that what is no computing (restarts, checkpoints, data) takes as long on a faster
# device, so a larger share. Small models on fast devices do worse. MoE: 30 % lower. FP8: products
# twice as fast, about half of the time. Convolutions: half. Size: a tenth for each e-fold beyond
# what devices like.
PRIORS: dict[str, tuple[float, float]] = {
    "base": (math.log(0.44), 0.20),
    "hunger": (-0.40, 0.20),
    "hunger_size": (0.15, 0.05),
    "small": (-0.10, 0.15),
    "large": (-0.10, 0.15),
    "moe": (math.log(0.70), 0.30),
    "fp8": (math.log(1.30), 0.10),
    "cnn": (math.log(0.50), 0.30),
}
NAMES = tuple(PRIORS)
STRENGTHS = (0.25, 0.5, 1.0, 2.0)  # factors on the standard deviations
NOISE, TAIL = 0.25, 4.0  # scale and degrees of freedom of a run's error as a logarithm
STEP_WEIGHT, STEP_TO_RUN = 0.35, 0.85
ROUNDS = 25  # of reweighting
COVERAGE = 0.8
FIT, ASIDE, DISTILLED = "fit", "aside", "distilled"


@dataclass(frozen=True)
class Point:
    """One run: its features, the utilisation that was reached, and how much it counts."""

    family: str
    name: str
    features: goodput.RunFeatures
    log_utilisation: float
    weight: float
    has_hours: bool
    use: str
    row: np.ndarray  # its terms, as ordered in NAMES


def points(*paths: Path) -> list[Point]:
    """The runs of the tables that have hours, or the utilisation of a step."""
    found = []
    for path in paths or (DATA, MORE):
        with path.open(encoding="utf-8", newline="") as lines:
            found += [_point(row) for row in csv.DictReader(lines)]
    return [point for point in found if point is not None]


def used(data: Sequence[Point], *uses: str) -> list[Point]:
    """The points that are for one of these uses."""
    return [point for point in data if point.use in uses]


def _point(row: dict[str, str]) -> Point | None:
    run = runs.read(row, library().device, library().models)
    if not isinstance(run, runs.Run):
        return None
    features = run.features
    if row["gpu_hours"]:
        spent = float(row["gpu_hours"]) * goodput.HOUR_S * features.peak_tflops * 1e12
        reached, weight = features.flop / spent, 1.0
    elif row.get("mfu_pub_pct") or row.get("tflops_per_gpu_pub"):
        step = float(row["mfu_pub_pct"] or 0) / 100
        step = step or float(row["tflops_per_gpu_pub"]) / features.peak_tflops
        reached, weight = step * STEP_TO_RUN, STEP_WEIGHT
    else:
        return None
    log = math.log(reached / goodput.availability(features.devices))
    terms = goodput.terms(features)
    return Point(
        *(row["family"], row["model"], features, log, weight, bool(row["gpu_hours"])),
        use=row.get("use") or FIT,
        row=np.array([terms.get(name, 0.0) for name in NAMES]),
    )


def fit(data: Sequence[Point], strength: float) -> dict[str, float]:
    """Coefficients by iteratively reweighted ridge; a family counts as the root of its rows."""
    solved = _solve(data, np.ones((1, len(data))), strength)[0]
    return dict(zip(NAMES, solved.tolist(), strict=True))


def _solve(data: Sequence[Point], seen: np.ndarray, strength: float) -> np.ndarray:
    """Coefficients (fits, names) of one fit for each row of `seen` (fits, points): zero or one."""
    design = np.array([p.row for p in data])
    target = np.array([p.log_utilisation for p in data])
    family = Counter(p.family for p in data)
    start = seen * np.array([p.weight / math.sqrt(family[p.family]) for p in data])
    means, deviations = (np.array([PRIORS[n][i] for n in NAMES]) for i in (0, 1))
    precision = np.diag(1 / (strength * deviations) ** 2)
    outer = design[:, :, None] * design[:, None, :]
    weight, solved = start, np.tile(means, (len(seen), 1))
    for _ in range(ROUNDS):
        normal = np.tensordot(weight, outer, 1) / NOISE**2 + precision
        right = weight * target @ design / NOISE**2 + precision @ means
        solved = np.linalg.solve(normal, right[..., None])[..., 0]
        error = (target - solved @ design.T) / NOISE
        weight = start * (TAIL + 1) / (TAIL + error * error)
    return solved


def error(coefficients: dict[str, float], point: Point) -> float:
    """Log of predicted hours over true hours."""
    said = sum(coefficients[n] * v for n, v in zip(NAMES, point.row, strict=True))
    return point.log_utilisation - float(said)


def left_out(data: Sequence[Point], strength: float) -> list[tuple[Point, float]]:
    """The error of each run that has hours, predicted without its family."""
    families = sorted({p.family for p in data if p.has_hours})
    seen = np.array([[float(p.family != family) for p in data] for family in families])
    fitted = dict(zip(families, _solve(data, seen, strength), strict=True))
    return [(p, p.log_utilisation - float(fitted[p.family] @ p.row)) for p in data if p.has_hours]


def choose(data: Sequence[Point]) -> float:
    """The strength with the least mean error (a logarithm) when one family is left out."""
    return min(STRENGTHS, key=lambda s: np.mean([abs(e) for _, e in left_out(data, s)]))


def nested(data: Sequence[Point]) -> list[tuple[Point, float]]:
    """As `left_out`, but the strength is chosen without the left-out family as well."""
    found = []
    for family in sorted({p.family for p in data if p.has_hours}):
        rest = [p for p in data if p.family != family]
        fitted = fit(rest, choose(rest))
        found += [(p, error(fitted, p)) for p in data if p.family == family and p.has_hours]
    return found


def spread(errors: Sequence[tuple[Point, float]]) -> float:
    """Half width of the interval: the quantile with the correction for a finite sample.

    A family counts as the root of its rows, as in the fit: what comes is mostly of new families.
    """
    family = Counter(p.family for p, _ in errors)
    sizes = sorted((abs(e), 1 / math.sqrt(family[p.family])) for p, e in errors)
    shares = np.cumsum([weight for _, weight in sizes])
    rank = int(np.searchsorted(shares, COVERAGE * (shares[-1] + 1)))
    return sizes[min(rank, len(sizes) - 1)][0]


def document(data: Sequence[Point], today: str) -> dict[str, object]:
    """What the package ships: fitted on all rows but those of distilled models."""
    data = used(data, FIT, ASIDE)
    strength = choose(data)
    return {
        "coefficients": {n: round(v, 4) for n, v in fit(data, strength).items()},
        "spread": round(spread(nested(data)), 3),
        "provenance": {
            "data": "bench/accuracy/data/{training,more}_runs.csv: published runs with sources",
            "command": COMMAND,
            "date": today,
            "runs_with_hours": sum(p.has_hours for p in data),
            "runs_with_step_utilisation": sum(not p.has_hours for p in data),
            "ridge_strength": strength,
            "priors": {n: list(p) for n, p in PRIORS.items()},
        },
    }


def main() -> None:
    """Fit, and write or show the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    made = document(points(*args.data), datetime.datetime.now(datetime.UTC).date().isoformat())
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    if args.dry_run:
        print(text)
    else:
        TARGET.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
