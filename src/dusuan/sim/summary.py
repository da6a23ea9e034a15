"""What a simulation showed: waits, slowdowns, use, fairness, losses, energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import END, ENDED, LOST, PREEMPT, START, SUBMIT, WHOLE
from dusuan.sim.run import Outcome

SLOWDOWN_FLOOR_S = 10.0  # shorter jobs count as this long (Feitelson's bounded slowdown)
IDLE_POWER = 0.2  # of an idle device, as part of its power under load
GFLOP_PER_DEGREE = 1_123_200_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Times:
    """Per job that ended, in seconds."""

    wait_s: Floats
    jct_s: Floats
    run_s: Floats
    slowdown: Floats


def times(outcome: Outcome) -> Times:
    """Waits, completion times and bounded slowdowns of the jobs that ended.

    A wait is all the time in which a job did not get on: before its first start, after a
    preemption, in restarts. On a device rated differently from the trace's, its run is that there.
    """
    jobs = outcome.state.jobs
    ended = jobs[jobs["state"] == ENDED]
    jct_s = (ended["end_ms"] - np.maximum(ended["submit_ms"], ended["earliest_ms"])) / 1000
    run_s = _run_ms(ended) / 1000
    slowdown = np.maximum(1.0, jct_s / np.maximum(run_s, SLOWDOWN_FLOOR_S))
    return Times(jct_s - run_s, jct_s, run_s, slowdown)


def _run_ms(ended: Any) -> Floats:
    """Run time without interruption on the devices that each job last ran on."""
    same = (ended["rating_gflops"] == 0) | (ended["speed_gflops"] == 0)
    speed = np.where(same, 1, ended["speed_gflops"])
    reference = np.where(same, 1, ended["rating_gflops"])
    return np.asarray(np.ceil(ended["run_ms"] * reference / speed), np.float64)


def _held_ms(ended: Any) -> Floats:
    """Device-milliseconds that each job held; of a shared device its share."""
    shared = ended["attained_ms"] * ended["devices"] * (ended["milli"] / WHOLE)
    return np.asarray(np.where(ended["milli"] < WHOLE, shared, ended["held_ms"]), np.float64)


def summary(outcome: Outcome, load_s: float = 0.0) -> dict[str, Any]:
    """The result as one document; names are those of the command's JSON."""
    found, tally = times(outcome), outcome.tally
    decisions = int(tally["decisions"][0])
    rejected = outcome.trace.rejected + int(tally["rejected"][0])
    return {
        "policy": outcome.settings.policy.name,
        "predict": outcome.settings.predict or outcome.settings.policy.predict,
        "jobs": len(found.jct_s),
        "jobs_rejected": rejected,
        **_waits(found),
        **_use(outcome),
        **_losses(outcome),
        **_fairness(outcome),
        **_prediction(outcome),
        "load_s": round(load_s, 3),
        "wall_s": round(outcome.wall_s, 4),
        "decisions": decisions,
        "decisions_per_s": round(decisions / max(outcome.wall_s, 1e-9)),
        "rounds": int(tally["rounds"][0]),
        "notes": list(outcome.notes),
    }


def _waits(found: Times) -> dict[str, Any]:
    if not len(found.jct_s):
        names = ("avg_jct_s", "avg_wait_s", "avg_bounded_slowdown", "p50_wait_s", "p90_wait_s")
        return dict.fromkeys((*names, "p99_wait_s", "p999_wait_s", "max_wait_s"))
    wait = found.wait_s
    quantile = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {
        "avg_jct_s": round(float(found.jct_s.mean()), 2),
        "avg_wait_s": round(float(wait.mean()), 2),
        "avg_bounded_slowdown": round(float(found.slowdown.mean()), 3),
        **{f"{k}_wait_s": round(float(np.quantile(wait, q)), 1) for k, q in quantile.items()},
        "max_wait_s": round(float(wait.max()), 1),
    }


def _use(outcome: Outcome) -> dict[str, Any]:
    """How the devices were used from the first submission to the last end."""
    jobs, tally = outcome.state.jobs, outcome.tally
    ended = jobs[jobs["state"] == ENDED]
    span_s = (int(ended["end_ms"].max()) - int(jobs["submit_ms"].min())) / 1000 if len(ended) else 0
    room, held = outcome.site.devices * span_s * 1000, float(_held_ms(ended).sum())
    useful = float((ended["devices"] * ended["milli"] / WHOLE * _run_ms(ended)).sum())
    gflop = float((_held_ms(ended) / 1000 * ended["speed_gflops"]).sum())
    return {
        "makespan_s": round(span_s, 1),
        "utilisation": round(useful / room, 6) if room else None,
        "allocation": round(held / room, 6) if room else None,
        "idle_while_waiting": round(float(tally["idle_wanted"][0]) / room, 6) if room else None,
        "down": round(float(tally["down"][0]) / room, 6) if room else None,
        "held_degrees": f"{gflop / GFLOP_PER_DEGREE:.4f}" if gflop else None,
        "energy_kwh": _energy_kwh(outcome, held / 1000, span_s),
    }


def _energy_kwh(outcome: Outcome, held_s: float, span_s: float) -> float | None:
    """Of the devices alone: under load while held, idle otherwise. None without known powers."""
    watts = np.array(outcome.site.watts or (0.0,))
    gpus = outcome.state.types["gpus"][: len(watts)]
    if not watts.all():
        return None
    mean = float((watts * gpus).sum() / gpus.sum())
    idle_s = max(outcome.site.devices * span_s - held_s, 0.0)
    return round(mean * (held_s + IDLE_POWER * idle_s) / 3.6e6, 1)


def _losses(outcome: Outcome) -> dict[str, Any]:
    jobs = outcome.state.jobs
    return {
        "restarts": int(jobs["restarts"].sum()),
        "lost_gpu_s": round(float(jobs["lost_ms"].sum()) / 1000, 1),
    }


def _fairness(outcome: Outcome) -> dict[str, Any]:
    """Jain's index over accounts of mean bounded slowdown, and of share got over share owed."""
    jobs, accounts = outcome.state.jobs, outcome.state.accounts
    ended = jobs[jobs["state"] == ENDED]
    slowdown, got = times(outcome).slowdown, _held_ms(ended)
    per_job = np.bincount(ended["account"], minlength=len(accounts)).astype(float)
    sums = np.bincount(ended["account"], slowdown, len(accounts))[per_job > 0]
    mean = np.asarray(sums / per_job[per_job > 0], np.float64)
    owed = accounts["weight"][per_job > 0]
    used = np.bincount(ended["account"], got, len(accounts))[per_job > 0]
    share = np.asarray(used / owed, np.float64)
    return {"jain_slowdown": jain(mean), "jain_share": jain(share)}


def jain(values: Floats) -> float | None:
    """Jain's fairness index: 1 when all are alike, 1/n when one has it all."""
    squares = float((values**2).sum())
    if not len(values) or squares == 0:
        return None
    return round(float(values.sum()) ** 2 / (len(values) * squares), 4)


def _prediction(outcome: Outcome) -> dict[str, Any]:
    values = outcome.state.values
    count = int(values["predictions"][0])
    if not count:
        return {"prediction_error_s": None, "prediction_accuracy": None}
    return {
        "prediction_error_s": round(float(values["error_ms"][0]) / count / 1000, 1),
        "prediction_accuracy": round(float(values["accuracy"][0]) / count, 4),
    }


@dataclass(frozen=True, slots=True)
class Series:
    """What held and waited after each line of a log; hours since the first submission."""

    hours: Floats
    held: Floats  # devices
    waiting: Floats  # jobs


def over_time(outcome: Outcome) -> Series:
    """Devices held and jobs waiting over time, from the log of decisions."""
    lines = outcome.lines
    taken = np.bitwise_count(lines["devices"]).astype(np.int64) * lines["milli"] / WHOLE
    held, waiting = np.zeros(len(lines)), np.zeros(len(lines))
    holds: dict[int, float] = {}
    for i, (kind, who) in enumerate(lines[["kind", "job"]].tolist()):
        if kind == START:
            held[i] = taken[i]
            waiting[i] = 0 if who in holds else -1
            holds[who] = holds.get(who, 0) + held[i]
        elif kind in (END, PREEMPT, LOST):
            held[i] = -holds.pop(who)
            waiting[i] = 0 if kind == END else 1
        elif kind == SUBMIT:
            waiting[i] = 1
    return Series(lines["time_ms"] / 3_600_000, np.cumsum(held), np.cumsum(waiting))
