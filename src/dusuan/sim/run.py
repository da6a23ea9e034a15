"""One simulation: a trace on a site under a policy, from the first event to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.accounts import ACCOUNT, Records, accounts_array
from dusuan.core.scheduling.arrays import LINE, Integers, State
from dusuan.core.scheduling.policy import PREDICTORS, PolicyParts, rules
from dusuan.core.scheduling.state import new_state
from dusuan.sim.faults import FAULT
from dusuan.sim.measures import Measured, Reader
from dusuan.sim.trace import Site, Trace

ROUNDS_AT_ONCE = 20_000  # between two words on progress
LOG_LINES = 1 << 18  # of the log, before it is moved on


@dataclass(frozen=True, slots=True)
class Settings:
    """How a simulation runs. `log`: keep every decision. `restart_s`: what a restart costs."""

    policy: PolicyParts
    predict: str | None = None
    restart_s: float = 60.0
    log: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation left. `lines` is the log of decisions, LINE[L], when it was kept.

    `wall_s` is the event loop alone, compiled; `measured` is read off the log beside it.
    """

    site: Site
    trace: Trace
    settings: Settings
    state: State
    tally: Records
    lines: Records
    measured: Measured
    wall_s: float
    notes: tuple[str, ...] = field(default=())


class Progress(Protocol):
    """Told how many jobs have ended, of how many."""

    def __call__(self, done: int, of: int, /) -> None: ...


def is_compiled() -> bool:
    """Whether the event loop comes from the cache; else the first simulation compiles it."""
    from dusuan.core.scheduling.compiled import is_cached
    from dusuan.sim.gauges.read import read_on
    from dusuan.sim.kernels.loop import advance

    return is_cached(advance) and is_cached(read_on)


def simulate(
    site: Site,
    trace: Trace,
    settings: Settings,
    clock_s: Callable[[], float],
    faults: Records | None = None,
    accounts: Records | None = None,
    progress: Progress = lambda _done, _of: None,
) -> Outcome:
    """Run `trace` on `site`. `clock_s` measures the loop; `faults` is FAULT[F] by time."""
    from dusuan.sim.kernels import heap, loop  # numba, for a simulation only

    state = _state(site, trace, accounts)
    compiled = rules(settings.policy, settings.predict, settings.restart_s)
    come = _arrivals(state)
    broken = np.zeros(0, FAULT) if faults is None else faults
    log = np.zeros(LOG_LINES + 8 * len(state.lines) + len(trace.jobs), LINE)
    tally = _tally(loop.TALLY, come, broken, log)
    ends, alarms = heap.new_heap(len(trace.jobs)), heap.new_heap(len(trace.jobs))
    arguments = (state.record, compiled[0], tally[0], ends.record, alarms.record)
    loop.advance(*arguments, 0)  # compiled, or loaded from the cache, before the clock starts
    pieces = _pieces(partial(loop.advance, *arguments), tally, log, clock_s)
    reader, kept, wall_s = Reader(state), [log[:0]], 0.0
    for piece, spent_s in pieces:
        wall_s += spent_s
        reader.read(piece)
        kept += [piece.copy()] if settings.log else []
        progress(int(tally["ended"][0]), len(trace.jobs))
    lines, notes = np.concatenate(kept), _notes(site, trace, settings)
    return Outcome(site, trace, settings, state, tally, lines, reader.result(), wall_s, notes)


def _pieces(
    advance: Callable[[int], int],
    tally: npt.NDArray[np.void],
    log: Records,
    clock_s: Callable[[], float],
) -> Iterator[tuple[Records, float]]:
    """Advance to the end: piece by piece the log, until the next one, and the seconds it took."""
    from dusuan.sim.kernels.loop import DONE, GOES_ON

    answer = GOES_ON
    while answer != DONE:
        began_s = clock_s()
        answer = advance(ROUNDS_AT_ONCE)
        spent_s = clock_s() - began_s
        yield log[: int(tally["logged"][0])], spent_s
        tally["logged"] = 0
    if tally["dropped"][0]:
        raise RuntimeError(f"{tally['dropped'][0]} lines did not fit into the log")


def _state(site: Site, trace: Trace, accounts: Records | None) -> State:
    known = accounts_array(len(trace.accounts)) if accounts is None else accounts
    if known.dtype != ACCOUNT:
        raise ValueError("accounts are no ACCOUNT array")
    return new_state(site.nodes, site.ratings, trace.jobs, known)


def _arrivals(state: State) -> Integers:
    moment = np.maximum(state.jobs["submit_ms"], state.jobs["earliest_ms"])
    return np.argsort(moment, kind="stable").astype(np.int64)


def _tally(
    layout: np.dtype[np.void], arrivals: Integers, faults: Records, log: Records
) -> npt.NDArray[np.void]:
    tally = np.zeros(1, layout)
    for name, array in (("arrivals", arrivals), ("faults", faults), ("log", log)):
        tally[f"{name}_at"] = array.ctypes.data
        tally[name] = len(array)
    return tally


def _notes(site: Site, trace: Trace, settings: Settings) -> tuple[str, ...]:
    """What a reader of the result should know."""
    predict = settings.predict or settings.policy.predict
    notes = [*site.notes, *trace.notes]
    if predict not in PREDICTORS:
        raise ValueError(f"unknown prediction {predict!r}")
    if predict == "user" and (trace.jobs["estimate_ms"] < 0).all():
        notes.append("the trace has no estimates by users: run times are taken as unknown")
    return tuple(notes)
