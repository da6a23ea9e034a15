"""Policies are data: named, composed in a file, and refused with the nearest known part."""

from __future__ import annotations

from typing import Any

import pytest

from dusuan.core.scheduling.policy import (
    POLICIES,
    PolicyParts,
    PolicyProblem,
    from_mapping,
    named,
    rules,
)

NAMES = ("fcfs", "easy", "conservative", "sjf", "sjf-backfill", "srtf", "las", "fair", "dusuan")


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_policy_has_rules(name: str) -> None:
    policy = named(name)
    assert isinstance(policy, PolicyParts)
    assert rules(policy)["order"][0, 0] > 0


def test_a_file_changes_its_base() -> None:
    data = {"base": "easy", "order": ["shortest", "submitted"], "overdue-s": 3600}
    policy = from_mapping(data, "mine")
    assert isinstance(policy, PolicyParts)
    assert (policy.name, policy.backfill) == ("mine", "easy")
    assert rules(policy)["overdue_ms"][0] == 3_600_000


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        ({"order": "shortst"}, "unknown_part", "shortest"),
        ({"backfil": "easy"}, "unknown_part", "backfill"),
        ({"base": "dusaun"}, "unknown_policy", "dusuan"),
        ({"preempt": ["order", "magic"]}, "unknown_part", "known: never"),
        ({"levels": "many"}, "bad_value", "number"),
        ({"levels": 2.5}, "bad_value", "whole"),
        ({"overdue_s": -1}, "bad_value", "not negative"),
        ({"overdue_s": float("nan")}, "bad_value", "not negative"),
        ({"quota": 1}, "bad_value", "true or false"),
        ({"order": ["tier"] * 5}, "bad_value", "one to 4"),
        ({"order": []}, "bad_value", "one to 4"),
        ({"backfill": [["easy"]]}, "unknown_part", "known"),
        (["easy"], "bad_policy", "policy show"),
        (None, "bad_policy", "policy show"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(data: Any, code: str, says: str) -> None:
    problem = from_mapping(data, "mine")
    assert isinstance(problem, PolicyProblem)
    assert problem.code == code
    assert says in problem.remedy


def test_every_named_policy_is_its_own_key() -> None:
    assert all(name == policy.name for name, policy in POLICIES.items())
