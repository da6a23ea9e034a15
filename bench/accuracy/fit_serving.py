"""Fit the serving model on measured rows; writes src/dusuan/facts/serving_model.json.

Every term has one coefficient for all models and devices, with a log-normal prior around a
physical guess; a few terms differ by engine. Errors are logarithms under a smooth absolute loss;
a configuration (model, system, engine, version) counts as the root of its rows. Rows whose load is
blank are not fitted: nothing in them tells 3 ms from 70 ms.

    python -m bench.accuracy.fit_serving [--data TABLE.csv] [--dry-run]
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench.accuracy import fitting
from scipy.optimize import least_squares

from dusuan.core.workload import serving, servingrows
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.serving import BY_ENGINE, DECODE_TERMS, TTFT_TERMS, Deployment
from dusuan.facts.library import library

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "bench/accuracy/data/serving_latency_points.csv"
TARGET = ROOT / "src/dusuan/facts/serving_model.json"
COMMAND = "python -m bench.accuracy.fit_serving"
ENGINES = ("sglang", "trtllm", "vllm")

# What each coefficient is before a row is seen (1: the hardware's limit is reached), and how far
# it may be from that, as the standard deviation of its logarithm.
DECODE_GUESS = {
    **{"weights": 1.2, "experts": 1.5, "cache": 1.5, "products": 1.0, "scores": 1.0},
    **{"latency": 1.5, "messages": 1.0, "dispatch": 1.0, "layers": 1.0, "routing": 1.0},
    **{"index": 1.0, "dequantise": 0.3, "host": 1.0, "requests": 1.0},
    **{"prefill": 2.0, "prefill_scores": 2.0, "prefill_host": 1.0},
}
TTFT_GUESS = {
    **{"constant": 2.0, "depth": 2.0, "own": 1.0, "own_scores": 1.0, "root": 0.2},
    **{"wave": 0.03, "step": 1.0, "crowd": 0.05, "queue": 0.3},
}
DECODE_FREE, ENGINE_FREE, ENGINE_ALL_FREE, TTFT_FREE = 0.7, 0.3, 0.1, 1.0
DECODE_NOISE, TTFT_NOISE = 0.2, 0.3
ROWS_PER_PRIOR = 400.0  # the priors weigh as much again with so many rows
HELD_BACK = 0.2


@dataclass(frozen=True)
class Point:
    """A measured row: its deployment, what was measured in s, and the groups it belongs to."""

    use: Deployment
    loaded: bool  # the row says how many requests it serves
    tpot_s: float
    ttft_s: float
    model: str
    system: str
    engine: str
    version: str
    mode: str

    @property
    def model_kind(self) -> str:
        """The model without its releases: all that share a shape are left out together."""
        name = self.model.rsplit("/", 1)[-1].lower()
        return "deepseek" if "deepseek" in name else name.removesuffix("-nvfp4")

    @property
    def configuration(self) -> tuple[str, ...]:
        """What rows share that were measured in one go."""
        return (self.model, self.system, self.engine, self.version, self.mode)


def points(path: Path = DATA) -> list[Point]:
    """All rows that can be read."""
    facts = library()
    found = []
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            read = servingrows.deployment(row, facts.device, facts.models.find)
            if not isinstance(read, Problem):
                found.append(_point(row, read[0]))
    return found


def _point(row: dict[str, str], use: Deployment) -> Point:
    disaggregated = row["mode"] == servingrows.DISAGGREGATED
    return Point(
        use=use,
        loaded=bool(row["decode_batch_size" if disaggregated else "batch_size"]),
        tpot_s=float(row["silicon_tpot_ms"]) / 1e3,
        ttft_s=float(row["silicon_ttft_ms"]) / 1e3,
        model=row["model_path"],
        system=row["system"],
        engine=row["backend"],
        version=f"{row['backend']} {row['backend_version']}".strip(),
        mode=row["mode"],
    )


def held_back(data: Sequence[Point]) -> set[tuple[str, ...]]:
    """A fifth of the rows by configuration, chosen by a hash before the model was designed."""
    sizes = Counter(_key(p) for p in data)
    order = sorted(sizes, key=lambda k: hashlib.sha1(("hold" + "|".join(k)).encode()).hexdigest())
    chosen: set[tuple[str, ...]] = set()
    rows = 0
    for key in order:
        if rows >= HELD_BACK * len(data):
            break
        chosen.add(key)
        rows += sizes[key]
    return chosen


def _key(point: Point) -> tuple[str, ...]:
    version = point.version.removeprefix(point.engine).strip()
    return (point.model, point.system, point.engine, version, point.mode)


def is_held_back(point: Point, chosen: set[tuple[str, ...]]) -> bool:
    """Whether the row is in the part that was set aside."""
    return _key(point) in chosen


class Table:
    """The rows to fit as matrices: terms of a step, engines, weights."""

    def __init__(self, data: Sequence[Point]) -> None:
        self.points = list(data)
        terms = [serving.decode_terms(p.use) for p in data]
        self.terms = np.array([[t[name] for name in DECODE_TERMS] for t in terms])
        self.engines = np.array([[float(p.engine == e) for e in ENGINES] for p in data])
        sizes = Counter(p.configuration for p in data)
        self.weights = np.array([4 / math.sqrt(sizes[p.configuration]) for p in data])
        self.log_tpot = np.log([p.tpot_s for p in data])
        self.log_ttft = np.log([p.ttft_s for p in data])

    def __getitem__(self, mask: np.ndarray) -> Table:
        """The rows of `mask`."""
        part = Table.__new__(Table)
        part.points = [p for p, used in zip(self.points, mask, strict=True) if used]
        for name in ("terms", "engines", "weights", "log_tpot", "log_ttft"):
            setattr(part, name, getattr(self, name)[mask])
        return part


def fit(table: Table) -> serving.ServingModel:
    """The model of TPOT, then that of TTFT on top of it."""
    theta = _solve(_decode_log, table, table.log_tpot, _decode_freedom(), DECODE_NOISE, _absolute)
    decode, engines = _decode_named(theta)
    half = serving.ServingModel(decode, engines, dict(TTFT_GUESS), {}, {})
    waits = [serving.ttft_terms(half, p.use) for p in table.points]
    matrix = np.array([[w[name] for name in TTFT_TERMS] for w in waits])

    def ttft_log(table: Table, theta: np.ndarray) -> np.ndarray:
        size = len(TTFT_TERMS)
        scaled = _guess(TTFT_GUESS, TTFT_TERMS) * np.exp(theta[:size])
        return np.log(matrix @ scaled) + table.engines @ theta[size:]

    freedom = np.concatenate([np.full(len(TTFT_TERMS), TTFT_FREE), np.full(3, ENGINE_FREE)])
    theta = _solve(ttft_log, table, table.log_ttft, freedom, TTFT_NOISE, _heavy)
    size = len(TTFT_TERMS)
    ttft = _guess(TTFT_GUESS, TTFT_TERMS) * np.exp(theta[:size])
    return serving.ServingModel(
        decode,
        engines,
        _named(TTFT_TERMS, ttft),
        _named(ENGINES, theta[size:]),
        {},
    )


def _solve(
    predict: Callable[[Table, np.ndarray], np.ndarray],
    table: Table,
    target: np.ndarray,
    freedom: np.ndarray,
    noise: float,
    loss: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    prior = math.sqrt(table.weights.sum() / ROWS_PER_PRIOR + 1)
    root = np.sqrt(table.weights)

    def residuals(theta: np.ndarray) -> np.ndarray:
        error = loss((predict(table, theta) - target) / noise)
        return np.concatenate([error * root, prior * theta / freedom])

    return np.asarray(least_squares(residuals, np.zeros(len(freedom)), max_nfev=60).x)


def _absolute(error: np.ndarray) -> np.ndarray:
    return np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error * error) - 1))


def _heavy(error: np.ndarray) -> np.ndarray:
    return np.sign(error) * np.sqrt(2 * np.log1p(error * error / 2))


def _decode_freedom() -> np.ndarray:
    return np.concatenate(
        [
            np.full(len(DECODE_TERMS), DECODE_FREE),
            np.full(3 * len(BY_ENGINE), ENGINE_FREE),
            np.full(3, ENGINE_ALL_FREE),
        ]
    )


def _decode_log(table: Table, theta: np.ndarray) -> np.ndarray:
    size = len(DECODE_TERMS)
    scaled = table.terms * (_guess(DECODE_GUESS, DECODE_TERMS) * np.exp(theta[:size]))
    for i, name in enumerate(BY_ENGINE):
        at = size + 3 * i
        scaled[:, DECODE_TERMS.index(name)] *= np.exp(table.engines @ theta[at : at + 3])
    return np.log(scaled.sum(axis=1)) + table.engines @ theta[size + 3 * len(BY_ENGINE) :]


def _decode_named(theta: np.ndarray) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    size = len(DECODE_TERMS)
    decode = _guess(DECODE_GUESS, DECODE_TERMS) * np.exp(theta[:size])
    by_engine = theta[size:].reshape(len(BY_ENGINE) + 1, len(ENGINES))
    names = (*BY_ENGINE, "all")
    engines = {e: _named(names, by_engine[:, j]) for j, e in enumerate(ENGINES)}
    return _named(DECODE_TERMS, decode), engines


def _guess(guess: dict[str, float], names: Sequence[str]) -> np.ndarray:
    return np.array([guess[name] for name in names])


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


def document(data: Sequence[Point], today: str) -> dict[str, object]:
    """What the package ships, fitted on all rows that say their load."""
    loaded = [p for p in data if p.loaded]
    model = fit(Table(loaded))
    return {
        "decode": model.decode,
        "decode_engines": model.decode_engines,
        "ttft": model.ttft,
        "ttft_engines": model.ttft_engines,
        "provenance": {
            "data": "bench/accuracy/data/serving_latency_points.csv: measured sample of "
            "ai-dynamo/aiconfigurator",
            "command": COMMAND,
            "date": today,
            "rows": len(loaded),
        },
    }


if __name__ == "__main__":
    fitting.run("serving model", DATA, TARGET, lambda path, today: document(points(path), today))
