"""Quotes: a menu of plans, from an estimate of a described job or from short probes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from dusuan.app import calibrations, describing, jobs, matching, overrides, prices
from dusuan.app.access import Actor, Need, account_for
from dusuan.app.context import Platform, Refused, refuse
from dusuan.core import units
from dusuan.core.ledger.tick import first_slice
from dusuan.core.planning import grid, probe
from dusuan.core.planning.menu import (
    Excluded,
    Menu,
    Plan,
    Price,
    Terms,
    assemble,
    choose,
    price_fen,
)
from dusuan.core.planning.probe import Measurement
from dusuan.core.scheduling.model import Request
from dusuan.core.workload import description
from dusuan.core.workload.describe import Work
from dusuan.core.workload.description import is_described
from dusuan.core.workload.document import from_document, to_document
from dusuan.core.workload.jobspec import Goal, JobSpec, Problem
from dusuan.store.database import Tx, json
from dusuan.store.ledger import in_burn_order
from dusuan.store.rows import Account, Attempt, DeviceRow, Job, LotRow, Name, PackageRow, Quote

log = structlog.get_logger()

PROBES_MAX = 16
_BROKEN = {
    "code": "quote_failed",
    "text": "what the probes reported could not be turned into a menu",
    "remedy": "check the progress that the job reports; if it is right, tell the operator",
}
ASK = (
    'say how far it is, in any of these ways: lines such as {"progress": [done, total]} appended '
    "to $DUSUAN_REPORT; `progress: {pattern: 'step (\\d+)/(\\d+)'}` over its log; or describe it: "
    "`workload:` with a kind, a model and how much is computed"
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A quote being made: the job, who pays, and what to try: a request for each probe."""

    quote_id: str
    account: Account
    spec: JobSpec
    upload_id: str | None
    request: Request | None
    tries: tuple[Request, ...]


def create(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    path: str,
    text: str,
    *,
    name: str = "job",
    upload_id: str | None = None,
    what_if: bool = False,
) -> dict[str, Any]:
    """Quote a job. A described one is sized at once; `what_if` adds devices that the pool could
    have. Any other is probed at its account's expense: on each device and count when its file
    says how progress is told, else once on the least it can run on, to see whether it tells any.
    """
    account = account_for(tx, actor, path, Need.SUBMIT)
    parsed = jobs.understood(platform, text, name)
    jobs.check_upload(tx, actor, upload_id)
    devices = tx.all(DeviceRow, "devices")
    warned = {"warnings": [w.text for w in parsed.warnings]}
    if is_described(parsed.spec.workload):
        asked = _Asked(platform.new_id("quo"), account, parsed.spec, upload_id, None, ())
        _describe(platform, tx, actor, asked, devices, what_if=what_if)
        return {**show(tx, actor, asked.quote_id), **warned}
    request = matching.resolve(parsed.spec.resources, devices, None)
    most = matching.largest_gang(request, devices)
    if request.count > most:
        raise jobs.too_many(request, most)
    if not matching.usable(parsed.spec.resources, devices):
        raise _nothing_usable(parsed.spec, devices)
    tries = _tries(parsed.spec, request, devices)
    asked = _Asked(platform.new_id("quo"), account, parsed.spec, upload_id, request, tries)
    _insert(platform, tx, actor, asked, "probing", None)
    _probe(platform, tx, actor, asked, devices)
    return {**show(tx, actor, asked.quote_id), **warned}


def _describe(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    asked: _Asked,
    devices: Sequence[DeviceRow],
    *,
    what_if: bool,
) -> None:
    """Size a described job for every device type, and write the quote: ready, or failed with the
    reason for each of them."""
    spec, version = asked.spec, prices.latest(tx)
    work = describing.work_of(platform, spec, asked.upload_id)
    seen = calibrations.sustained(tx, spec.workload.kind)
    known = overrides.effective(tx)
    options = describing.options(spec.resources, devices, seen, known=known, what_if=what_if)
    ways, excluded = grid.ways(work, options, describing.models())
    tiers = {each: prices.permille(version, each) for each in prices.TIERS}
    amount = description.amount(spec.workload)
    terms = Terms(
        price_for(tx, asked.account),
        spec.goal.tier,
        platform.site,
        tiers,
        work=spec.workload.steps or (amount.steps if amount else None),
    )
    menu = assemble(ways, terms, (*excluded, *matching.outcasts(spec.resources, devices)))
    document = {**menu_view(menu, spec.goal), "notes": _estimate_notes(platform, work)}
    problem = None if menu.plans else _fits_nowhere(menu)
    state = "ready" if problem is None else "failed"
    _insert(platform, tx, actor, asked, state, document, problem)


def _estimate_notes(platform: Platform, work: Work) -> list[str]:
    notes = ["estimated from its description: P90 is the upper end of an 80 % interval"]
    if platform.site.grid_kg_per_kwh is None:
        notes.append("carbon is not known: the grid's factor of this site is not set")
    return [*notes, *(f"assumed: {text}" for text in work.assumptions)]


def _fits_nowhere(menu: Menu) -> dict[str, Any]:
    reasons = "; ".join(f"{e.device}: {e.reason}" for e in menu.excluded[:8])
    return {
        "code": "fits_nowhere",
        "text": f"no device of the pool can run it ({reasons or 'the pool is empty'})",
        "remedy": "describe less (a smaller batch, LoRA); --what-if shows what could run it",
    }


def _nothing_usable(spec: JobSpec, devices: Sequence[DeviceRow]) -> Refused:
    reasons = "; ".join(
        f"{e.device}: {e.reason}" for e in matching.outcasts(spec.resources, devices)
    )
    text = f"no device of the pool can be quoted for it ({reasons})"
    return refuse(
        "conflict", "no_usable_device", text, "change what the job asks for, or calibrate"
    )


def tells_progress(spec: JobSpec) -> bool:
    """Whether a job file says that, or how, the job's progress can be followed."""
    return spec.workload.steps is not None or spec.progress is not None


def _tries(spec: JobSpec, request: Request, devices: Sequence[DeviceRow]) -> tuple[Request, ...]:
    """What to probe: every model of the pool that fits, on 1, 2, 4, … devices; the first alone
    once, when nothing says that there is any progress to see."""
    if spec.resources.count:
        return (request,)
    if not tells_progress(spec):
        return (replace(request, count=1),)
    models = dict.fromkeys((d.kind, d.model) for d in matching.usable(spec.resources, devices))
    first = (request.kind, request.model)
    ordered = [first, *(m for m in models if m != first)]
    asked = [replace(request, kind=kind, model=model) for kind, model in ordered]
    tries = [
        replace(each, count=count)
        for each in asked
        for count in doubling(matching.largest_gang(each, devices))
    ]
    return tuple(tries[:PROBES_MAX])


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
    problem: Mapping[str, Any] | None = None,
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
        problem=None if problem is None else json(problem),
        price_version=prices.latest(tx).id,
        now=now,
        expires_at=now + timedelta(seconds=platform.limits.quote_valid_s),
    )


def _probe(
    platform: Platform, tx: Tx, actor: Actor, asked: _Asked, devices: list[DeviceRow]
) -> None:
    """Short jobs, ahead of the queue where devices are free; they hold back nobody."""
    for request in asked.tries:
        order = jobs.Order(
            replace(asked.spec, checkpoint=None, name=f"probe of {asked.spec.name}"),
            request,
            asked.upload_id,
            asked.quote_id,
            probe=True,
            wall_ms=platform.limits.probe_s * 1_000,
        )
        jobs.insert_job(platform, tx, actor, asked.account, order, devices)


def _unmeasured(
    platform: Platform, tx: Tx, quote: Quote, account: Account, spec: JobSpec, probed: Job
) -> dict[str, Any]:
    """The menu of a job that tells no progress: one plan, bounded by its wall time alone."""
    rating = matching.rating_of(probed.model, tx.all(DeviceRow, "devices"))
    tier, count = spec.goal.tier, spec.resources.count or 1
    permille = _permille(tx, quote, tier)
    rate = units.tier_rate(rating[0], permille) * count if rating else 0
    per_hour = price_fen(price_for(tx, account), rate * 3_600)
    wall = jobs.wall_ms(spec)
    view = {
        **dict.fromkeys(Plan.__dataclass_fields__),
        "plan_id": f"{probed.kind}-x{count}-{tier}",
        "device": probed.model,
        "kind": probed.kind,
        "count": count,
        "tier": tier,
        "site": platform.site.name,
        "rating_gflops": rating[0] if rating else None,
        "held_degrees_p50": None,
        "price_fen_max": None if wall is None else -(-per_hour * wall // 3_600_000),
        "price_fen_per_hour": per_hour,
        "tier_permille": permille,
        "basis": "unmeasured",
        "binding": False,
        "in_pool": True,
    }
    request = Request(count, probed.kind, probed.model)
    return {
        "plans": [view],
        "excluded": [],
        "chosen": view["plan_id"],
        "notes": [f"it cannot be sized: the probe saw no progress. To have it sized, {ASK}"],
        "first_slice_gflop": first_slice(rate, jobs.Order(spec, request).grace_ms, platform.slices),
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
    for waiting in overdue:
        with platform.store.transaction() as tx:
            jobs.withdraw(platform, tx, waiting.id, "quote expired")
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
    if account is None:
        raise RuntimeError(f"{quote.id} was probed without an account")
    measured = [_measurement(job, attempt) for job, attempt in ran]
    menu = _measured(platform, tx, quote, account, spec, measured)
    held = sum(units.held_gflop(a.rating_gflops, a.held_ms) for _, a in ran)
    if not menu.plans:
        failed = any(a.end_reason == "start_failed" or a.exit_code for _, a in ran)
        if tells_progress(spec) or failed or not ran:
            return None, _why_nothing(probes)
        ask = _unmeasured(platform, tx, quote, account, spec, ran[0][0])
        return {**ask, "probe_held_gflop": held}, None
    waited = [_never_ran(job) for job, attempt in probes if attempt is None]
    outcast = matching.outcasts(spec.resources, tx.all(DeviceRow, "devices"))
    notes = ["energy and carbon are not known: no power meter on these devices"]
    return {
        **menu_view(menu, spec.goal),
        "excluded": [asdict(e) for e in (*menu.excluded, *waited, *outcast)],
        "probe_held_gflop": held,
        "notes": notes,
    }, None


def _measured(
    platform: Platform,
    tx: Tx,
    quote: Quote,
    account: Account,
    spec: JobSpec,
    measured: Sequence[Measurement],
) -> Menu:
    """The menu that probes lead to. It binds where there is a total to hold progress against."""
    totals = [m.total for m in measured if m.total]
    steps = spec.workload.steps
    ways, excluded = probe.ways(measured, steps)
    terms = terms_for(platform, tx, quote, account, spec.goal.tier)
    bound = any(w.steps_per_s is not None for w in ways)
    work = steps if steps is not None else (totals[0] if totals else None)
    return assemble(ways, replace(terms, work=work, binding=bound), excluded)


def terms_for(platform: Platform, tx: Tx, quote: Quote, account: Account, tier: str) -> Terms:
    """The price of degrees for an account, and of tiers by the quote's price version."""
    tiers = {each: _permille(tx, quote, each) for each in prices.TIERS}
    return Terms(price_for(tx, account), tier, platform.site, tiers)


def menu_view(menu: Menu, goal: Goal) -> dict[str, Any]:
    """A menu as it is kept and shown, and what the goal picks from it."""
    return {
        "plans": [plan_view(p) for p in menu.plans],
        "excluded": [asdict(e) for e in menu.excluded],
        **_chosen(menu.plans, goal),
    }


def _permille(tx: Tx, quote: Quote, tier: str) -> int:
    """What `tier` costs by the price version that was in force when the quote was asked for."""
    if quote.price_version is None:  # asked for before there were any
        return 1_000
    version = tx.one(prices.PriceVersion, "price_version_by_id", id=quote.price_version)
    return 1_000 if version is None else prices.permille(version, tier)


def _never_ran(probed: Job) -> Excluded:
    reason = "its probe did not start: such devices were not free in time, or it was cancelled"
    return Excluded(probed.model or "any", probed.count, reason)


def _measurement(job: Job, attempt: Attempt) -> Measurement:
    progress = attempt.meter.get("progress")
    whole = attempt.end_reason == "exit" and attempt.exit_code == 0
    return Measurement(
        device=attempt.model,
        kind=attempt.kind,
        count=job.count,
        rating_gflops=attempt.rating_gflops,
        marks=tuple((float(s), float(done)) for s, done in attempt.meter.get("marks", [])),
        ended_s=attempt.held_ms / attempt.devices / 1_000 if whole else None,
        total=float(progress[1]) if progress and progress[1] else None,
        peak_mib=attempt.meter.get("peak_mib"),
    )


def _why_nothing(probes: Sequence[tuple[Job, Attempt | None]]) -> dict[str, Any]:
    ended = "; ".join(f"on {job.count}: {_how_it_ended(attempt)}" for job, attempt in probes)
    return {
        "code": "no_progress",
        "text": f"the probe saw too little progress to measure ({ended})",
        "remedy": ASK if any(a for _, a in probes) else "quote again when devices are free",
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
