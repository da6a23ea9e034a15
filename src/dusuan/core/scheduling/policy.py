"""Policies as data: a small composition of named parts, and its numbers for compiled rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import KEYS, Records

# Parts by name; the number is what compiled rounds know them by. 0 is no part.
ORDERS = {
    "submitted": 1,  # first come, first served
    "shortest": 2,  # the least predicted time left first
    "attained": 3,  # the least service so far first, in levels
    "fair": 4,  # the account furthest below its share first
    "tier": 5,  # reserved, standard, spot
    "priority": 6,  # highest first; every point is worth `ageing_s` of waiting
    "slack": 7,  # the least time to spare before the deadline first
    "area": 8,  # the least predicted device-time left first
    "expansion": 9,  # the longest wait in relation to the predicted time first
}
BACKFILLS = {"strict": 0, "skip": 1, "easy": 2, "conservative": 3}
BACKFILL_ORDERS = {"queue": 0, "shortest": 1}
PREEMPTS = {"never": 0, "order": 1, "tier": 2, "quota": 4, "move": 8}
PLACEMENTS = {
    "dusuan": 0,  # the least worth lost
    "fgd": 1,  # the least fragmentation
    "best-fit": 2,  # the least left over
    "pack": 3,  # the fullest
    "spread": 4,  # the freest
    "first-fit": 5,
}
PREDICTORS = {"user": 0, "oracle": 1, "last2": 2, "none": 3}
LEAST_WORK_MS = 1_000  # gets a job done in every attempt, beside its restart
DYNAMIC = frozenset({"fair", "expansion"})  # parts whose order changes while jobs wait

RULES = np.dtype(
    [
        ("order", "i8", (KEYS,)),
        ("dynamic", "i8"),
        ("backfill", "i8"),
        ("backfill_order", "i8"),
        ("preempt", "i8"),  # bits of PREEMPTS
        ("preempt_depth", "i8"),  # parts of the order that count for it
        ("placement", "i8"),
        ("predict", "i8"),
        ("quota", "i8"),
        ("levels", "i8"),
        ("level_first_ms", "i8"),
        ("level_factor", "f8"),
        ("level_devices", "i8"),
        ("run_min_ms", "i8"),
        ("preempt_per_hour", "i8"),
        ("restart_ms", "i8"),
        ("overdue_ms", "i8"),
        ("overdue_most", "i8"),
        ("gate_ms", "i8"),
        ("reserve_ms", "i8"),
        ("ageing_ms", "i8"),
        ("half_life_ms", "i8"),
        ("margin", "f8"),
        ("depth", "i8"),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """A policy. Times are seconds; 0 for `overdue_s`, `gate_s` and `half_life_s` means never.

    Who has waited for `overdue_s` goes first; at most `overdue_most` at once (0: all), by waiting.
    Behind the first of them nobody passes once it has been the first for `gate_s`. With backfill
    `easy`, a job that does not fit gets a reservation once it has waited for `reserve_s`.

    `order` is read from left to right, the next part decides what the one before leaves open.
    `predict` is what run times are taken from where the caller does not say.
    """

    name: str
    order: tuple[str, ...] = ("submitted",)
    backfill: str = "strict"
    backfill_order: str = "queue"
    preempt: tuple[str, ...] = ()
    preempt_depth: int = 1
    placement: str = "best-fit"
    predict: str = "user"
    quota: bool = False
    levels: int = 8
    level_first_s: float = 600.0
    level_factor: float = 4.0
    level_devices: bool = True
    run_min_s: float = 300.0
    preempt_per_hour: int = 0
    overdue_s: float = 0.0
    overdue_most: int = 0
    gate_s: float = 0.0
    reserve_s: float = 0.0
    ageing_s: float = 3600.0
    half_life_s: float = 7 * 86400.0
    margin: float = 0.0
    depth: int = 100


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """Why a policy cannot be used."""

    code: str
    text: str
    remedy: str


_CHOICES: Mapping[str, Mapping[str, int]] = {
    "order": ORDERS,
    "backfill": BACKFILLS,
    "backfill_order": BACKFILL_ORDERS,
    "preempt": PREEMPTS,
    "placement": PLACEMENTS,
    "predict": PREDICTORS,
}

POLICIES: Mapping[str, PolicyParts] = {
    each.name: each
    for each in (
        PolicyParts("fcfs"),
        PolicyParts("easy", backfill="easy"),
        PolicyParts("conservative", backfill="conservative"),
        PolicyParts("sjf", order=("shortest",)),
        PolicyParts("sjf-backfill", order=("shortest",), backfill="easy"),
        PolicyParts("srtf", order=("shortest",), backfill="skip", preempt=("order",), margin=0.1),
        PolicyParts("las", order=("attained",), backfill="skip", preempt=("order",)),
        PolicyParts(
            "centre",
            order=("tier", "fair", "priority", "shortest"),
            backfill="easy",
            preempt=("tier", "quota"),
            placement="dusuan",
            predict="last2",
            quota=True,
            run_min_s=60.0,
            preempt_per_hour=120,
            overdue_s=2 * 86400.0,
            gate_s=4 * 86400.0,
        ),
        PolicyParts("fair", order=("tier", "fair"), backfill="easy", quota=True),
        PolicyParts(
            "dusuan",
            order=("tier", "attained", "expansion"),
            backfill="easy",
            preempt=("order", "tier", "quota", "move"),
            preempt_depth=2,
            placement="dusuan",
            predict="last2",
            quota=True,
            levels=3,
            level_first_s=7_200.0,
            level_factor=20.0,
            run_min_s=900.0,
            overdue_s=2 * 86_400.0,
            overdue_most=3,
            gate_s=7 * 86_400.0,
            reserve_s=2 * 86_400.0,
        ),
    )
}


def named(name: str) -> PolicyParts | PolicyProblem:
    """The policy of that name."""
    found = POLICIES.get(name)
    if found is not None:
        return found
    return PolicyProblem(
        "unknown_policy", f"there is no policy {name!r}", _nearest(name, POLICIES, "a policy file")
    )


def from_mapping(data: Any, name: str) -> PolicyParts | PolicyProblem:
    """A policy from a file's content: keys of `PolicyParts`, and `base`, the policy it changes."""
    if not isinstance(data, Mapping):
        text = "a policy is a mapping of parts, such as {base: dusuan, backfill: easy}"
        return PolicyProblem("bad_policy", text, "see: dusuan policy show dusuan")
    given = {str(key).replace("-", "_"): value for key, value in data.items()}
    base = named(str(given.pop("base", "fcfs")))
    if isinstance(base, PolicyProblem):
        return base
    values: dict[str, Any] = {"name": name}
    for key, value in given.items():
        read = _read(key, value)
        if isinstance(read, PolicyProblem):
            return read
        values[key] = read
    return replace(base, **values)


def _read(key: str, value: Any) -> Any:
    """The value of one key, checked against its type and choices."""
    types = {field.name: str(field.type) for field in fields(PolicyParts)}
    if key not in types:
        return PolicyProblem(
            "unknown_part", f"a policy has no part {key!r}", _nearest(key, types, "")
        )
    if key in _CHOICES:
        return _chosen(key, value, types[key].startswith("tuple"))
    if key == "name":
        return str(value)
    if types[key] == "bool":
        return value if isinstance(value, bool) else _wrong(key, value, "true or false")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        return _wrong(key, value, "a number that is not negative")
    if types[key] == "int" and value != int(value):
        return _wrong(key, value, "a whole number")
    return int(value) if types[key] == "int" else float(value)


def _chosen(key: str, value: Any, many: bool) -> Any:
    """One of the parts that `key` knows, or some of them where it takes several."""
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, str) or each not in _CHOICES[key]:
            text = f"{key} has no part {each!r}"
            return PolicyProblem("unknown_part", text, _nearest(str(each), _CHOICES[key], ""))
    if not many:
        return values[0] if len(values) == 1 else _wrong(key, value, "one part")
    if key == "order" and not 1 <= len(values) <= KEYS:
        return _wrong(key, value, f"one to {KEYS} parts")
    return tuple(values)


def _wrong(key: str, value: Any, wanted: str) -> PolicyProblem:
    return PolicyProblem("bad_value", f"{key} is {value!r}", f"give {wanted}")


def _nearest(name: str, known: Mapping[str, Any], also: str) -> str:
    near = get_close_matches(name, known, 1)
    listed = ", ".join(known) + (f", or {also}" if also else "")
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {listed}"


_AS_GIVEN = (
    *("preempt_depth", "quota", "levels", "level_factor", "level_devices"),
    *("preempt_per_hour", "overdue_most", "margin", "depth"),
)


def rules(policy: PolicyParts, predict: str | None = None, restart_s: float = 60.0) -> Records:
    """The policy as compiled rounds read it: RULES[1]. Raises `KeyError` for an unknown part."""
    found = np.zeros(1, RULES)
    for place, part in enumerate(policy.order):
        found["order"][0, place] = ORDERS[part]
    found["dynamic"] = bool(DYNAMIC & set(policy.order))
    found["backfill"] = BACKFILLS[policy.backfill]
    found["backfill_order"] = BACKFILL_ORDERS[policy.backfill_order]
    found["preempt"] = sum({PREEMPTS[part] for part in policy.preempt})
    found["placement"] = PLACEMENTS[policy.placement]
    found["predict"] = PREDICTORS[predict or policy.predict]
    found["restart_ms"] = round(restart_s * 1000)
    for name in ("level_first", "run_min", "overdue", "gate", "reserve", "ageing", "half_life"):
        found[f"{name}_ms"] = round(getattr(policy, f"{name}_s") * 1000)
    for name in _AS_GIVEN:
        found[name] = getattr(policy, name)
    if "order" in policy.preempt:  # else two could stop each other in their restarts for ever
        found["run_min_ms"] = np.maximum(found["run_min_ms"], found["restart_ms"] + LEAST_WORK_MS)
    return found
