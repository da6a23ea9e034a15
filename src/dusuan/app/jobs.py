"""Submitting, showing and cancelling jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from dusuan.app import bindings, matching, prices, wallets
from dusuan.app.access import Actor, Need, account_for, check_job, job_for, no_job
from dusuan.app.context import Platform, Refused, refuse
from dusuan.core import units
from dusuan.core.ledger.balances import Balances
from dusuan.core.ledger.holds import Shortage, open_hold, void_hold
from dusuan.core.ledger.tick import first_slice
from dusuan.core.scheduling.model import Request, Wait, WaitCode
from dusuan.core.workload.document import from_document, to_document
from dusuan.core.workload.jobfile import parse_job
from dusuan.core.workload.jobspec import JobSpec, Parsed, Problem
from dusuan.store import ledger
from dusuan.store.database import Look, Tx, json
from dusuan.store.rows import (
    Account,
    DeviceRow,
    Hold,
    Id,
    Job,
    JobShown,
    LedgerAccount,
    Quote,
    Upload,
)

DEFAULT_GRACE_S = 2.0
FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Order:
    """A job about to be written: what to run, for whom, on how many of which devices."""

    spec: JobSpec
    request: Request
    upload_id: str | None = None
    quote_id: str | None = None
    plan_id: str | None = None
    probe: bool = False
    wall_ms: int | None = None
    terms: bindings.Terms | None = None
    tier_permille: int = 1_000
    expected_ms: int | None = None  # by its quote

    @property
    def grace_ms(self) -> int:
        """Milliseconds between the checkpoint signal and the kill."""
        checkpoint = self.spec.checkpoint
        return round((checkpoint.grace_s if checkpoint else DEFAULT_GRACE_S) * 1_000)


def understood(platform: Platform, text: str, name: str) -> Parsed:
    """The job file `text`. Raises `Refused` too_large or invalid, with the line at fault."""
    size = len(text.encode())
    if size > platform.limits.job_file_bytes:
        raise refuse(
            "too_large",
            "job_file_too_large",
            f"the job file has {size} bytes; at most {platform.limits.job_file_bytes} are read",
            "put data and programs into its workdir",
        )
    parsed = parse_job(text, name=name)
    if isinstance(parsed, Problem):
        raise Refused("invalid", parsed)
    return parsed


def submit(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    path: str,
    text: str,
    *,
    name: str = "job",
    upload_id: str | None = None,
) -> dict[str, Any]:
    """Submit a job file as it is: on the count it names, else on one device.

    Raises `Refused` invalid, not_found, forbidden, or insufficient (the first slice cannot be set
    aside); then nothing has changed.
    """
    account = account_for(tx, actor, path, Need.SUBMIT)
    parsed = understood(platform, text, name)
    check_upload(tx, actor, upload_id)
    devices = tx.all(DeviceRow, "devices")
    request = matching.resolve(parsed.spec.resources, devices, None)
    most = matching.largest_gang(request, devices)
    if request.count > most:
        raise too_many(request, most)
    permille = prices.permille(prices.latest(tx), parsed.spec.goal.tier)
    order = Order(
        parsed.spec, request, upload_id, wall_ms=wall_ms(parsed.spec), tier_permille=permille
    )
    job_id = insert_job(platform, tx, actor, account, order, devices)
    return {"job_id": job_id, "state": "queued", "warnings": [w.text for w in parsed.warnings]}


def too_many(request: Request, most: int) -> Refused:
    """The pool cannot ever run a gang of this size."""
    return refuse(
        "invalid",
        "too_many_devices",
        f"the job asks for {request.count} devices; one node of the pool has {most}",
        f"ask for {most} or fewer, or for none: the system chooses",
    )


def wall_ms(spec: JobSpec) -> int | None:
    """The job's wall time in milliseconds, None without one."""
    return None if spec.wall_time_s is None else round(spec.wall_time_s * 1_000)


def check_upload(tx: Tx, actor: Actor, upload_id: str | None) -> None:
    """Raise `Refused` not_found unless the upload is the actor's organisation's (or None)."""
    if upload_id is None:
        return
    upload = tx.one(Upload, "upload_by_id", id=upload_id)
    foreign = upload is not None and not actor.operator and upload.org_id != actor.org_id
    if upload is None or foreign or upload.removed_at is not None:
        raise refuse("not_found", "no_upload", f"there is no upload {upload_id!r}", "upload again")


def with_files(tx: Tx, actor: Actor, job_id: str) -> Job:
    """The job, when `actor` may read it and its files are still kept. Raises `Refused`."""
    job = job_for(tx, actor, job_id, Need.READ)
    if job.files_removed_at is not None:
        when = job.files_removed_at.isoformat(timespec="seconds")
        raise refuse(
            "not_found",
            "files_removed",
            f"the log and the outputs of {job_id} were removed {when}, as those of every job that "
            "ended long ago",
            f"what it used is kept: dusuan receipt {job_id}",
        )
    return job


def submit_plan(
    platform: Platform, tx: Tx, actor: Actor, quote_id: str, plan_id: str | None
) -> dict[str, Any]:
    """Submit a quoted job on the plan named, or on the one its goal picked."""
    quote = quote_for(tx, actor, quote_id, Need.SUBMIT)
    account = tx.one(Account, "account_by_id", id=quote.account_id)
    if account is None:  # the foreign key forbids it
        raise RuntimeError(f"{quote_id} belongs to no account")
    plan = _plan_of(platform, quote, plan_id)
    spec = _on_tier(from_document(quote.spec), plan["tier"])
    devices = tx.all(DeviceRow, "devices")
    request = Request(plan["count"], plan["kind"], plan["device"])
    order = Order(
        spec,
        request,
        quote.upload_id,
        quote.id,
        plan["plan_id"],
        wall_ms=wall_ms(spec),
        terms=bindings.terms_of(quote, plan, spec.name),
        tier_permille=plan.get("tier_permille", 1_000),
        expected_ms=round((plan["finish_p50_s"] or 0) * 1_000) or None,
    )
    job_id = insert_job(platform, tx, actor, account, order, devices)
    return {"job_id": job_id, "state": "queued", "plan_id": plan["plan_id"], "warnings": []}


def _plan_of(platform: Platform, quote: Quote, plan_id: str | None) -> Mapping[str, Any]:
    """The plan of a quote that is named, or that its goal picked. Raises `Refused`."""
    if quote.state != "ready" or quote.menu is None:
        text = f"the quote {quote.id} is {quote.state}"
        raise refuse("conflict", "quote_not_ready", text, "quote again")
    if quote.expires_at <= platform.now():
        text = f"the quote {quote.id} has expired"
        raise refuse("conflict", "quote_expired", text, "quote again")
    chosen = plan_id or quote.menu["chosen"]
    plan: Mapping[str, Any] | None = next(
        (p for p in quote.menu["plans"] if p["plan_id"] == chosen), None
    )
    if plan is None:
        raise _no_plan(quote, chosen)
    if not plan.get("in_pool", True):
        text = f"the pool has no {plan['device']}: this plan shows what one could do"
        raise refuse("conflict", "not_in_pool", text, "choose a plan on devices of the pool")
    return plan


def _on_tier(spec: JobSpec, tier: str) -> JobSpec:
    return replace(spec, goal=replace(spec.goal, tier=tier))


def _no_plan(quote: Quote, chosen: str | None) -> Refused:
    menu = quote.menu or {}
    if chosen is None:
        missed = menu.get("missed") or {}
        return refuse(
            "conflict",
            missed.get("code", "no_plan_chosen"),
            missed.get("text", "no plan of the quote meets the goal"),
            "name a plan, or change the goal",
        )
    names = ", ".join(p["plan_id"] for p in menu.get("plans", []))
    return refuse("not_found", "no_plan", f"the quote has no plan {chosen!r}", f"it has: {names}")


def quote_for(tx: Tx, actor: Actor, quote_id: str, need: Need) -> Quote:
    """The quote, when `actor` may do what it `need`s on its account."""
    missing = refuse("not_found", "no_quote", f"there is no quote {quote_id!r}", "dusuan quote JOB")
    quote = tx.one(Quote, "quote_by_id", id=quote_id)
    if quote is None:
        raise missing
    account = tx.one(Account, "account_by_id", id=quote.account_id)
    if account is None:  # the foreign key forbids it
        raise missing
    try:
        account_for(tx, actor, account.path, need)
    except Refused as refused:
        raise (missing if refused.kind == "not_found" else refused) from None
    return quote


def insert_job(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    account: Account,
    order: Order,
    devices: list[DeviceRow],
) -> str:
    """Write a job and its first hold in the caller's transaction, and wake the service.

    While the pool has no rating the hold cannot be computed; the job then queues without one,
    and the scheduling round sets it aside as soon as there is a rating.
    """
    job_id, now = platform.new_id("job"), platform.now()
    wallet = tx.all(LedgerAccount, "balances_read", ids=[account.wallet_id])[0]
    tx.run(
        "job_insert",
        id=job_id,
        account_id=account.id,
        member_id=actor.member_id,
        name=order.spec.name,
        spec=json(to_document(order.spec)),
        upload_id=order.upload_id,
        quote_id=order.quote_id,
        plan_id=order.plan_id,
        probe=order.probe,
        kind=order.request.kind,
        model=order.request.model,
        count=order.request.count,
        priority=1_000_000 if order.probe else order.spec.priority,
        grace_ms=order.grace_ms,
        wall_ms=order.wall_ms,
        requeues=order.spec.checkpoint is not None and not order.probe,
        balance=ledger.as_balance(wallet).posted,
        now=now,
        tier_permille=order.tier_permille,
        tier="reserved" if order.probe else order.spec.goal.tier,  # a probe goes first, and yields
        expected_ms=order.expected_ms or _similar_ms(tx, account, order.request),
    )
    _hold(platform, tx, account, job_id, order, devices)
    tx.wake()
    return job_id


def _similar_ms(tx: Tx, account: Account, request: Request) -> int | None:
    """What a job is expected to take, from the last two of its account that asked for the same."""
    found = tx.one(
        Id, "job_similar_ms", account_id=account.id, model=request.model, count=request.count
    )
    return None if found is None else max(found.id, 1)


def _hold(
    platform: Platform,
    tx: Tx,
    account: Account,
    job_id: str,
    order: Order,
    devices: list[DeviceRow],
) -> None:
    """Bind the job to its quote, and set its first slice aside if there is a rating already."""
    rating = matching.rating_of(order.request.model, devices)
    rate = units.tier_rate(rating[0] if rating else 0, order.tier_permille) * order.request.count
    wanted = first_slice(rate, order.grace_ms, platform.slices)
    if order.terms is not None:
        bindings.accept(platform, tx, job_id, order.terms, wanted)
        wanted = min(wanted, order.terms.cap_gflop)
    if rating is None:
        return
    shortage = set_aside(platform, tx, account, job_id, wanted)
    if shortage is not None:
        raise _insufficient(tx, account, shortage)


def set_aside(
    platform: Platform, tx: Tx, account: Account, job_id: str, wanted: int
) -> Shortage | None:
    """Open the hold for a job's first slice, `wanted` GFLOP, after what has expired is out of the
    wallet."""
    now = platform.now()
    locked = Balances(ledger.lock_balances(tx, [account.wallet_id, *account.limit_ids]))
    wallets.lapse_wallet(platform, tx, account.wallet_id, locked)
    held = Balances({a: locked[a] for a in (account.wallet_id, *account.limit_ids)})
    shortage = open_hold(account.wallet_id, account.limit_ids, wanted, held)
    if shortage is not None:
        return shortage
    ledger.apply_deltas(tx, held.deltas())
    tx.run(
        "hold_insert",
        job_id=job_id,
        wallet_id=account.wallet_id,
        limit_ids=account.limit_ids,
        reserved_gflop=wanted,
        now=now,
    )
    return None


def shortage_wait(path: str, account: Account, shortage: Shortage) -> Wait:
    """Why a hold could not be opened, as the reason a job waits.

    `path` is that of the ledger account which lacks.
    """
    data = {
        "needs_gflop": shortage.wanted_gflop,
        "available_gflop": shortage.available_gflop,
        "ledger_account": path,
    }
    needs = units.degrees_text(shortage.wanted_gflop)
    has = units.degrees_text(shortage.available_gflop)
    if shortage.account == account.wallet_id:
        owner = path.removesuffix(":wallet")
        text = f"{owner} has {has} degrees left to set aside; the first slice needs {needs}"
        remedy = f"top up: dusuan package buy NAME --account {owner}"
        return Wait(WaitCode.BALANCE, text, remedy, data)
    owner = path.removesuffix(":spend")
    text = f"the budget of {owner} has {has} degrees left; the first slice needs {needs}"
    remedy = f"raise it: dusuan account budget {owner} --degrees N"
    return Wait(WaitCode.BUDGET, text, remedy, data)


def _insufficient(tx: Tx, account: Account, shortage: Shortage) -> Refused:
    row = tx.all(LedgerAccount, "balances_read", ids=[shortage.account])[0]
    wait = shortage_wait(row.path, account, shortage)
    return refuse("insufficient", f"{wait.code.value}_too_small", wait.text, wait.remedy)


def void(tx: Tx, platform: Platform, job_id: str) -> None:
    """Release a queued job's hold, if it has one."""
    hold = tx.one(Hold, "holds_open_of", jobs=[job_id])
    if hold is None:
        return
    balances = Balances(ledger.lock_balances(tx, [hold.wallet_id, *hold.limit_ids]))
    void_hold(hold.wallet_id, hold.limit_ids, hold.reserved_gflop, balances)
    ledger.apply_deltas(tx, balances.deltas())
    tx.run("holds_resolve", jobs=[job_id], seqs=[hold.seq], settled=[0], now=platform.now())


def cancel(platform: Platform, tx: Tx, actor: Actor, job_id: str) -> dict[str, Any]:
    """Cancel a job: at once while it queues, by checkpoint signal, grace and kill when it runs.

    A job that has ended stays as it is.
    """
    job_for(tx, actor, job_id, Need.SUBMIT)
    withdraw(platform, tx, job_id, actor.member_id or "operator")
    tx.wake()
    return tx.look(show(actor, job_id))


def withdraw(platform: Platform, tx: Tx, job_id: str, by: str) -> None:
    """Note that `by` wants the job stopped; one that queues ends here, its hold released."""
    job = tx.one(Job, "jobs_lock", ids=[job_id])
    if job is None:
        raise no_job(job_id)
    tx.run("job_cancel", id=job_id, by=by)
    if job.state == "queued":
        void(tx, platform, job_id)
        finish(tx, {job_id: ("cancelled", "cancelled")}, platform.now())
    elif job.state in ("starting", "running"):
        tx.run("jobs_state", ids=[job_id], state="stopping")  # the service tells the engine


def finish(tx: Tx, ends: Mapping[str, tuple[str, str]], now: datetime) -> None:
    """Close jobs: job id -> (final state, stop reason)."""
    states, reasons = zip(*ends.values(), strict=True)
    tx.run("jobs_finish", ids=list(ends), states=list(states), reasons=list(reasons), now=now)


def show(actor: Actor, job_id: str) -> Look[dict[str, Any]]:
    """One job with its attempts, and why it waits if it does."""
    return _look(actor, job_id, lambda rows: _views(rows)[0])


def listing(
    actor: Actor, state: str | None, before: int | None, limit: int
) -> Look[dict[str, Any]]:
    """Jobs the actor may read, newest first, with a cursor to the next page."""

    def answer(rows: list[JobShown]) -> dict[str, Any]:
        positions = list(dict.fromkeys(row.position for row in rows))
        more = positions[limit - 1] if len(positions) > limit else None
        return {"jobs": _views(rows)[:limit], "next": more}

    params = {"org_id": actor.org_id, "member_id": actor.member_id}
    page = {"state": state, "before": before or 2**62, "limit": limit + 1}
    return Look("jobs_shown", params | page, JobShown, answer)


def why(actor: Actor, job_id: str) -> Look[dict[str, Any]]:
    """Why a job is where it is, in words."""
    return _look(actor, job_id, lambda rows: _why(rows[0]))


def _look(
    actor: Actor, job_id: str, view: Callable[[list[JobShown]], dict[str, Any]]
) -> Look[dict[str, Any]]:
    """A job that `actor` may read, as `view` shows it."""

    def answer(rows: list[JobShown]) -> dict[str, Any]:
        if not rows:
            raise no_job(job_id)
        check_job(actor, rows[0], Need.READ)
        return view(rows)

    params = {"id": job_id, "member_id": actor.member_id}
    return Look("job_shown", params, JobShown, answer)


def _why(job: JobShown) -> dict[str, Any]:
    if job.waiting is not None:
        return {"job_id": job.id, "state": job.state, **job.waiting}
    texts = {
        "queued": "it has just been submitted; the next scheduling round decides",
        "starting": "it has been given its devices and is being started",
        "running": "it runs",
        "stopping": "it was told to stop and is inside its grace",
    }
    text = texts.get(job.state, f"it has ended: {job.stop_reason}")
    return {"job_id": job.id, "state": job.state, "code": job.state, "text": text, "remedy": ""}


def _views(rows: Iterable[JobShown]) -> list[dict[str, Any]]:
    """Jobs as the API shows them, in the order of their first rows."""
    views: dict[str, dict[str, Any]] = {}
    for row in rows:
        view = views.get(row.id)
        if view is None:
            view = views[row.id] = _job_view(row)
        if row.attempt_id is not None:
            view["attempts"].append(_attempt_view(row))
    return list(views.values())


def _job_view(job: JobShown) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "name": job.name,
        "account": job.account_path,
        "state": job.state,
        "stop_reason": job.stop_reason,
        "device": job.model,
        "count": job.devices,
        "priority": job.priority,
        "quote_id": job.quote_id,
        "plan_id": job.plan_id,
        "waiting": job.waiting if job.state == "queued" else None,
        "submitted_at": job.submitted_at.isoformat(),
        "finished_at": None if job.finished_at is None else job.finished_at.isoformat(),
        "attempts": [],
    }


def _attempt_view(row: JobShown) -> dict[str, Any]:
    return {
        "attempt_id": row.attempt_id,
        "number": row.number,
        "state": row.attempt_state,
        "held_ms": row.held_ms,
        "end_reason": row.end_reason,
        "exit_code": row.exit_code,
        "exit_signal": row.exit_signal,
        "text": row.end_text or "",
        "isolation": row.isolation,
        "started_at": None if row.started_at is None else row.started_at.isoformat(),
        "ended_at": None if row.ended_at is None else row.ended_at.isoformat(),
    }


def account_of(tx: Tx, job: Job) -> Account:
    """The account a job is charged to."""
    account = tx.one(Account, "account_by_id", id=job.account_id)
    if account is None:  # the foreign key forbids it
        raise RuntimeError(f"{job.id} belongs to no account")
    return account
