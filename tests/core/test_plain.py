"""Records survive being made plain, and the difference of two of them makes one the other."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.plain import NotPlain, difference, from_plain, patched, to_plain
from dusuan.core.scheduling.live import Moves, Placed, Sight, Waiting, after, placed_key, without
from dusuan.core.scheduling.model import (
    Cluster,
    DeviceSlot,
    Preempt,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    Start,
    Wait,
    WaitCode,
)
from dusuan.core.scheduling.record import KEYS

names = st.sampled_from([f"n{i}" for i in range(6)])
whole = st.integers(-1, 10**13)
devices = st.builds(
    DeviceSlot,
    device=names,
    node=names,
    kind=st.just("gpu"),
    model=names,
    ready=st.booleans(),
    rated=st.booleans(),
    holder=st.none() | names,
    gflops=whole,
)
shares = st.builds(
    Share,
    account=names,
    parent=st.none() | names,
    weight=st.floats(0.001, 1e6),
    quota=st.none() | st.integers(0, 9),
    borrow=st.none() | st.integers(0, 9),
    lend=st.none() | st.integers(0, 9),
    usage_gflop=st.floats(0, 1e18),
    usage_at_ms=whole,
)
running = st.builds(RunningJob, job_id=names, devices=st.lists(names).map(tuple), since_ms=whole)
placed = st.builds(Placed, job=running, grace_ms=whole, saves=st.booleans(), stopping=st.booleans())
asked = st.builds(Request, count=st.integers(1, 9), kind=st.none() | names, model=st.none() | names)
queued = st.builds(QueuedJob, job_id=names, order=st.integers(0, 99), request=asked)
waiting = st.builds(Waiting, job=queued, claim=st.lists(names).map(tuple), unpaid=st.booleans())
waits = st.builds(Wait, code=st.sampled_from(WaitCode), text=names, remedy=names)


def several(each: Any, key: Any, place: Any = None) -> Any:
    """Tuples of records with names of their own, in their order."""
    found = st.lists(each, unique_by=key, max_size=6)
    return found.map(lambda rows: tuple(rows if place is None else sorted(rows, key=place)))


sights = st.builds(
    Sight,
    pool=st.builds(
        Cluster,
        devices=several(devices, lambda d: d.device),
        shares=several(shares, lambda s: s.account, lambda s: s.account),
        preempted_last_hour=st.integers(0, 99),
    ),
    placed=several(placed, placed_key, placed_key),
    # The order of submission is one of its own for each job.
    waiting=several(waiting, lambda w: w.job.job_id).map(
        lambda rows: tuple(replace(w, job=replace(w.job, order=i)) for i, w in enumerate(rows))
    ),
    blocked=st.dictionaries(names, waits, max_size=4),
    trouble=st.none() | waits,
)


def carried(value: Any) -> Any:
    return json.loads(json.dumps(value))


@settings(max_examples=300, deadline=None)
@given(sights)
def test_a_sight_survives_being_plain(sight: Sight) -> None:
    assert from_plain(Sight, carried(to_plain(sight))) == sight


@settings(max_examples=300, deadline=None)
@given(sights, sights)
def test_a_difference_makes_one_the_other(old: Sight, new: Sight) -> None:
    # Two sights of one day agree on who was submitted when.
    order = {w.job.job_id: w.job.order for w in old.waiting}
    taken = [w for w in new.waiting if w.job.job_id in order]
    fresh = [w for w in new.waiting if w.job.job_id not in order]
    known = [replace(w, job=replace(w.job, order=order[w.job.job_id])) for w in taken]
    later = [replace(w, job=replace(w.job, order=100 + i)) for i, w in enumerate(fresh)]
    new = replace(new, waiting=tuple(sorted([*known, *later], key=lambda w: w.job.order)))
    told = carried(difference(old, new, KEYS))
    assert patched(old, told, KEYS) == new
    assert (told == {}) == (old == new)


def test_only_what_changed_is_told() -> None:
    old = Sight(Cluster((DeviceSlot("d", "n", "gpu", "X"), DeviceSlot("e", "n", "gpu", "X"))))
    down = replace(old.pool.devices[1], ready=False)
    new = replace(old, pool=replace(old.pool, devices=(old.pool.devices[0], down)))
    told = {"pool": {"of": {"devices": {"set": {"e": {"ready": {"to": False}}}}}}}
    assert difference(old, new, KEYS) == told
    turned = replace(old, pool=replace(old.pool, devices=old.pool.devices[::-1]))
    told = {"pool": {"of": {"devices": {"order": ["e", "d"]}}}}
    assert difference(old, turned, KEYS) == told


@dataclass(frozen=True)
class Sample:
    """A record of every kind of field."""

    number: int
    rate: float = 1.0
    flag: bool = False
    data: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({}, "lacks 'number'"),
        ({"number": "1"}, "number is '1', not int"),
        ({"number": True}, "number is 'True', not int"),
        ({"number": 1, "rate": "x"}, "rate is 'x', not float"),
        ({"number": 1, "flag": 1}, "flag is '1', not bool"),
        ({"number": 1, "more": 1}, "Sample has no 'more'"),
        ({"number": 1, "data": []}, "not an object"),
        ([], "not an object"),
    ],
)
def test_data_that_does_not_fit_is_named(plain: Any, words: str) -> None:
    with pytest.raises(NotPlain, match=words):
        from_plain(Sample, plain)


@pytest.mark.parametrize(
    "change",
    [
        [],
        {"weather": {"to": 1}},
        {"pool": 1},
        {"pool": {"of": {"devices": {"gone": ["x"]}}}},
        {"pool": {"of": {"devices": {"set": {"x": {}}}}}},
        {"pool": {"of": {"devices": {"order": ["x"]}}}},
        {"pool": {"of": {"devices": {"new": [{"device": "d", "node": "n"}]}}}},
        {"pool": {"of": {"devices": {"gone": 7}}}},
        {"pool": {"of": {"preempted_last_hour": {"put": {}}}}},
        {"trouble": {"of": {}}},
        {"blocked": {"gone": ["x"]}},
        {"blocked": {"put": {"x": {"code": "weather", "text": "", "remedy": ""}}}},
    ],
)
def test_a_change_that_does_not_fit_is_refused(change: Any) -> None:
    with pytest.raises(NotPlain):
        patched(Sight(Cluster(())), change, KEYS)


def test_what_is_to_be_expected_after_moves() -> None:
    """By hand: one starts, one is stopped for a claim, one loses what it was promised."""
    slots = tuple(DeviceSlot(f"d{i}", "n", "gpu", "X") for i in range(3))
    jobs = {n: QueuedJob(n, i, Request(1), owner="a") for i, n in enumerate(("x", "y", "z"))}
    old = Placed(RunningJob("old", ("d2",), 5, tier="spot", owner="b"), 900)
    sight = Sight(
        Cluster(slots),
        (old,),
        (Waiting(jobs["x"], 70, saves=True), Waiting(jobs["y"]), Waiting(jobs["z"], claim=("d1",))),
    )
    moves = Moves((Start("x", ("d0",)),), (Preempt("old", "y"),), (Start("y", ("d2",)),), ("z",))
    then = after(sight, moves, 1_000)
    assert then.pool == replace(sight.pool, preempted_last_hour=1)
    assert then.pool.devices is slots
    assert then.placed == (
        replace(old, stopping=True),
        Placed(RunningJob("x", ("d0",), 1_000, owner="a"), 70, saves=True),
    )
    assert then.waiting == (Waiting(jobs["y"], claim=("d2",)), Waiting(jobs["z"]))
    gone = without(then, ["old"])
    assert [each.job.job_id for each in gone.placed] == ["x"]
    assert after(sight, Moves(), 1_000) is sight
