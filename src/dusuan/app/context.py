"""What every verb is given: the store, the engine, the clock, ids, secrets and policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dusuan.app.loading import Memory
from dusuan.app.reasons import Reasons
from dusuan.app.recording import Recorder
from dusuan.core.ledger.tick import SlicePolicy
from dusuan.core.planning.menu import Site
from dusuan.core.scheduling.policy import POLICIES, PolicyParts
from dusuan.core.workload.jobspec import Problem
from dusuan.engines.base import Engine
from dusuan.store.database import Store


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done: `per_s` for ever, `burst` at once. `per_s` 0: no limit."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes, times and rates that a request may not pass.

    `key_rate` is per API key. `stranger_rate` is per address: requests without a good key, and
    separately those that need none. `quote_bears_permille`: of the cap of an accepted quote, how
    much the centre bears beyond it.
    """

    job_file_bytes: int = 1_048_576
    upload_bytes: int = 64 * 1_048_576
    quote_valid_s: int = 3_600
    probe_s: int = 4
    files_kept_s: int = 30 * 86_400  # of a job that has ended: logs, outputs, journals, uploads
    answers_kept_s: int = 7 * 86_400  # by which a request sent twice is known
    rounds_kept_s: int = 7 * 86_400  # the log of scheduling rounds
    rounds_kept: int = 1_000_000  # ... and no more lines of it
    quote_bears_permille: int = 1_000
    key_rate: Rate = Rate(300.0, 600)
    stranger_rate: Rate = Rate(10.0, 100)
    body_wait_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Platform:
    """The parts a verb works with. `now` has a zone; `new_id(kind)` gives `kind_…`, sortable."""

    store: Store
    engine: Engine
    now: Callable[[], datetime]
    new_id: Callable[[str], str]
    new_secret: Callable[[], str]
    uploads: Path
    site: Site = field(default_factory=lambda: Site("local"))
    slices: SlicePolicy = field(default_factory=SlicePolicy)
    policy: PolicyParts = POLICIES["centre"]
    limits: Limits = field(default_factory=Limits)
    recorder: Recorder = field(default_factory=Recorder)
    memory: Memory = field(default_factory=Memory)
    reasons: Reasons = field(default_factory=Reasons)


class Refused(Exception):
    """A request that cannot be done, for a reason its sender can act on.

    The core returns expected failures as values; a verb raises this one exception so that the
    transaction it is in rolls back. `kind` is one of unauthenticated, forbidden, not_found,
    invalid, conflict, key_reused, too_large, too_slow, insufficient.
    """

    def __init__(self, kind: str, problem: Problem) -> None:
        super().__init__(problem.text)
        self.kind = kind
        self.problem = problem


def refuse(kind: str, code: str, text: str, remedy: str = "") -> Refused:
    """A `Refused` from its parts."""
    return Refused(kind, Problem(code, text, remedy=remedy))
