"""The errors of every estimate on data that its fit has not seen."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable

from bench.accuracy import fit_energy, fit_mfu, fit_runs, fit_serving
from bench.accuracy.errors import Errors, left_out
from bench.accuracy.fit_serving import Point, Table
from threadpoolctl import threadpool_limits

from dusuan.core.workload import flops, goodput, memory, runs, serving
from dusuan.core.workload.architecture import Architecture, Attention, Block, FeedForward
from dusuan.core.workload.flops import Recompute
from dusuan.core.workload.memory import Layout
from dusuan.facts.library import library

VERSION_FOLDS = 5
# Families whose energy was metered; the others multiply rated power by hours.
MEASURED_ENERGY = frozenset({"Granite3"})
RUN_HOURS = "device-hours of a training run"
TPOT = "time per output token (TPOT)"
TTFT = "time to the first token (TTFT)"
STEPS = fit_runs.ROOT / "bench/accuracy/data/step_points.csv"


def steps() -> list[Errors]:
    """Utilisation of a training step."""
    data = fit_mfu.points()

    def predict(seen: list[fit_mfu.Point], unseen: list[fit_mfu.Point]) -> list[float]:
        fitted = fit_mfu.fit(seen)
        return [fit_mfu.error(fitted, p) for p in unseen]

    splits: dict[str, Callable[[fit_mfu.Point], str]] = {
        "one model size at a time": _size,
        "one device at a time": lambda p: p.device,
        "one section of the source at a time": lambda p: p.section,
    }
    target = "utilisation of a training step"
    found = [Errors(target, n, tuple(left_out(data, g, predict))) for n, g in splits.items()]
    return [*found, _split_steps(target, fit_mfu.fit(data))]


def _split_steps(target: str, held: dict[str, float]) -> Errors:
    """Steps of tensor and pipeline parallel jobs, with the terms of others as they are."""

    def predict(seen: list[fit_mfu.Point], unseen: list[fit_mfu.Point]) -> list[float]:
        fitted = held | fit_mfu.fit_split(seen, held)
        return [fit_mfu.error(fitted, p) for p in unseen]

    split = "tensor and pipeline parallel (Megatron, A100), one model size at a time"
    return Errors(target, split, tuple(left_out(fit_mfu.split_points(), _size, predict)))


def _size(point: fit_mfu.Point) -> str:
    return point.size


def training_runs() -> list[Errors]:
    """Device-hours of a training run; the interval's width is nested in the same way."""
    every = fit_runs.points()
    data = fit_runs.used(every, fit_runs.FIT)
    covered = []
    errors = fit_runs.nested(data)
    for point, error in errors:
        others = [pair for pair in errors if pair[0].family != point.family]
        covered.append(abs(error) <= fit_runs.spread(others))
    split = "one family at a time, strength of the ridge chosen without it"
    logs = tuple(e for _, e in errors)
    unseen = {
        "six families, set aside before anything was chosen": fit_runs.ASIDE,
        "models distilled from larger ones": fit_runs.DISTILLED,
    }
    fitted, width = fit_runs.fit(data, fit_runs.choose(data)), fit_runs.spread(errors)
    return [
        Errors(RUN_HOURS, split, logs, sum(covered) / len(covered)),
        *(_unseen(n, fit_runs.used(every, use), fitted, width) for n, use in unseen.items()),
    ]


def _unseen(
    split: str, data: list[fit_runs.Point], fitted: dict[str, float], width: float
) -> Errors:
    logs = tuple(fit_runs.error(fitted, p) for p in data)
    return Errors(RUN_HOURS, split, logs, sum(abs(e) <= width for e in logs) / len(logs))


def serving_times() -> list[Errors]:
    """TPOT and TTFT of serving."""
    every = fit_serving.points()
    chosen = fit_serving.held_back(every)
    loaded = [p for p in every if p.loaded]
    aside = [p for p in loaded if fit_serving.is_held_back(p, chosen)]
    rest = [p for p in loaded if not fit_serving.is_held_back(p, chosen)]
    splits: dict[str, Callable[[Point], str]] = {
        "one model at a time": lambda p: p.model_kind,
        "one system at a time": lambda p: p.system,
        "a fifth of the engines' versions at a time": _fold,
    }
    found = [_serving("a fifth of the configurations, set aside before the design", rest, aside)]
    for name, group in splits.items():
        both: list[tuple[list[float], list[float]]] = []
        for key in sorted({group(p) for p in loaded}):
            seen = [p for p in loaded if group(p) != key]
            both.append(_times(seen, [p for p in loaded if group(p) == key]))
        found.append(_named(name, *([e for part in both for e in part[i]] for i in (0, 1))))
    blank = _times(loaded, [p for p in every if not p.loaded])[0]
    unknown = Errors(TPOT, "disaggregated rows that do not say their load", tuple(blank))
    by_system = found[2][0]
    both = Errors(TPOT, "all rows: one system at a time, and those", by_system.logs + unknown.logs)
    return [line for pair in found for line in pair] + [unknown, both]


def _fold(point: Point) -> str:
    digest = hashlib.sha1(point.version.encode()).digest()
    return str(digest[0] % VERSION_FOLDS)


def _serving(split: str, seen: list[Point], unseen: list[Point]) -> list[Errors]:
    return _named(split, *_times(seen, unseen))


def _named(split: str, tpot: list[float], ttft: list[float]) -> list[Errors]:
    return [Errors(TPOT, split, tuple(tpot)), Errors(TTFT, split, tuple(ttft))]


def _times(seen: list[Point], unseen: list[Point]) -> tuple[list[float], list[float]]:
    model = fit_serving.fit(Table(seen))
    tpot = [math.log(serving.tpot_s(model, p.use) / p.tpot_s) for p in unseen]
    return tpot, [math.log(serving.ttft_s(model, p.use) / p.ttft_s) for p in unseen]


def flop_counts() -> list[Errors]:
    """The exact count against Megatron's closed formula (arXiv 2104.04473), 22 B to 1 T."""
    with STEPS.open(encoding="utf-8", newline="") as lines:
        rows = {row["model"]: row for row in csv.DictReader(lines)}
    logs = []
    for row in rows.values():
        h, layers, seq, vocab = (int(row[n]) for n in ("hidden", "layers", "seq", "vocab"))
        formula = 72 * layers * seq * h**2 * (1 + seq / (6 * h) + vocab / (12 * layers * h))
        counted = flops.training(megatron(row), seq, seq, full_square=True)
        logs.append(math.log(counted / formula))
    return [Errors("FLOP of training", "nothing is fitted: Megatron's formula", tuple(logs))]


def megatron(row: dict[str, str]) -> Architecture:
    """A GPT of the table of step times."""
    hidden, heads = int(row["hidden"]), int(row["heads"])
    dim = hidden // heads
    mixer = Attention(heads, heads, dim, dim, extra_weights=4 * hidden)
    feed = FeedForward(4 * hidden, gated=False, bias=True)
    block = Block(int(row["layers"]), mixer, feed, 4 * hidden)
    seq, vocab = int(row["seq"]), int(row["vocab"])
    return Architecture(row["model"], hidden, vocab, (block,), tied=True, positions=seq)


# Activations of one layer's share on the first stage in GiB, Korthikanti et al. (arXiv 2205.05198):
# 22 B with tensor parallelism alone and with sequence parallelism and selective recomputation,
# then 175 B and 530 B with an interleaved pipeline.
KORTHIKANTI = (
    ("22B", Layout(tensor=8, micro_batch=4, sequence_parallel=False), False, 59.25),
    (
        "22B",
        Layout(tensor=8, micro_batch=4, sequence_parallel=True, recompute=Recompute.SELECTIVE),
        False,
        9.5625,
    ),
)


def energies() -> list[Errors]:
    """Energy of runs: power alone, at the published hours, so that time is not judged twice."""
    measured, derived = [], []
    data = fit_energy.points()
    with fit_runs.DATA.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if not row["energy_mwh_pub"] or not row["gpu_hours"]:
                continue
            from_rating = row["family"] not in MEASURED_ENERGY
            log = _energy_error(row, data if from_rating else _without(data, row["model"]))
            (derived if from_rating else measured).append(log)
    rating = "energy of a run, published as rated power x hours"
    return [
        Errors("energy of a run, measured", "one family at a time", tuple(measured)),
        Errors(rating, "nothing: none is fitted on", tuple(derived)),
    ]


def _without(data: list[fit_energy.Point], model: str) -> list[fit_energy.Point]:
    """The points of other families: `Granite-3.0-8B` leaves out all of Granite."""
    family = model.split("-", 1)[0]
    return [p for p in data if not p.name.startswith(family)]


def _energy_error(row: dict[str, str], data: list[fit_energy.Point]) -> float:
    run = runs.read(row, library().device, library().models)
    assert isinstance(run, runs.Run)
    idle, slope = fit_energy.fit(data)
    reached = goodput.utilisation(library().runs, run.features)
    power = run.device.tdp_w
    assert power is not None
    said_mwh = power * (idle + slope * reached) * float(row["gpu_hours"]) / 1e6
    pue = float(row["pue_pub"] or 1.0)
    return math.log(said_mwh * pue / float(row["energy_mwh_pub"]))


def memories() -> list[Errors]:
    """Activations against Korthikanti et al."""
    with STEPS.open(encoding="utf-8", newline="") as lines:
        rows = {row["model"]: row for row in csv.DictReader(lines)}
    logs = []
    for name, layout, flash, gib in KORTHIKANTI:
        row = rows[name]
        arch = megatron(row)
        counted = memory.pipeline_activations(arch, int(row["seq"]), layout, flash=flash)
        logs.append(math.log(counted / memory.GIB / gib))
    return [Errors("activations", "nothing is fitted: Korthikanti et al.", tuple(logs))]


def everything() -> list[Errors]:
    """All lines of the table."""
    exact = flop_counts() + memories()
    with threadpool_limits(limits=1):  # the systems are small: threads only get in each other's way
        fitted = steps() + training_runs() + serving_times()
    return exact + fitted + energies()
