"""A recorded day decided again: by the same rules from the same facts, move by move.

The replayer holds a sight of its own. Before each round it takes in what the log says of the world
(who came, what ended, which devices went down, what money stopped), and lets the rules decide at
the recorded moment; its own moves change its sight. It never looks at what was decided, but to
compare. From the first difference on it goes by the recorded moves, or nothing after would fit:
each round is judged by itself then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dusuan.core.plain import NotPlain
from dusuan.core.scheduling.live import Moves, Sight, after, decide
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.core.scheduling.record import (
    Entry,
    codes_of,
    evolved,
    reasons_read,
    waiters,
)
from dusuan.core.workload.jobspec import Problem
from dusuan.sim.files import BadTraceError, understood
from dusuan.sim.rounds import AGAIN, entries

LEASE, LOST, CANCELLED = "lease", "lost", "cancelled"


@dataclass(slots=True)
class Counts:
    """What the log holds. `decisions` are starts, preemptions and claims.

    `reasons`: how many reasons of waiting jobs were compared. `budget_stops`: attempts that ended
    because nothing more could be set aside, from their balance or below a ceiling.
    """

    rounds: int = 0
    quiet_rounds: int = 0
    decisions: int = 0
    starts: int = 0
    preemptions: int = 0
    claims: int = 0
    reasons: int = 0
    arrivals: int = 0
    node_losses: int = 0
    jobs_lost: int = 0
    budget_stops: int = 0
    cancelled: int = 0
    service_starts: int = 0
    rounds_lost: int = 0

    def take(self, entry: Entry, *, first: bool) -> None:
        """One more line. What the first says of the time before it is none of this log's."""
        moves = entry.moves
        self.rounds += 1
        self.quiet_rounds += 0 if first else entry.quiet
        self.starts += len(moves.starts)
        self.preemptions += len(moves.preempts)
        self.claims += len(moves.claims)
        self.decisions = self.starts + self.preemptions + self.claims
        self.service_starts += entry.fresh
        self.rounds_lost += entry.lost is not None
        for left in () if first else entry.left.values():
            self.budget_stops += left.why == LEASE
            self.jobs_lost += left.why == LOST
            self.cancelled += left.to == CANCELLED

    def compare(self, before: Sight, seen: Sight, entry: Entry) -> None:
        """Who came and which nodes went, from one sight to the next."""
        known = {each.job.job_id for each in before.waiting} | entry.left.keys()
        self.arrivals += sum(each.job.job_id not in known for each in seen.waiting)
        if before.pool.devices is not seen.pool.devices:
            self.node_losses += len(_good_nodes(before) - _good_nodes(seen))


def _good_nodes(sight: Sight) -> set[str]:
    return {d.node for d in sight.pool.devices if d.ready}


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that was decided otherwise. `job` is None for a round that was quiet."""

    round: int
    line: int
    at_ms: int
    job: str
    recorded: str
    replayed: str


@dataclass(slots=True)
class Replayed:
    """What came of a replay. `policy` is the replayer's, `recorded_policy` the log's last."""

    counts: Counts = field(default_factory=Counts)
    policy: str = ""
    recorded_policy: str = ""
    from_ms: int = 0
    until_ms: int = 0
    rounds_that_differ: int = 0
    first: Difference | None = None

    @property
    def is_same(self) -> bool:
        """Whether everything was there, and decided as it was recorded."""
        return self.rounds_that_differ == 0 and self.counts.rounds_lost == 0


@dataclass(frozen=True, slots=True)
class _State:
    """What the replayer knows before a round. `codes` are reasons as recorded."""

    sight: Sight
    codes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One round: what was seen, what the replayer does, and what it gives as reasons."""

    seen: Sight
    moves: Moves
    codes: Mapping[str, str]


def replay(
    path: Path, policy: PolicyParts | None, told: Callable[[int], None] = lambda _: None
) -> Replayed | Problem:
    """Replay the record at `path` under its own policy, or under `policy`. `told`: rounds done."""
    return understood(path, lambda: _Replay(path, policy).run(told))


class _Replay:
    def __init__(self, path: Path, policy: PolicyParts | None) -> None:
        self._path = path
        self._given = policy
        self._policy = policy
        self._state: _State | None = None
        self._result = Replayed(policy=policy.name if policy else "")

    def run(self, told: Callable[[int], None]) -> Replayed:
        """All rounds of the file."""
        for number, entry in entries(self._path):
            self._note(entry)
            try:
                self._take(number, entry)
            except (NotPlain, KeyError) as wrong:
                words = f"{self._path}, line {number} does not fit what stands before it: {wrong}"
                raise BadTraceError("gap", words, number, AGAIN) from None
            told(self._result.counts.rounds)
        return self._result

    def _note(self, entry: Entry) -> None:
        result = self._result
        result.counts.take(entry, first=result.counts.rounds == 0)
        result.from_ms = result.from_ms or entry.at_ms
        result.until_ms = entry.at_ms
        if entry.policy is not None:
            result.recorded_policy = entry.policy.name
            self._policy = self._given or entry.policy
            result.policy = self._policy.name

    def _take(self, number: int, entry: Entry) -> None:
        """One line: what it says of the world, then a round."""
        if entry.lost is not None:
            self._state = None
            return
        before = None if entry.fresh else self._state
        if before is not None:
            self._quiet(number, entry, before)
        seen = self._seen(entry, before)
        if before is not None:
            self._result.counts.compare(before.sight, seen, entry)
        turn = self._decide(seen, entry.at_ms)
        recorded = reasons_read(entry, before.codes if before else {}, waiters(seen, entry.moves))
        self._result.counts.reasons += len(recorded)
        differs = self._judge(number, entry, turn, recorded)
        moves = entry.moves if differs else turn.moves
        self._state = _State(after(seen, moves, entry.at_ms), recorded)

    def _seen(self, entry: Entry, before: _State | None) -> Sight:
        if before is None:
            if entry.whole is None:
                raise NotPlain("it does not say what it saw as a whole")
            return entry.whole
        seen = evolved(before.sight, entry)
        if entry.whole is not None and entry.whole != seen:
            raise NotPlain("the whole that it saw is not what the lines before lead to")
        return seen

    def _decide(self, seen: Sight, now_ms: int) -> _Turn:
        if self._policy is None:
            raise NotPlain("no line before it names the policy")
        moves, plan = decide(seen, self._policy, now_ms)
        return _Turn(seen, moves, codes_of(seen, moves, plan))

    def _quiet(self, number: int, entry: Entry, before: _State) -> None:
        """The last round in which nothing new was seen has to have done nothing."""
        if entry.quiet_ms is None:
            return
        turn = self._decide(before.sight, entry.quiet_ms)
        quiet = replace(entry, at_ms=entry.quiet_ms, moves=Moves())
        self._judge(number, quiet, turn, before.codes)

    def _judge(self, number: int, entry: Entry, turn: _Turn, recorded: Mapping[str, str]) -> bool:
        """Whether the replayer does anything otherwise than was recorded."""
        found = next(_differences(number, entry, turn, recorded), None)
        if found is None:
            return False
        self._result.rounds_that_differ += 1
        self._result.first = self._result.first or found
        return True


def _differences(
    number: int, entry: Entry, turn: _Turn, recorded: Mapping[str, str]
) -> Iterator[Difference]:
    """What was recorded and what is replayed, by job, in the order in which it matters."""
    if _as_sets(entry.moves) == _as_sets(turn.moves) and _alike(recorded, turn.codes):
        return
    then, now = _fates(entry.moves, recorded), _fates(turn.moves, turn.codes)
    for job in (*then, *(name for name in now if name not in then)):
        was, comes = then.get(job, "goes on as it is"), now.get(job, "goes on as it is")
        if was != comes:
            yield Difference(entry.n, number, entry.at_ms, job, was, comes)


def _as_sets(moves: Moves) -> tuple[set[object], ...]:
    return tuple(set(part) for part in (moves.starts, moves.preempts, moves.claims, moves.void))


def _alike(recorded: Mapping[str, str], replayed: Mapping[str, str]) -> bool:
    """Whether the reasons are the same, for jobs that still wait."""
    return all(recorded.get(name) == code for name, code in replayed.items())


def _fates(moves: Moves, codes: Mapping[str, str]) -> dict[str, str]:
    """What becomes of each job, in words."""
    fates = {s.job_id: f"starts on {', '.join(s.devices)}" for s in moves.starts}
    fates |= {p.job_id: f"is stopped for {p.for_job}" for p in moves.preempts}
    fates |= {c.job_id: f"is promised {', '.join(c.devices)}" for c in moves.claims}
    fates |= dict.fromkeys(moves.void, "loses what it was promised")
    return fates | {n: f"waits: {code}" for n, code in codes.items() if n not in fates}


def document_of(path: Path, found: Replayed) -> dict[str, Any]:
    """The result as a document; the first difference in words."""
    first = found.first and {**asdict(found.first), "at": _moment(found.first.at_ms)}
    return {
        "file": str(path),
        "policy": found.policy,
        "recorded_policy": found.recorded_policy,
        "from": _moment(found.from_ms),
        "until": _moment(found.until_ms),
        **asdict(found.counts),
        "same": found.is_same,
        "rounds_that_differ": found.rounds_that_differ,
        "difference": first,
    }


def _moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat()
