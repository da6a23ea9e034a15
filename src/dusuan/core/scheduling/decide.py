"""A round over arrays: the one door to the compiled rules, which are imported on first use.

The live service sets up a state from its snapshot with `occupy` and `fill_queue` and reads the
`Decision`. The simulator's event loop calls the same compiled round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dusuan.core.scheduling.accounts import UNLIMITED
from dusuan.core.scheduling.arrays import (
    PREEMPT,
    RESERVE,
    START,
    WAITING,
    WHOLE,
    Integers,
    Records,
    State,
)

REASONS = ("", "capacity", "order", "quota", "earliest", "turn")  # by the `reason` of a job
POOL = -1  # instead of an account: the pool


@dataclass(frozen=True, slots=True)
class Part:
    """What a job gets on one node: device numbers, and milli of each of them."""

    node: int
    devices: tuple[int, ...]
    milli: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a round decided; jobs and nodes by their index. `starts` and `preempts` are in order.

    `preempts` says for whom; `reserved` at which moment (ms) a waiting job is expected to start;
    `waits` has the reason of every job that waits, `limits` the account whose quota it lacks or
    waits its turn for; POOL: others do not lend what is idle. `kept`: until which moment (ms) what
    is left there is kept for a job before, for those who wait their turn; `kept_for`: the jobs for
    which it is, and at which accounts.
    """

    starts: tuple[tuple[int, tuple[Part, ...]], ...]
    preempts: tuple[tuple[int, int], ...]
    reserved: tuple[tuple[int, int], ...]
    waits: tuple[tuple[int, str], ...]
    limits: tuple[tuple[int, int], ...] = ()
    kept: tuple[tuple[int, int], ...] = ()
    kept_for: tuple[tuple[int, tuple[int, ...]], ...] = ()


def occupy(state: State, rules: Records, j: int, parts: Sequence[Part], since_ms: int) -> None:
    """Let job `j` run on `parts` since `since_ms`. The parts must be free."""
    from dusuan.core.scheduling.kernels import snapshot  # numba, for a round only

    state.values["pick_count"] = len(parts)
    asked = state.jobs[j]
    for i, part in enumerate(parts):
        pick = state.picks[i]
        pick["node"], pick["milli"] = part.node, part.milli
        pick["devices"] = sum(1 << device for device in part.devices)
        pick["cpu_milli"] = -(-int(asked["cpu_milli"]) // len(parts))
        pick["memory_mib"] = -(-int(asked["memory_mib"]) // len(parts))
    snapshot.occupy(state.record, rules[0], j, since_ms)


def occupy_all(state: State, rules: Records, parts: Records, since_ms: Integers) -> None:
    """Let jobs run on `parts`, HOLDING in the order of their jobs; job j since `since_ms[j]`."""
    from dusuan.core.scheduling.kernels import snapshot  # numba, for a round only

    snapshot.occupy_all(state.record, rules[0], parts, since_ms)


def vacate_all(state: State, rules: Records, ended: Integers, now_ms: int, new_state: int) -> None:
    """Let the running jobs `ended` hold nothing any more and be in `new_state`."""
    from dusuan.core.scheduling.kernels import snapshot  # numba, for a round only

    snapshot.vacate_all(state.record, rules[0], ended, now_ms, new_state)


def fill_queue(state: State, rules: Records, now_ms: int) -> None:
    """Bring every job whose state is WAITING into the queue, in the policy's order."""
    from dusuan.core.scheduling.kernels import snapshot  # numba, for a round only

    snapshot.fill_queue(state.record, rules[0], now_ms)


def decide(state: State, rules: Records, now_ms: int) -> Decision:
    """One round at `now_ms`. Changes `state`: what it starts runs, what it preempts waits.

    A preempted job is not in the queue; it joins by `fill_queue` once it has really stopped.
    """
    from dusuan.core.scheduling.kernels import round as compiled_round  # numba, for a round only

    compiled_round.round_at(state.record, rules[0], now_ms)
    return _read(state)


def _read(state: State) -> Decision:
    """The plan's lines as values."""
    lines = state.lines[: int(state.values["line_count"][0])]
    starts: dict[int, list[Part]] = {}
    for j, part in _parts(lines[lines["kind"] == START]):
        starts.setdefault(j, []).append(part)
    waits = _waits(state)
    return Decision(
        tuple((j, tuple(parts)) for j, parts in starts.items()),
        _pairs(lines[lines["kind"] == PREEMPT]),
        _pairs(lines[lines["kind"] == RESERVE]),
        waits,
        _limits(state, waits),
        tuple((j, _kept_until_ms(state, j)) for j, code in waits if code == "turn"),
        tuple(_kept_for(state, waits)),
    )


def _parts(lines: Records) -> Iterator[tuple[int, Part]]:
    columns = (lines[name].tolist() for name in ("job", "node", "devices", "milli"))
    for j, node, devices, milli in zip(*columns, strict=True):
        numbers = tuple(d for d in range(devices.bit_length()) if devices >> d & 1)
        yield j, Part(node, numbers, milli)


def _pairs(lines: Records) -> tuple[tuple[int, int], ...]:
    return tuple(zip(lines["job"].tolist(), lines["cause"].tolist(), strict=True))


def _waits(state: State) -> tuple[tuple[int, str], ...]:
    """The reason of everybody in the queue who still waits."""
    queue = state.queue[: int(state.values["waiting"][0])]
    queue = queue[state.jobs["state"][queue] == WAITING]
    codes = state.jobs["reason"][queue].tolist()
    return tuple((j, REASONS[code]) for j, code in zip(queue.tolist(), codes, strict=True))


def _limits(state: State, waits: Sequence[tuple[int, str]]) -> tuple[tuple[int, int], ...]:
    """Accounts by the number they were given with."""
    short = [j for j, code in waits if code in ("quota", "turn")]
    given = _given(state) if short else {}
    limits = state.jobs["limit"][short].tolist()
    return tuple((j, given.get(limit, POOL)) for j, limit in zip(short, limits, strict=True))


def _given(state: State) -> dict[int, int]:
    """The number that each account was given with."""
    return {place: i for i, place in enumerate(state.places.tolist())}


def _kept_until_ms(state: State, j: int) -> int:
    """Until when account `limit` keeps what is left for another job than `j`; see `keeps`."""
    account, limit = state.jobs["account"][j], state.jobs["limit"][j]
    own_ms = int(state.accounts["own_opens_ms"][account]) if account == limit else 0
    return own_ms or int(state.accounts["opens_ms"][limit])


def _kept_for(
    state: State, waits: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Jobs for which the accounts above them keep what is left; see `wait_for_quota`."""
    if not any(code == "turn" for _, code in waits):
        return
    first, given, jobs = set[int](), _given(state), state.jobs
    short = (j for j, code in waits if code == "quota" and not jobs["yields"][j])
    for j in short:
        a = int(jobs["account"][j])
        if (a in first and not jobs["overdue"][j]) or _ever(state, a) < jobs["devices"][j]:
            continue
        first.add(a)
        yield j, tuple(given.get(b, POOL) for b in _keeping(state, a))


def _keeping(state: State, a: int) -> Iterator[int]:
    """The accounts from `a` up that keep something for as long as `a` does."""
    opens_ms, until_ms = state.accounts["opens_ms"], state.accounts["own_opens_ms"][a]
    while a >= 0 and opens_ms[a] >= until_ms > 0:
        yield a
        a = int(state.accounts["parent"][a])


def _ever(state: State, a: int) -> float:
    """Devices that account `a` may use when nobody uses anything; see `kernels.accounts.ever`."""
    own, most, accounts = 0, UNLIMITED, state.accounts
    while accounts["parent"][a] >= 0:
        each = accounts[a]
        own += int(each["kept_milli"])
        if each["borrow_milli"] >= 0:
            lent = int(each["subtree_milli"] - each["kept_milli"])
            most = min(most, own + lent + int(each["borrow_milli"]))
        a = int(each["parent"])
    return min(most, own + int(accounts["subtree_milli"][a])) / WHOLE
