"""Remedies are true: the change that is named starts the job, on a copy and by the rules."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.scheduling.model import Cluster, DeviceSlot, QueuedJob, Request, RunningJob
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
    assert remedy.change == "wall_time"  # nothing here waits for money
    return replace(mine, limit_ms=value, expected_ms=value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 90)), max_size=5),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from("xy")), min_size=1, max_size=6),
)
def test_every_remedy_starts_the_job(
    busy: list[tuple[int, int]], asked: list[tuple[int, str]]
) -> None:
    devices, at, running = pool("x4", "y3"), 0, []
    for i, (count, minutes) in enumerate(busy):
        taken = tuple(d.device for d in devices[at : at + count])
        at += count
        if taken:
            tier = ("spot", "standard")[i % 2]
            running.append(
                RunningJob(f"r{i}", taken, 0, minutes * 60_000, tier=tier, preemptible=i % 2 == 0)
            )
    cluster = held(devices, *running)
    queue = [job(f"j{i}", count, i + 1, model) for i, (count, model) in enumerate(asked)]
    plan = schedule(cluster, queue, CENTRE, 120_000)
    for name in set(plan.waits) - {claim.job_id for claim in plan.claims}:
        mine = next(each for each in queue if each.job_id == name)
        for remedy in remedies(cluster, queue, name, CENTRE, 120_000):
            tried = [_changed(each, remedy) if each is mine else each for each in queue]
            again = schedule(cluster, tried, CENTRE, 120_000)
            assert name in {start.job_id for start in (*again.starts, *again.claims)}
