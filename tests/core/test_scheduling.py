"""One scheduling round, checked by an independent reader of its plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.scheduling.model import (
    Cluster,
    DeviceSlot,
    Plan,
    Preempt,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    Wait,
    WaitCode,
    matches,
)
from dusuan.core.scheduling.policy import POLICIES
from dusuan.core.scheduling.round import schedule

POLICY = POLICIES["centre"]


def pool(*nodes: str, held: int = 0, **changes: bool) -> Cluster:
    """A pool from texts such as "a:cpu:x:4": node, kind, model, devices; the first `held` taken."""
    slots = []
    for text in nodes:
        node, kind, model, count = text.split(":")
        slots += [
            DeviceSlot(f"{node}/{kind}:{i}", node, kind, model, **changes)
            for i in range(int(count))
        ]
    taken = [
        DeviceSlot(d.device, d.node, d.kind, d.model, d.ready, d.rated, "other") if i < held else d
        for i, d in enumerate(slots)
    ]
    return Cluster(tuple(taken))


def job(name: str, count: int, order: int = 0, priority: int = 0, **ask: str) -> QueuedJob:
    request = Request(count, ask.get("kind"), ask.get("model"))
    return QueuedJob(name, order, request, priority, waits_since_ms=order)


def decide(cluster: Cluster, *queue: QueuedJob) -> Plan:
    return schedule(cluster, queue, POLICY, 0)


def started(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {start.job_id: start.devices for start in plan.starts}


def test_priority_then_submission_order() -> None:
    queue = [job("late", 1, 3), job("early", 1, 1), job("urgent", 1, 9, priority=5)]
    plan = decide(pool("a:cpu:x:2"), *queue)
    assert [s.job_id for s in plan.starts] == ["urgent", "early"]
    assert plan.waits["late"].code is WaitCode.CAPACITY


def test_a_gang_starts_whole_on_one_node_of_one_model() -> None:
    plan = decide(pool("a:gpu:x:1", "b:gpu:x:2", "c:gpu:x:3"), job("gang", 2))
    assert started(plan) == {"gang": ("b/gpu:0", "b/gpu:1")}  # the tightest that fits
    plan = decide(pool("a:gpu:x:1", "b:gpu:x:1"), job("gang", 2))
    assert plan.waits["gang"].code is WaitCode.TOO_LARGE
    assert "ask for 1" in plan.waits["gang"].remedy


def test_kind_and_model_are_honoured() -> None:
    cluster = pool("a:cpu:x:4", "b:gpu:y:1")
    assert started(decide(cluster, job("j", 1, kind="gpu"))) == {"j": ("b/gpu:0",)}
    assert started(decide(cluster, job("j", 1, model="y"))) == {"j": ("b/gpu:0",)}
    assert decide(cluster, job("j", 2, kind="gpu")).waits["j"].code is WaitCode.TOO_LARGE


def test_a_waiting_job_holds_back_later_ones_that_want_its_devices() -> None:
    plan = decide(pool("a:cpu:x:3", held=2), job("big", 3, 1), job("small", 1, 2))
    assert not plan.starts
    assert plan.waits["big"].code is WaitCode.CAPACITY
    assert plan.waits["big"].data["free"] == 1
    assert plan.waits["small"].code is WaitCode.ORDER
    assert plan.waits["small"].data["behind"] == ["big"]


def test_a_later_job_starts_where_it_cannot_delay_one_before_it() -> None:
    plan = decide(pool("a:cpu:x:3", held=2), job("big", 2, 1), job("small", 1, 2))
    assert started(plan) == {"small": ("a/cpu:2",)}  # the big one gets the other two
    held = pool("a:cpu:x:3", held=2)
    runs = RunningJob("other", ("a/cpu:0", "a/cpu:1"), 0, expected_ms=60_000)
    cluster = replace(held, running=(runs,))
    big = job("big", 3, 1)
    brief, long = (replace(job("later", 1, 2), expected_ms=ms) for ms in (59_000, 61_000))
    assert started(schedule(cluster, [big, brief], POLICY, 0)) == {"later": ("a/cpu:2",)}
    plan = schedule(cluster, [big, long], POLICY, 0)
    assert not plan.starts
    assert plan.expected_ms == {"big": 60_000}


def test_spot_gives_way_to_those_who_pay_more_and_they_get_its_devices() -> None:
    spot = RunningJob("cheap", ("a/cpu:0", "a/cpu:1"), 0, tier="spot", preemptible=True)
    cluster = replace(pool("a:cpu:x:2", held=2), running=(spot,))
    cluster = replace(cluster, devices=tuple(replace(d, holder="cheap") for d in cluster.devices))
    plan = schedule(cluster, [job("dear", 1, 1)], POLICY, 120_000)
    assert plan.preemptions == (Preempt("cheap", "dear"),)
    assert [claim.job_id for claim in plan.claims] == ["dear"]
    assert plan.waits["dear"].code is WaitCode.PREEMPTING
    assert not plan.starts
    # Not in its first minute, not a job that is not preemptible, not when the hour's fill is done.
    assert not schedule(cluster, [job("dear", 1, 1)], POLICY, 30_000).preemptions
    firm = replace(cluster, running=(replace(spot, preemptible=False),))
    assert not schedule(firm, [job("dear", 1, 1)], POLICY, 120_000).preemptions
    stormy = replace(cluster, preempted_last_hour=POLICY.preempt_per_hour)
    assert not schedule(stormy, [job("dear", 1, 1)], POLICY, 120_000).preemptions


def test_an_account_takes_back_what_it_is_guaranteed_and_borrows_no_more_than_it_may() -> None:
    shares = (Share("vision", quota=2, borrow=1), Share("speech", quota=1, borrow=9))
    borrower = RunningJob("b", ("a/cpu:0", "a/cpu:1"), 0, owner="speech", preemptible=True)
    slots = tuple(replace(d, holder="b") for d in pool("a:cpu:x:2").devices)
    cluster = Cluster(slots, (borrower,), shares)
    plan = schedule(cluster, [replace(job("own", 2, 1), owner="vision")], POLICY, 120_000)
    assert plan.preemptions == (Preempt("b", "own"),)
    free = Cluster(pool("a:cpu:x:8").devices, (), shares)
    asked = [replace(job(f"v{i}", 1, i), owner="vision") for i in range(5)]
    plan = schedule(free, asked, POLICY, 0)
    assert len(plan.starts) == 3  # two of its own, one borrowed
    assert {wait.code for wait in plan.waits.values()} == {WaitCode.QUOTA}


def test_departments_take_turns_by_what_they_have_used() -> None:
    shares = (Share("idle", usage_gflop=0.0), Share("busy", usage_gflop=9e9))
    cluster = Cluster(pool("a:cpu:x:1").devices, (), shares)
    queue = [
        replace(job("first", 1, 1, priority=9), owner="busy"),
        replace(job("second", 1, 2), owner="idle"),
    ]
    assert set(started(schedule(cluster, queue, POLICY, 0))) == {"second"}


def test_a_waiting_job_does_not_hold_back_those_that_want_other_devices() -> None:
    cluster = pool("a:cpu:x:2", "b:gpu:y:1", held=1)
    plan = decide(cluster, job("big", 2, 1, kind="cpu"), job("other", 1, 2, kind="gpu"))
    assert started(plan) == {"other": ("b/gpu:0",)}


def test_a_job_blocked_from_outside_holds_back_nobody() -> None:
    reason = Wait(WaitCode.BALANCE, "no degrees", "top up")
    blocked = QueuedJob("poor", 1, Request(1), 9, reason)
    plan = decide(pool("a:cpu:x:1"), blocked, job("rich", 1, 2))
    assert set(started(plan)) == {"rich"}
    assert plan.waits["poor"] is reason


def test_impossible_down_and_unrated_are_told_apart_and_hold_back_nobody() -> None:
    small = job("small", 1, 2)
    plan = decide(pool("a:cpu:x:2"), job("huge", 3, 1), small)
    assert plan.waits["huge"].code is WaitCode.TOO_LARGE
    assert set(started(plan)) == {"small"}
    down = decide(pool("a:cpu:x:2", ready=False), job("j", 2))
    assert down.waits["j"].code is WaitCode.UNAVAILABLE
    unrated = decide(pool("a:cpu:x:2", rated=False), job("j", 2))
    assert unrated.waits["j"].code is WaitCode.UNCALIBRATED
    assert not down.starts
    assert not unrated.starts
    assert decide(Cluster(()), job("j", 1)).waits["j"].code is WaitCode.TOO_LARGE


NODES = st.lists(
    st.builds(
        lambda n, kind, count: f"n{n}:{kind}:{kind}-model:{count}",
        st.integers(0, 3),
        st.sampled_from(["cpu", "gpu"]),
        st.integers(1, 4),
    ),
    max_size=4,
    unique_by=lambda text: text[:6],
)
QUEUE = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 2), st.sampled_from([None, "cpu", "gpu"])),
    max_size=10,
)


@settings(max_examples=300, deadline=None)
@given(NODES, QUEUE, st.integers(0, 6), st.integers(0, 2**16))
def test_any_round_is_fair_whole_and_explained(
    nodes: list[str], asked: list[tuple[int, int, str | None]], held: int, down: int
) -> None:
    cluster = pool(*nodes, held=held)
    slots = tuple(
        DeviceSlot(d.device, d.node, d.kind, d.model, not down >> i & 1, True, d.holder)
        for i, d in enumerate(cluster.devices)
    )
    queue = [
        QueuedJob(f"j{i}", i, Request(count, kind), priority, waits_since_ms=1 + i)
        for i, (count, priority, kind) in enumerate(asked)
    ]
    plan = schedule(Cluster(slots), queue, POLICY, 0)
    by_name = {d.device: d for d in slots}
    given_out = [name for start in plan.starts for name in start.devices]
    # Every job has exactly one answer, and no device is given twice, or while taken or down.
    assert {s.job_id for s in plan.starts} | set(plan.waits) == {j.job_id for j in queue}
    assert len(plan.starts) + len(plan.waits) == len(queue)
    assert len(given_out) == len(set(given_out))
    assert all(by_name[n].holder is None and by_name[n].ready for n in given_out)
    for start in plan.starts:
        request = next(j.request for j in queue if j.job_id == start.job_id)
        chosen = [by_name[n] for n in start.devices]
        assert len(chosen) == request.count
        assert len({(d.node, d.model) for d in chosen}) == 1
        assert all(matches(request, d) for d in chosen)
    # A job that could have used what is left did not wait for nothing: someone before it waits.
    left = {d.device for d in slots if d.ready and d.holder is None} - set(given_out)
    for name, wait in plan.waits.items():
        waiting = next(j for j in queue if j.job_id == name)
        groups: dict[str, int] = {}
        for device in left:
            slot = by_name[device]
            if matches(waiting.request, slot):
                groups[slot.node + slot.model] = groups.get(slot.node + slot.model, 0) + 1
        fits = max(groups.values(), default=0) >= waiting.request.count
        assert not fits or wait.code in (WaitCode.ORDER, WaitCode.CAPACITY)
        assert wait.text
        assert wait.remedy
        if wait.code is WaitCode.ORDER:
            ahead = next(j for j in queue if j.job_id == wait.data["behind"][0])
            assert (-ahead.priority, ahead.order) < (-waiting.priority, waiting.order)


def test_a_job_that_yields_goes_first_but_holds_back_nobody() -> None:
    probe = replace(job("probe", 2, 1, priority=9), yields=True)
    plan = decide(pool("a:cpu:x:3", held=2), probe, job("small", 1, 2))
    assert started(plan) == {"small": ("a/cpu:2",)}
    assert plan.waits["probe"].code is WaitCode.CAPACITY
    assert started(decide(pool("a:cpu:x:2"), probe, job("small", 1, 2))).keys() == {"probe"}


def test_a_reason_names_no_job_of_another_owner() -> None:
    big, small = (
        replace(job("big", 3, 1), owner="bolt"),
        replace(job("small", 1, 2), owner="acme"),
    )
    wait = decide(pool("a:cpu:x:3", held=2), big, small).waits["small"]
    assert wait.code is WaitCode.ORDER
    assert "big" not in f"{wait.text} {wait.remedy}"
    assert (wait.data["behind"], wait.data["behind_others"]) == ([], 1)
