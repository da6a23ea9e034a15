"""The pool as columns: remembered from round to round, it says what a new one says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.scheduling.model import DeviceSlot, Request, matches, usable
from dusuan.core.scheduling.pool import Pool, pool_of

SLOTS = st.lists(
    st.builds(
        DeviceSlot, st.uuids().map(str), st.sampled_from("abc"), st.sampled_from(["cpu", "gpu"]),
        st.sampled_from("xy"), st.booleans(), st.booleans(), st.sampled_from([None, "j", "k"]),
        st.integers(0, 2),
    ),
    max_size=12,
)  # fmt: skip
REQUESTS = [Request(1, kind, model) for kind in (None, "cpu", "tpu") for model in (None, "x", "z")]


def largest(request: Request, devices: Any) -> int:
    """The most devices of one model on one host that the request accepts, one by one."""
    groups: dict[tuple[str, str], int] = {}
    for device in devices:
        if matches(request, device):
            key = (device.node, device.model)
            groups[key] = groups.get(key, 0) + 1
    return max(groups.values(), default=0)


def check(pool: Pool, slots: Any) -> None:
    assert pool.names == [d.device for d in slots]
    assert pool.holders == [d.holder for d in slots]
    assert pool.held.tolist() == [d.holder is not None for d in slots]
    assert pool.usable.tolist() == [usable(d) for d in slots]
    assert [pool.names[i] for i in pool.place.values()] == pool.names
    for one in REQUESTS:
        assert pool.largest(one, "all") == largest(one, slots)
        assert pool.largest(one, "ready") == largest(one, [d for d in slots if d.ready])
        assert pool.largest(one) == largest(one, [d for d in slots if usable(d)])
        free = pool.counted(pool.usable & ~pool.held)
        idle = [d for d in slots if usable(d) and d.holder is None]
        assert pool.most(one, free) == largest(one, idle)
        for other in REQUESTS:
            both = any(usable(d) and matches(one, d) and matches(other, d) for d in slots)
            assert pool.share_devices(one, other) == both


CHANGES = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(["holder", "ready", "node", "none"])), max_size=5
)


@settings(max_examples=150, deadline=None)
@given(SLOTS, st.lists(CHANGES, max_size=4))
def test_what_is_remembered_is_what_is_there(slots: list[DeviceSlot], rounds: Any) -> None:
    check(pool_of(tuple(slots)), slots)
    for changes in rounds:
        for i, what in changes:
            if i < len(slots):
                slots[i] = changed(slots[i], what)
        check(pool_of(tuple(slots)), slots)


def changed(slot: DeviceSlot, what: str) -> DeviceSlot:
    if what == "holder":
        return replace(slot, holder=None if slot.holder else "new")
    if what == "ready":
        return replace(slot, ready=not slot.ready)
    return replace(slot, node="d") if what == "node" else replace(slot)
