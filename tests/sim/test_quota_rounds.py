"""Quotas in simulated rounds, audited from the log of decisions by books of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.checker import Checker
from tests.sim.quotas import Auditor, Limits

from dusuan.core.scheduling.accounts import accounts_array
from dusuan.core.scheduling.arrays import ENDED, RUNNING, WAITING, jobs_array
from dusuan.core.scheduling.policy import POLICIES, PolicyParts
from dusuan.core.workload.jobspec import Problem
from dusuan.sim.journal import entries
from dusuan.sim.quotas import read_accounts
from dusuan.sim.run import Outcome, Settings, simulate
from dusuan.sim.trace import Rated, Site, Trace, read_cluster

HOUR_MS = 3_600_000
pytestmark = pytest.mark.timeout(600)  # the first simulation compiles the rules
# Quota alone stops jobs here, and soon, so that there is much to see.
CENTRE = replace(POLICIES["centre"], run_min_s=60.0, preempt_per_hour=0)
FIRST = replace(CENTRE, order=("submitted",))
STRICT = replace(FIRST, backfill="strict", overdue_s=0.0, gate_s=0.0)
CONSERVATIVE = replace(STRICT, backfill="conservative", preempt=())
SKIP = replace(CENTRE, order=("tier", "fair"), backfill="skip")
HOW = {"centre": CENTRE, "strict": STRICT, "conservative": CONSERVATIVE, "skip": SKIP}
DUSUAN = POLICIES["dusuan"]
SITES = st.sampled_from(["2x8", "4x4"])


def cluster(text: str) -> Site:
    found = read_cluster(text, lambda _model: Rated(0, 0.0))
    assert isinstance(found, Site)
    return found


Tree = dict[str, Limits]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Up to three organisations, with up to three departments each, on 16 devices."""
    devices = st.sampled_from([None, 0, 1_000, 2_000, 4_000])
    quota = st.sampled_from([None, 0, 2_000, 4_000, 8_000])
    found: Tree = {}
    for i in range(draw(st.integers(1, 3))):
        found[f"o{i}"] = Limits(None, draw(quota), draw(devices), draw(devices))
        for k in range(draw(st.integers(0, 3))):
            found[f"o{i}d{k}"] = Limits(f"o{i}", draw(quota), draw(devices), draw(devices))
    return found


def as_array(tree: Tree) -> Any:
    """The tree as the rules take it."""
    found, place = accounts_array(len(tree)), {name: i for i, name in enumerate(tree)}
    for account, limits in zip(found, tree.values(), strict=True):
        account["parent"] = -1 if limits.above is None else place[limits.above]
        for name in ("quota", "borrow", "lend"):
            value = getattr(limits, name)
            account[f"{name}_milli"] = -1 if value is None else value
    return found


def crowd(tree: Tree, seed: int, count: int = 60, most: int = 8) -> Trace:
    """More work than there is room for, of all accounts; a third of it parts of a device."""
    draw = np.random.default_rng(seed)
    jobs = jobs_array(count)
    jobs["submit_ms"] = np.sort(draw.integers(0, 6 * HOUR_MS, count)) // 60_000 * 60_000
    jobs["run_ms"] = draw.exponential(HOUR_MS, count).astype(np.int64) + 1
    jobs["estimate_ms"] = jobs["run_ms"] * draw.integers(1, 4, count)
    jobs["devices"] = np.minimum(draw.integers(1, most + 1, count), most)
    part = draw.random(count) < 0.3
    jobs["milli"] = np.where(part, draw.integers(200, 1_000, count), 1_000)
    jobs["devices"] = np.where(part, 1, jobs["devices"])
    jobs["account"] = draw.integers(0, len(tree), count)
    jobs["tier"] = np.where(draw.random(count) < 0.2, 2, 1)
    jobs["preemptible"] = draw.random(count) < 0.8
    return Trace(jobs, tuple(f"j{i}" for i in range(count)), tuple(tree))


def run(site: Site, trace: Trace, tree: Tree, how: PolicyParts) -> Outcome:
    settings_ = Settings(how, "user", 60.0, log=True)
    return simulate(site, trace, settings_, lambda: 0.0, accounts=as_array(tree))


def audited(outcome: Outcome, tree: Tree) -> Auditor:
    Checker(outcome.site.nodes["gpus"].tolist()).read(entries(outcome))
    pool = int(outcome.site.nodes["gpus"].sum()) * 1_000
    return Auditor(tree, pool).read(entries(outcome))


def never(tree: Tree, pool: int, account: str, asked: int) -> bool:
    """Whether `account` may not use so much even when nobody else uses anything."""
    books = Auditor(tree, pool)
    books.own[account] = asked
    return any(
        (borrow := tree[each].borrow) is not None
        and books.counts(each) > books.guaranteed(each) + borrow
        for each in books.way(account)[1:]
    ) or books.counts("") > max(pool, books.guaranteed(""))


@settings(max_examples=60, deadline=None)
@given(
    trees(), st.integers(0, 2**31), st.sampled_from(sorted(HOW)), st.sampled_from(["2x8", "4x4"])
)
def test_limits_hold_on_every_level_and_only_borrowers_are_stopped(
    tree: Tree, seed: int, how: str, text: str
) -> None:
    """And whoever may ever start does, and ends."""
    outcome = run(cluster(text), crowd(tree, seed), tree, HOW[how])
    books = audited(outcome, tree)
    for j, state in enumerate(outcome.state.jobs["state"]):
        if state in (WAITING, RUNNING):
            seen = books.jobs[outcome.trace.names[j]]
            asked = outcome.trace.jobs[j]
            node = int(outcome.site.nodes["gpus"].max())
            whole = -(-int(asked["devices"]) // node) * node * 1_000  # what a gang takes
            milli = whole if asked["devices"] > node else seen.asked
            assert state == WAITING
            assert never(tree, 16_000, seen.account, milli), seen
        else:
            assert state == ENDED


def test_there_is_something_to_see() -> None:
    """Jobs borrow, and are stopped for those who are owed it: else the audit says nothing."""
    tree = {
        "a": Limits(None, 8_000, 4_000, None), "a1": Limits("a", 4_000, None, 2_000),
        "a2": Limits("a", None, None, None), "b": Limits(None, 6_000, None, 2_000),
    }  # fmt: skip
    seen: dict[str, int] = {}
    for seed in range(4):
        books = audited(run(cluster("2x8"), crowd(tree, seed, 120), tree, CENTRE), tree)
        seen = {key: seen.get(key, 0) + count for key, count in books.seen.items()}
    assert seen["borrowed"] > 50
    assert seen["reclaimed"] > 20


def made(rows: list[tuple[float, str, int, float]], tree: Tree, preemptible: int = 1) -> Trace:
    """Jobs from (hour of submission, account, devices, hours)."""
    jobs, names = jobs_array(len(rows)), list(tree)
    for job, (at, account, devices, hours) in zip(jobs, rows, strict=True):
        job["submit_ms"], job["run_ms"] = round(at * HOUR_MS), round(hours * HOUR_MS)
        job["estimate_ms"], job["devices"] = job["run_ms"], devices
        job["account"], job["tier"] = names.index(account), 1
    jobs["preemptible"] = preemptible
    return Trace(jobs, tuple(f"j{i}" for i in range(len(rows))), tuple(tree))


def starts(outcome: Outcome) -> list[float]:
    """First starts, in hours."""
    return [round(float(at) / HOUR_MS, 3) for at in outcome.state.jobs["first_start_ms"]]


def test_an_organisation_takes_back_its_quota_for_a_department_that_has_none() -> None:
    tree = {"a": Limits(None, 8_000), "a1": Limits("a"), "b": Limits()}
    trace = made([(0, "b", 8, 5), (1, "a1", 4, 1)], tree)
    outcome = run(cluster("2x4"), trace, tree, CENTRE)
    assert starts(outcome) == [0, 1]
    assert audited(outcome, tree).seen["reclaimed"] == 1


def test_what_is_taken_back_is_a_siblings_not_another_organisations() -> None:
    """`a2` borrows from `a1` inside `a`; `b` borrows nothing of theirs while `a` uses its quota."""
    tree = {"a": Limits(None, 4_000), "a1": Limits("a", 4_000), "a2": Limits("a"), "b": Limits()}
    trace = made([(0, "a2", 4, 5), (0, "b", 4, 5), (1, "a1", 4, 1)], tree)
    outcome = run(cluster("2x4"), trace, tree, CENTRE)
    assert starts(outcome) == [0, 0, 1]
    assert [line["job"] for line in entries(outcome) if line["kind"] == "preempt"] == ["j0"]


def test_what_an_account_keeps_to_itself_is_not_asked_of_those_above() -> None:
    """`a1` has one of its two idle and takes back the other, within what `a` is guaranteed."""
    tree = {
        "a": Limits(None, 3_000), "a1": Limits("a", 2_000, None, 1_000), "a2": Limits("a", 1_000),
        "b": Limits(None, 1_000),
    }  # fmt: skip
    trace = made([(0, "a2", 1, 5), (0, "b", 1, 5), (0, "b", 1, 5), (1, "a1", 2, 1)], tree)
    outcome = run(cluster("1x4"), trace, tree, CENTRE)
    assert starts(outcome) == [0, 0, 0, 1]
    assert audited(outcome, tree).seen["reclaimed"] == 1


def test_what_is_not_lent_stays_idle_and_what_is_lent_is_used() -> None:
    for lend, at in ((0, 5), (1_000, 5), (2_000, 0), (None, 0)):
        tree = {"a": Limits(None, 4_000, None, lend), "b": Limits()}
        trace = made([(0, "b", 4, 5), (0, "b", 2, 1)], tree)
        outcome = run(cluster("2x4"), trace, tree, FIRST)
        assert starts(outcome) == [0, at], lend


def test_borrowing_is_limited_on_every_level() -> None:
    for org, department, at in ((2_000, None, 5), (None, 2_000, 5), (4_000, 4_000, 0)):
        tree = {"a": Limits(None, 2_000, org), "a1": Limits("a", 2_000, department)}
        trace = made([(0, "a1", 4, 5), (0, "a1", 2, 1)], tree)
        assert starts(run(cluster("2x4"), trace, tree, FIRST)) == [0, at]


def test_nobody_passes_a_job_that_waits_for_quota_unless_it_gives_it_back_in_time() -> None:
    """Four of its account's six are in use until hour 4; the next wants four."""
    tree = {"a": Limits(None, 6_000, 0), "b": Limits()}
    rows = [(0, "a", 4, 4), (1, "a", 4, 1), (2, "a", 2, 3), (2, "a", 2, 1), (2, "b", 2, 9)]
    trace = made(rows, tree)
    for how, expected in (
        (FIRST, [0, 4, 4, 2, 2]),  # in time, or of another account
        (STRICT, [0, 4, 4, 5, 2]),
        (replace(FIRST, backfill="skip"), [0, 4, 2, 5, 2]),
    ):
        assert starts(run(cluster("2x4"), trace, tree, how)) == expected, how.backfill


def test_the_fair_order_counts_fast_devices_for_more_and_fades() -> None:
    """Equal hours on a device of twice the rating are twice the use."""
    site = cluster("1x1,1x1")
    site.nodes["type"] = [0, 1]
    site = replace(site, ratings=np.array([200_000, 100_000], np.int64), models=("fast", "slow"))
    tree = {"fast": Limits(), "slow": Limits()}
    rows = [(0, "fast", 1, 1), (0, "slow", 1, 1), (1, "fast", 1, 1), (1, "slow", 1, 1)]
    trace = made(rows, tree)
    trace.jobs["types"] = [1, 2, 1, 1]  # then both want the fast one
    outcome = run(site, trace, tree, replace(CENTRE, order=("fair",)))
    assert starts(outcome) == [0, 0, 2, 1]


def test_dusuan_with_accounts_without_quotas_decides_as_without_accounts() -> None:
    tree: Tree = {"a": Limits(), "b": Limits()}
    trace = crowd(tree, 5, 100)
    with_tree = run(cluster("2x8"), trace, tree, DUSUAN)
    settings_ = Settings(DUSUAN, "user", 60.0, log=True)
    without = simulate(cluster("2x8"), trace, settings_, lambda: 0.0)
    assert with_tree.lines.tobytes() == without.lines.tobytes()


def waits_of(outcome: Outcome) -> list[tuple[int, int, str, str]]:
    """(since, until, account, job) of every wait that a start ended."""
    since: dict[str, int] = {}
    account: dict[str, str] = {}
    found = []
    for line in entries(outcome):
        name = line.get("job", "")
        if line["kind"] == "submit":
            account[name] = line["account"]
        if line["kind"] in ("submit", "preempt", "lost"):
            since[name] = line["time_ms"]
        elif line["kind"] == "start" and name in since:
            found.append((since.pop(name), line["time_ms"], account[name], name))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_nobody_starves_for_quota(seed: int) -> None:
    """From the log: no wait is longer than docs/scheduling.md says, for whoever is guaranteed it.

    Small jobs of the same account come all the time; now and then one that needs all of its quota.
    """
    draw = np.random.default_rng(seed)
    tree = {
        "a": Limits(None, 8_000, 0), "b": Limits(None, 4_000, 4_000, 2_000),
        "c": Limits(None, 4_000),
    }  # fmt: skip
    trace = crowd(tree, seed, 300, 2)
    jobs, large = trace.jobs, draw.random(300) < 0.06
    jobs["milli"], jobs["preemptible"], jobs["tier"] = 1_000, 0, 1
    jobs["run_ms"] = draw.exponential(HOUR_MS / 4, 300).astype(np.int64) + 60_000
    jobs["estimate_ms"] = np.where(large, 4 * HOUR_MS, 60_000)  # the small ones promise too much
    jobs["devices"] = np.where(large, np.where(jobs["account"] == 0, 8, 4), jobs["devices"])
    overdue_ms, gate_ms, longest_ms = HOUR_MS, HOUR_MS // 4, int(jobs["run_ms"].max())
    how = replace(CENTRE, overdue_s=3_600.0, gate_s=900.0, preempt=(), order=("shortest",))
    outcome = run(cluster("2x8"), trace, tree, how)
    audited(outcome, tree)
    waits = waits_of(outcome)
    assert len(waits) == 300
    for since, until, _, name in waits:
        older = sum(1 for s, u, _, _ in waits if s < since and u > since + overdue_ms)
        bound_ms = overdue_ms + (older + 1) * (gate_ms + 3 * longest_ms)
        assert until - since <= bound_ms, name


def test_a_tree_of_accounts_is_read_and_what_is_wrong_with_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "accounts.csv"
    for text, told in (
        ("account,parent\na,b\nb,a\n", "its own ancestor"),
        ("account,parent\na,b\n", "line 2: parent 'b' is no account"),
        ("account,quota\na,-1\n", "line 2: quota is '-1'"),
        ("account,weight\na,0\n", "line 2: weight is '0'"),
        ("account\na\na\n", "line 3: account 'a' is there twice"),
        ("name\na\n", "column 'name'"),
    ):
        file.write_text(text)
        found = read_accounts(file, ("a",))
        assert isinstance(found, Problem)
        assert told in f"{found.text}: {found.remedy}"
    file.write_text("account,parent,weight,quota,borrow,lend\norg,,,8,,\na,org,2,1.5,0,\n")
    found = read_accounts(file, ("x", "a"))
    assert not isinstance(found, Problem)
    fields = ["parent", "weight", "quota_milli", "borrow_milli", "lend_milli"]
    assert found[fields].tolist() == [
        (-1, 1, -1, -1, -1), (2, 2, 1_500, 0, -1), (-1, 1, 8_000, -1, -1),
    ]  # fmt: skip
