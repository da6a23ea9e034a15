"""Remedies are true: the change that is named starts the job, on a copy and by the rules."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.scheduling.model import (
    Cluster,
    DeviceSlot,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    WaitCode,
)
from dusuan.core.scheduling.policy import POLICIES
from dusuan.core.scheduling.round import schedule
from dusuan.core.scheduling.whatif import Remedy, expected_start_ms, remedies

CENTRE = POLICIES["centre"]


def pool(*models: str) -> tuple[DeviceSlot, ...]:
    """A node of each model, named x2: two devices of x."""
    return tuple(
        DeviceSlot(f"{text}/{i}", f"n{n}", "gpu", text[0], gflops=100)
        for n, text in enumerate(models)
        for i in range(int(text[1:]))
    )


def held(devices: tuple[DeviceSlot, ...], *running: RunningJob) -> Cluster:
    holders = {name: job.job_id for job in running for name in job.devices}
    slots = tuple(replace(d, holder=holders.get(d.device)) for d in devices)
    return Cluster(slots, running)


def job(name: str, count: int, since: int = 1, model: str = "x", **more: object) -> QueuedJob:
    return replace(
        QueuedJob(name, since, Request(count, "gpu", model), waits_since_ms=since), **more
    )


def test_fewer_devices_another_device_a_higher_tier() -> None:
    runs = RunningJob("spot", ("x3/0", "x3/1"), 0, tier="spot", preemptible=True)
    cluster = held(pool("x3", "y2"), runs)
    waiting = job("j", 2, tier="spot")
    found = remedies(cluster, [waiting], "j", CENTRE, 600_000)
    assert Remedy("count", 1, 0) in found
    assert Remedy("device", "y", 0) in found
    assert Remedy("tier", "standard", 1) in found


def test_a_wall_time_that_fits_before_a_reservation() -> None:
    runs = RunningJob("r", ("x2/0",), 0, expected_ms=60_000)
    queue = [job("gang", 2, 1), job("small", 1, 2)]
    cluster = held(pool("x2"), runs)
    assert not schedule(cluster, queue, CENTRE, 10_000).starts
    found = remedies(cluster, queue, "small", CENTRE, 10_000)
    assert Remedy("wall_time", 50_000, 0) in found
    assert Remedy("tier", "reserved", 0) in found  # it would go before the gang


def test_when_it_starts_if_all_take_as_long_as_expected() -> None:
    cluster = held(pool("x1"), RunningJob("r", ("x1/0",), 0, expected_ms=60_000))
    queue = [job("first", 1, 1, expected_ms=30_000), job("second", 1, 2)]
    assert expected_start_ms(cluster, queue, "first", CENTRE, 0) == 60_000
    assert expected_start_ms(cluster, queue, "second", CENTRE, 0) == 90_000
    endless = held(pool("x1"), RunningJob("r", ("x1/0",), 0))
    assert expected_start_ms(endless, queue, "first", CENTRE, 0) is None


def _changed(mine: QueuedJob, remedy: Remedy) -> QueuedJob:
    value = remedy.value
    if remedy.change == "count":
        return replace(mine, request=replace(mine.request, count=value))
    if remedy.change == "device":
        return replace(mine, request=replace(mine.request, model=value))
    if remedy.change == "tier":
        return replace(mine, tier=value)
    if remedy.change in ("borrow", "lend", "without"):
        return mine
    assert remedy.change == "wall_time"  # nothing here waits for money
    return replace(mine, limit_ms=value, expected_ms=value)


def _allowed(cluster: Cluster, remedy: Remedy) -> Cluster:
    """The cluster with the limits that a remedy names, such as "2 on acme, 1 on acme/vision"."""
    raised = {}
    if remedy.change == "lend":
        cluster = replace(cluster, shares=tuple(replace(s, lend=None) for s in cluster.shares))
    if remedy.change in ("borrow", "lend") and remedy.value != "others":
        raised = {name: int(n) for n, name in (e.split(" on ") for e in remedy.value.split(", "))}
    shares = (replace(s, borrow=raised.get(s.account, s.borrow)) for s in cluster.shares)
    return replace(cluster, shares=tuple(shares))


def test_whose_limit_it_is_and_what_it_would_have_to_be() -> None:
    """A department, its organisation, and what others keep to themselves: one after the other."""
    runs = RunningJob("r", ("x8/0", "x8/1"), 0, owner="vision")
    other = Share("other", quota=4, lend=1)
    for org, department, limit, account, change in (
        (0, None, "quota", "acme", "2 on acme"),
        (None, 1, "borrow", "vision", "2 on vision"),
        (1, 1, "borrow", "vision", "2 on vision, 2 on acme"),
        (3, 3, "lend", None, "others"),
    ):
        shares = (Share("acme", quota=2, borrow=org), Share("vision", "acme", 1.0, 2, department))
        spare = () if limit == "lend" else (replace(other, quota=None),)
        taken = RunningJob("o", tuple(f"x8/{i}" for i in range(2, 4)), 0, owner="free")
        running = (runs, taken) if limit == "lend" else (runs,)
        cluster = replace(held(pool("x8"), *running), shares=(*shares, *(spare or (other,))))
        waiting = job("j", 2, owner="vision")
        wait = schedule(cluster, [waiting], CENTRE, 120_000).waits["j"]
        assert (wait.code, wait.data["limit"]) == (WaitCode.QUOTA, limit)
        assert wait.data.get("account") == account
        found = remedies(cluster, [waiting], "j", CENTRE, 120_000)
        assert [each.value for each in found if each.change in ("borrow", "lend")] == [change]


def test_what_is_kept_for_a_job_before_it() -> None:
    runs = RunningJob("r", ("x8/0", "x8/1"), 0, expected_ms=600_000, owner="a")
    cluster = replace(held(pool("x8"), runs), shares=(Share("a", quota=4, borrow=0),))
    queue = [job("large", 3, 1, owner="a"), job("small", 1, 2, owner="a")]
    waits = schedule(cluster, queue, CENTRE, 120_000).waits
    assert waits["large"].data["limit"] == "quota"
    small = waits["small"]
    assert (small.code, small.data["limit"], small.data["account"]) == (WaitCode.QUOTA, "turn", "a")
    assert (small.data["behind"], small.data["behind_others"]) == (["large"], 0)
    assert small.data["kept_until_ms"] == 600_000
    assert "kept for large" in small.text
    assert "after large" in small.remedy
    found = remedies(cluster, queue, "small", CENTRE, 120_000)
    assert found == (
        Remedy("tier", "reserved", 0),
        Remedy("wall_time", 480_000, 0),
        Remedy("without", "large", 0),
        Remedy("borrow", "2 on a", 0),
    )
    assert expected_start_ms(cluster, queue, "small", CENTRE, 120_000) == 600_000
    brief = replace(queue[1], limit_ms=480_000, expected_ms=480_000)
    assert schedule(cluster, [queue[0], brief], CENTRE, 120_000).starts


def test_who_waits_for_a_turn_is_told_nothing_of_other_owners() -> None:
    """The rest of what two departments share is kept for a job of the other one."""
    runs = RunningJob("r", ("x8/0", "x8/1"), 0, expected_ms=600_000, owner="b")
    shares = (Share("org", quota=4, borrow=0), Share("a", "org"), Share("b", "org"))
    cluster = replace(held(pool("x8"), runs), shares=shares)
    queue = [job("large", 3, 1, owner="b", tier="reserved"), job("small", 1, 2, owner="a")]
    small = schedule(cluster, queue, CENTRE, 120_000).waits["small"]
    assert (small.data["limit"], small.data["account"]) == ("turn", "org")
    assert (small.data["behind"], small.data["behind_others"]) == ([], 1)
    assert "large" not in f"{small.text} {small.remedy} {small.data}"
    found = remedies(cluster, queue, "small", CENTRE, 120_000)
    assert {each.change for each in found} == {"tier", "wall_time", "borrow"}
    assert "large" not in str(found)


LIMIT = st.sampled_from([None, None, 0, 1, 2])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 90)), max_size=5),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from("xy")), min_size=1, max_size=6),
    st.lists(st.tuples(LIMIT, LIMIT, LIMIT), min_size=3, max_size=3),
)
def test_every_remedy_starts_the_job(
    busy: list[tuple[int, int]],
    asked: list[tuple[int, str]],
    limits: list[tuple[int | None, int | None, int | None]],
) -> None:
    devices, at, running = pool("x4", "y3"), 0, []
    for i, (count, minutes) in enumerate(busy):
        taken = tuple(d.device for d in devices[at : at + count])
        at += count
        if taken:
            tier, owner = ("spot", "standard")[i % 2], "abc"[i % 3]
            running.append(
                RunningJob(
                    f"r{i}", taken, 0, minutes * 60_000, tier=tier, owner=owner,
                    preemptible=i % 2 == 0,
                )
            )  # fmt: skip
    shares = [
        Share(name, above, 1.0, *each)
        for (name, above), each in zip((("a", None), ("b", "a"), ("c", None)), limits, strict=True)
    ]
    cluster = replace(held(devices, *running), shares=tuple(shares))
    queue = [
        job(f"j{i}", count, i + 1, model, owner="abc"[i % 3])
        for i, (count, model) in enumerate(asked)
    ]
    plan = schedule(cluster, queue, CENTRE, 120_000)
    for name in set(plan.waits) - {claim.job_id for claim in plan.claims}:
        assert_true(cluster, queue, name)


def assert_true(cluster: Cluster, queue: list[QueuedJob], name: str) -> None:
    """Every remedy starts the job."""
    mine = next(each for each in queue if each.job_id == name)
    for remedy in remedies(cluster, queue, name, CENTRE, 120_000):
        kept = [e for e in queue if (remedy.change, remedy.value) != ("without", e.job_id)]
        assert len(kept) == len(queue) - (remedy.change == "without")
        tried = [_changed(each, remedy) if each is mine else each for each in kept]
        again = schedule(_allowed(cluster, remedy), tried, CENTRE, 120_000)
        assert name in {start.job_id for start in (*again.starts, *again.claims)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(3, 90), st.sampled_from("ab")), max_size=3),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from("ab")), min_size=3, max_size=6),
    st.tuples(st.integers(3, 7), LIMIT, LIMIT),
)
def test_who_waits_for_a_turn_waits_for_a_job_that_lacks_quota(
    busy: list[tuple[int, int, str]],
    asked: list[tuple[int, str]],
    quotas: tuple[int, int | None, int | None],
) -> None:
    """It is told how many; when all of those are gone nobody waits for a turn; remedies hold."""
    devices, at, running = pool("x8", "x8"), 0, []
    for i, (count, minutes, owner) in enumerate(busy):
        taken = tuple(d.device for d in devices[at : at + count])
        at += count
        running.append(RunningJob(f"r{i}", taken, 0, minutes * 60_000, owner=owner))
    shares = (
        Share("o", quota=quotas[0], borrow=0),
        Share("a", "o", quota=quotas[1], lend=quotas[2]),
        Share("b", "o", borrow=quotas[2]),
    )
    cluster = replace(held(devices, *running), shares=shares)
    queue = [job(f"j{i}", count, i + 1, owner=owner) for i, (count, owner) in enumerate(asked)]
    while queue:
        waits = schedule(cluster, queue, CENTRE, 120_000).waits
        limits = {name: wait.data.get("limit") for name, wait in waits.items()}
        short = {name for name, limit in limits.items() if limit not in (None, "turn")}
        turns = [name for name, limit in limits.items() if limit == "turn"]
        if not turns:
            return
        for name in turns:
            data = waits[name].data
            assert set(data["behind"]) <= short
            assert 1 <= len(data["behind"]) + data["behind_others"] <= len(short)
            assert_true(cluster, queue, name)
        queue = [each for each in queue if each.job_id not in short]
