"""Full collections come between rounds and not in them, and garbage does go."""

from __future__ import annotations

import gc

from dusuan.service.collecting import PERIOD_S, between_rounds


def test_full_collections_are_made_when_they_are_due_and_not_before() -> None:
    now, made = [0.0], list[int]()

    def noted(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            made.append(1)

    before = gc.get_threshold()
    gc.collect()
    gc.callbacks.append(noted)
    try:
        with between_rounds(lambda: now[0]) as collect:
            kept = [[i] for i in range(200_000)]  # young ones are collected many times by these
            collect()
            assert not made
            now[0] = PERIOD_S
            collect()
            collect()
            assert made == [1]
    finally:
        gc.callbacks.remove(noted)
    assert gc.get_threshold() == before
    assert len(kept) == 200_000
