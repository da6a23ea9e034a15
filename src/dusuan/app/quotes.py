"""Quotes: a short probe of the job itself on each count, and the plan menu that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from dusuan.app import jobs, matching, prices
from dusuan.app.access import Actor, Need, account_for
from dusuan.app.context import Platform
from dusuan.core import units
from dusuan.core.ledger.tick import first_slice
from dusuan.core.planning.menu import Excluded, Measurement, Plan, Price, build, choose, price_fen
from dusuan.core.scheduling.model import Request
from dusuan.core.workload.document import from_document, to_document
from dusuan.core.workload.jobspec import Goal, JobSpec, Problem
from dusuan.store.database import Tx, json
from dusuan.store.ledger import in_burn_order
from dusuan.store.rows import Account, Attempt, DeviceRow, Job, LotRow, Name, PackageRow, Quote

log = structlog.get_logger()

_BROKEN = {
    "code": "quote_failed",
    "text": "what the probes reported could not be turned into a menu",
    "remedy": "check the progress that the job reports; if it is right, tell the operator",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A quote being made: the job, who pays, and the counts to try."""

    quote_id: str
    account: Account
    spec: JobSpec
    upload_id: str | None
    request: Request
    counts: tuple[int, ...]


def create(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    path: str,
    text: str,
    *,
    name: str = "job",
    upload_id: str | None = None,
) -> dict[str, Any]:
    """Quote a job. One that says how many steps it takes is probed on each count, at its expense.

    Of any other job nothing can be measured: its plan says what a wall time's worth would cost.
    """
    account = account_for(tx, actor, path, Need.SUBMIT)
    parsed = jobs.understood(platform, text, name)
    jobs.check_upload(tx, actor, upload_id)
    devices = tx.all(DeviceRow, "devices")
    request = matching.resolve(parsed.spec.resources, devices, None)
    most = matching.largest_gang(request, devices)
    if request.count > most:
        raise jobs.too_many(request, most)
    counts = (request.count,) if parsed.spec.resources.count else doubling(most)
    asked = _Asked(platform.new_id("quo"), account, parsed.spec, upload_id, request, counts)
    if parsed.spec.workload.steps is None:
        _insert(platform, tx, actor, asked, "ready", _unmeasured(platform, tx, asked, devices))
    else:
        _insert(platform, tx, actor, asked, "probing", None)
        _probe(platform, tx, actor, asked, devices)
    return {**show(tx, actor, asked.quote_id), "warnings": [w.text for w in parsed.warnings]}


def doubling(most: int) -> tuple[int, ...]:
    """The counts a probe tries: 1, 2, 4, … and the most there are."""
    counts = {1 << i for i in range(most.bit_length()) if 1 << i <= most}
    return tuple(sorted(counts | {most}))


def _insert(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    asked: _Asked,
    state: str,
    menu: Mapping[str, Any] | None,
) -> None:
    now = platform.now()
    tx.run(
        "quote_insert",
        id=asked.quote_id,
        account_id=asked.account.id,
        member_id=actor.member_id,
        spec=json(to_document(asked.spec)),
        upload_id=asked.upload_id,
        state=state,
        menu=None if menu is None else json(menu),
        price_version=prices.latest(tx).id,
        now=now,
        expires_at=now + timedelta(seconds=platform.limits.quote_valid_s),
    )


def _probe(
    platform: Platform, tx: Tx, actor: Actor, asked: _Asked, devices: list[DeviceRow]
) -> None:
    """One short job per count, ahead of the queue where devices are free; they hold back nobody."""
    for count in asked.counts:
        order = jobs.Order(
            replace(asked.spec, checkpoint=None, name=f"probe of {asked.spec.name}"),
            replace(asked.request, count=count),
            asked.upload_id,
            asked.quote_id,
            probe=True,
            wall_ms=platform.limits.probe_s * 1_000,
        )
        jobs.insert_job(platform, tx, actor, asked.account, order, devices)


def _unmeasured(
    platform: Platform, tx: Tx, asked: _Asked, devices: Sequence[DeviceRow]
) -> dict[str, Any]:
    """The menu of a job that reports no progress: one plan, bounded by its wall time alone."""
    rating = matching.rating_of(asked.request.model, devices)
    price = price_for(tx, asked.account)
    spec, count = asked.spec, asked.request.count
    rate = (rating[0] if rating else 0) * count
    per_hour = price_fen(price, rate * 3_600)
    wall = jobs.wall_ms(spec)
    view = {
        "plan_id": f"{asked.request.kind}-x{count}-{spec.goal.tier}",
        "device": asked.request.model,
        "kind": asked.request.kind,
        "count": count,
        "tier": spec.goal.tier,
        "site": platform.site,
        "rating_gflops": rating[0] if rating else None,
        "held_degrees_p50": None,
        "price_fen_p50": None,
        "price_fen_max": None if wall is None else -(-per_hour * wall // 3_600_000),
        "price_fen_per_hour": per_hour,
        "finish_p50_s": None,
        "finish_p90_s": None,
        "energy_kwh": None,
        "co2_kg": None,
    }
    note = "nothing was measured: the job file has no workload.steps to hold its progress against"
    least = first_slice(rate, jobs.Order(spec, asked.request).grace_ms, platform.slices)
    return {
        "plans": [view],
        "excluded": [],
        "chosen": view["plan_id"],
        "notes": [note],
        "first_slice_gflop": least,
    }


def price_for(tx: Tx, account: Account) -> Price:
    """What a GFLOP costs this account now: the price of the lot that burns next, or, with an
    empty wallet, of the cheapest package on sale."""
    lots = in_burn_order(tx.all(LotRow, "lots_of_wallets", wallets=[account.wallet_id]))
    if lots:
        return Price(lots[0].paid_fen, lots[0].initial_gflop)
    packages = tx.all(PackageRow, "packages_on_sale")
    if not packages:
        return Price(0, 1)
    best = min(packages, key=lambda p: p.price_fen / p.gflop)
    return Price(best.price_fen, best.gflop)


def finish_probed(platform: Platform) -> int:
    """Turn probes that have all ended into menus; how many quotes became ready or failed.

    Probes that found no devices while their quote was valid are given up first.
    """
    with platform.store.transaction() as tx:
        overdue = tx.all(Name, "probes_overdue", now=platform.now())
    for probe in overdue:
        with platform.store.transaction() as tx:
            jobs.withdraw(platform, tx, probe.id, "quote expired")
    with platform.store.transaction() as tx:
        ready = tx.all(Quote, "quotes_probed")
    for quote in ready:
        _finish(platform, quote)
    return len(ready)


def _finish(platform: Platform, quote: Quote) -> None:
    """Write what became of a quote, whatever its job reported: one must not hold up the others."""
    try:
        with platform.store.transaction() as tx:
            menu, problem = _menu(platform, tx, quote)
    except Exception:
        log.exception("quote_failed", quote_id=quote.id)
        menu, problem = None, _BROKEN
    with platform.store.transaction() as tx:
        tx.run(
            "quote_finish",
            id=quote.id,
            state="failed" if menu is None else "ready",
            menu=None if menu is None else json(menu),
            problem=None if problem is None else json(problem),
            expires_at=platform.now() + timedelta(seconds=platform.limits.quote_valid_s),
        )


def _menu(
    platform: Platform, tx: Tx, quote: Quote
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The menu of a quote whose probes have ended, or the problem that there is none."""
    probes = [
        (job, tx.one(Attempt, "attempts_of_job", job_id=job.id))
        for job in tx.all(Job, "probes_of", quote_id=quote.id)
    ]
    ran = [(job, attempt) for job, attempt in probes if attempt is not None]
    account = tx.one(Account, "account_by_id", id=quote.account_id)
    spec = from_document(quote.spec)
    if account is None or spec.workload.steps is None:
        raise RuntimeError(f"{quote.id} was probed without an account or steps")
    price = price_for(tx, account)
    measured = [_measurement(job, attempt) for job, attempt in ran]
    tier = spec.goal.tier
    permille = _permille(tx, quote, tier)
    menu = build(measured, spec.workload.steps, price, tier, platform.site, permille)
    if not menu.plans:
        return None, _why_nothing(probes)
    waited = [job for job, attempt in probes if attempt is None]
    document = {
        "plans": [plan_view(p) for p in menu.plans],
        "excluded": [asdict(e) for e in menu.excluded] + [_never_ran(job) for job in waited],
        "probe_held_gflop": sum(units.held_gflop(a.rating_gflops, a.held_ms) for _, a in ran),
        "notes": ["energy and carbon are not known: no power meter on these devices"],
        **_chosen(menu.plans, spec.goal),
    }
    return document, None


def _permille(tx: Tx, quote: Quote, tier: str) -> int:
    """What `tier` costs by the price version that was in force when the quote was asked for."""
    if quote.price_version is None:  # asked for before there were any
        return 1_000
    version = tx.one(prices.PriceVersion, "price_version_by_id", id=quote.price_version)
    return 1_000 if version is None else prices.permille(version, tier)


def _never_ran(probe: Job) -> dict[str, Any]:
    reason = "its probe did not start: such devices were not free in time, or it was cancelled"
    return asdict(Excluded(probe.model or "any", probe.count, reason))


def _measurement(job: Job, attempt: Attempt) -> Measurement:
    marks = tuple((float(s), float(done)) for s, done in attempt.meter.get("marks", []))
    return Measurement(attempt.model, attempt.kind, job.count, attempt.rating_gflops, marks)


def _why_nothing(probes: Sequence[tuple[Job, Attempt | None]]) -> dict[str, Any]:
    ended = "; ".join(f"on {job.count}: {_how_it_ended(attempt)}" for job, attempt in probes)
    return {
        "code": "no_progress",
        "text": f"the probe saw too little progress to measure ({ended})",
        "remedy": 'append lines such as {"progress": [done, total]} to $DUSUAN_REPORT, '
        "or remove workload.steps",
        "probe_jobs": [job.id for job, _ in probes],
    }


def _how_it_ended(attempt: Attempt | None) -> str:
    if attempt is None:
        return "never started"
    code = "" if attempt.exit_code is None else f", exit code {attempt.exit_code}"
    text = f" ({attempt.end_text})" if attempt.end_text else ""
    return f"ended by {attempt.end_reason}{code}{text}"


def _chosen(plans: Sequence[Plan], goal: Goal) -> dict[str, Any]:
    choice = choose(plans, goal)
    if isinstance(choice, Problem):
        return {"chosen": None, "missed": asdict(choice)}
    return {"chosen": choice.plan_id, "missed": None}


def plan_view(plan: Plan) -> dict[str, Any]:
    """A plan as the API shows it."""
    document = {k: v for k, v in asdict(plan).items() if k != "held_gflop_p50"}
    return {
        **document,
        "held_gflop_p50": plan.held_gflop_p50,
        "held_degrees_p50": units.degrees_text(plan.held_gflop_p50),
    }


def show(tx: Tx, actor: Actor, quote_id: str, goal: Goal | None = None) -> dict[str, Any]:
    """A quote and what its goal picks; `goal` asks what another goal would pick."""
    quote = jobs.quote_for(tx, actor, quote_id, Need.READ)
    menu = dict(quote.menu or {})
    if goal is not None and menu.get("plans"):
        menu.update(_chosen([_plan(view) for view in menu["plans"]], goal))
    return {
        "quote_id": quote.id,
        "state": quote.state,
        "plans": [],
        "excluded": [],
        "chosen": None,
        **menu,
        "problem": quote.problem,
        "expires_at": quote.expires_at.isoformat(),
    }


def _plan(view: Mapping[str, Any]) -> Plan:
    return Plan(**{k: v for k, v in view.items() if k in Plan.__dataclass_fields__})
