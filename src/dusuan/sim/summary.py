"""What a simulation showed: waits, slowdowns, use, fairness, losses, energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import ENDED, WHOLE
from dusuan.core.units import GFLOP_PER_DEGREE
from dusuan.sim.run import Outcome

SLOWDOWN_FLOOR_S = 10.0  # shorter jobs count as this long (Feitelson's bounded slowdown)
IDLE_POWER = 0.2  # of an idle device, as part of its power under load: an assumption
ACCOUNTS_MOST = 1000  # that a document lists

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
    jobs, tally, measured = outcome.state.jobs, outcome.tally, outcome.measured
    ended = jobs[jobs["state"] == ENDED]
    span_s = (int(ended["end_ms"].max()) - int(jobs["submit_ms"].min())) / 1000 if len(ended) else 0
    room_s = outcome.site.devices * span_s
    asked = ended["devices"] * ended["milli"]
    milli = np.where(ended["gflops"] > 0, ended["taken_milli"], asked)  # as the type made it
    useful_s = float((milli / WHOLE * _run_ms(ended)).sum()) / 1000
    return {
        "makespan_s": round(span_s, 1),
        "utilisation": _part(useful_s, room_s),
        "allocation": _part(float(measured.held_s.sum()), room_s),
        "idle_while_waiting": _part(float(tally["idle_wanted"][0]) / 1000, room_s),
        "fragmentation": _part(measured.fragment_s, room_s),
        "fragmentation_peak": _part(measured.fragment_peak, outcome.site.devices),
        "fragmentation_of_idle": _part(measured.fragment_s, measured.idle_s),
        "down": _part(float(tally["down"][0]) / 1000, room_s),
        "sold_degrees": _sold_degrees(outcome),
        "energy_kwh": _energy_kwh(outcome, room_s - float(tally["down"][0]) / 1000),
    }


def _part(of: float, whole: float) -> float | None:
    return round(of / whole, 6) if whole else None


def _sold_degrees(outcome: Outcome) -> str | None:
    """What jobs held, by the ratings of the devices that they held: what the meter bills."""
    ratings = outcome.state.types["rating_gflops"]
    gflop = float((outcome.measured.held_s * ratings).sum())
    return f"{gflop / GFLOP_PER_DEGREE:.4f}" if gflop else None


def _energy_kwh(outcome: Outcome, up_s: float) -> float | None:
    """Of the devices alone: under load while held, idle otherwise. None without known powers.

    What is down draws nothing; it is taken as spread evenly over the device types.
    """
    watts, gpus = np.array(outcome.site.watts or (0.0,)), outcome.state.types["gpus"]
    if not watts.all():
        return None
    held_s = outcome.measured.held_s[: len(watts)]
    there_s = up_s * gpus[: len(watts)] / max(gpus.sum(), 1)
    load_s = held_s + IDLE_POWER * np.maximum(there_s - held_s, 0.0)
    return round(float((watts * load_s).sum()) / 3.6e6, 1)


def _losses(outcome: Outcome) -> dict[str, Any]:
    jobs = outcome.state.jobs
    return {
        "restarts": int(jobs["restarts"].sum()),
        "lost_gpu_s": round(float(jobs["lost_ms"].sum()) / 1000, 1),
    }


def _fairness(outcome: Outcome) -> dict[str, Any]:
    """Jain's index over accounts of mean bounded slowdown, and of share got over share owed.

    Accounts in order of what they were owed and did not get; `ACCOUNTS_MOST` of them.
    """
    rows = by_account(outcome)
    owed = [row for row in rows if row["owed_gpu_s"] > 0]
    found: dict[str, Any] = {
        "jain_slowdown": jain(np.array([r["avg_bounded_slowdown"] for r in rows if r["jobs"]])),
        "jain_share": jain(np.array([row["got_gpu_s"] / row["owed_gpu_s"] for row in owed])),
        "shortfall_most": max((row["shortfall"] for row in owed), default=None),
        "shortfall_gpu_s": round(sum(row["shortfall_gpu_s"] for row in rows), 1),
        "accounts": rows[:ACCOUNTS_MOST],
    }
    if outcome.measured.step_s:
        found["share_step_s"] = outcome.measured.step_s
    return found


def by_account(outcome: Outcome) -> list[dict[str, Any]]:
    """What each account with jobs was owed, got and waited; who got least of its share first."""
    measured = outcome.measured
    mine = outcome.trace.jobs["account"][outcome.state.jobs["state"] == ENDED]
    found, count = times(outcome), len(outcome.state.places)
    ended = np.bincount(mine, minlength=count)
    slow, wait = (np.bincount(mine, x, count) for x in (found.slowdown, found.wait_s))
    rows = [
        {
            "account": outcome.trace.accounts[a] if a < len(outcome.trace.accounts) else str(a),
            "jobs": int(ended[a]),
            **_shares(float(measured.owed_s[a]), float(measured.got_s[a])),
            "avg_wait_s": round(float(wait[a]) / max(int(ended[a]), 1), 1),
            "avg_bounded_slowdown": round(float(slow[a]) / max(int(ended[a]), 1), 3),
        }
        for a in np.flatnonzero((ended > 0) | (measured.owed_s > 0)).tolist()
    ]
    return sorted(rows, key=lambda row: -row["shortfall_gpu_s"])


def _shares(owed_s: float, got_s: float) -> dict[str, float | None]:
    """Share owed against share got, in device-seconds; the shortfall also as part of what was."""
    short_s = max(owed_s - got_s, 0.0)
    return {
        "owed_gpu_s": round(owed_s, 3),
        "got_gpu_s": round(got_s, 3),
        "shortfall_gpu_s": round(short_s, 3),
        "shortfall": _part(short_s, owed_s),
    }


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
