"""Accepted quotes: what binds, when the described work is done, and how well quotes were kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dusuan.app.access import Actor, visible_accounts
from dusuan.app.context import Platform
from dusuan.core import units
from dusuan.core.metering.journal import Record
from dusuan.core.planning.promises import Kept, reliability
from dusuan.engines.base import Observation
from dusuan.store.database import Tx
from dusuan.store.rows import Attempt, Binding, Job, Quote


@dataclass(frozen=True, slots=True)
class Terms:
    """What an accepted plan promises: kept with the job, whatever changes later.

    `work`: the described total in units of the job's progress, None: the total it reports itself.
    """

    quote_id: str
    plan_id: str
    template: str
    basis: str
    work: float | None
    quoted_gflop: int
    quoted_p50_s: float
    quoted_p90_s: float
    cap_gflop: int
    cap_fen: int


def terms_of(quote: Quote, plan: Mapping[str, Any], template: str) -> Terms | None:
    """The terms of a plan; None when it promises nothing (its work is not described)."""
    if not plan.get("binding"):
        return None
    return Terms(
        quote_id=quote.id,
        plan_id=plan["plan_id"],
        template=template,
        basis=plan["basis"],
        work=plan["work"],
        quoted_gflop=plan["billed_gflop_p50"],
        quoted_p50_s=plan["finish_p50_s"],
        quoted_p90_s=plan["finish_p90_s"],
        cap_gflop=plan["billed_gflop_max"],
        cap_fen=plan["price_fen_max"],
    )


def accept(platform: Platform, tx: Tx, job_id: str, terms: Terms, grace_gflop: int) -> None:
    """Bind a job to the terms of its quote. `grace_gflop`: what it needs to end in good order."""
    bears = terms.cap_gflop * platform.limits.quote_bears_permille // 1_000 + grace_gflop
    tx.run("binding_insert", job_id=job_id, bears_gflop=bears, now=platform.now(), **asdict(terms))


def of_jobs(tx: Tx, job_ids: Sequence[str]) -> dict[str, Binding]:
    """The accepted quotes among `job_ids`."""
    return {b.job_id: b for b in tx.all(Binding, "bindings_of", jobs=list(job_ids))}


def owed_gflop(binding: Binding | None) -> int | None:
    """What a job may still be charged; None: whatever it uses."""
    if binding is None or binding.done_attempt is not None:
        return None
    return 0 if binding.capped else binding.cap_gflop - binding.charged_gflop


def first_hold(wanted_gflop: int, binding: Binding | None) -> int:
    """What is set aside before a job starts: its first slice, as far as it can be charged."""
    owed = owed_gflop(binding)
    return wanted_gflop if owed is None else min(wanted_gflop, owed)


def pledged_gflop(binding: Binding | None, reserved_gflop: int) -> int:
    """What the centre stands for behind a job's hold, when that reaches the cap of its quote."""
    owed = owed_gflop(binding)
    if binding is None or owed is None or reserved_gflop < owed:
        return 0
    return max(binding.bears_gflop - binding.borne_gflop, 0)


# --- the end of the described work ------------------------------------------------------------


def note_done(tx: Tx, attempts: Sequence[Attempt], news: Mapping[str, Observation]) -> None:
    """Record where attempts reported more than their quotes described."""
    told = [a for a in attempts if any(r.progress for r in news[a.id].records)]
    if not told:
        return
    bound = of_jobs(tx, [a.job_id for a in told])
    for attempt in told:
        binding = bound.get(attempt.job_id)
        if binding is None or binding.done_attempt is not None:
            continue
        done_ms = _done_ms(attempt, news[attempt.id].records, binding.work)
        if done_ms is not None:
            tx.run("binding_done", job_id=attempt.job_id, attempt=attempt.id, held_ms=done_ms)


def _done_ms(attempt: Attempt, records: Sequence[Record], work: float | None) -> int | None:
    """The register when the described work was done, on a straight line between two reports."""
    before_ms, before = attempt.held_ms, float((attempt.meter.get("progress") or [0.0])[0])
    for record in records:
        if record.progress is None:
            continue
        done, total = record.progress
        end = total if work is None else work
        if done > end:
            share = (end - before) / (done - before) if before < end else 0.0
            return before_ms + round(max(record.held_ms - before_ms, 0) * share)
        before_ms, before = record.held_ms, done
    return None


def spare(tx: Tx, attempt: Attempt) -> None:
    """What a lost attempt used is the centre's, on top of all else that it bears."""
    rate = attempt.billed_gflops or attempt.rating_gflops
    used = units.held_gflop(rate, attempt.held_ms)
    tx.run("binding_spared", job_id=attempt.job_id, gflop=used)


# --- telling ----------------------------------------------------------------------------------


def view(tx: Tx, job: Job, attempts: Sequence[Attempt]) -> dict[str, Any] | None:
    """Quoted, used, charged, and the centre's share, for the receipt; None without a quote."""
    binding = of_jobs(tx, [job.id]).get(job.id)
    if binding is None:
        return None
    charged = binding.charged_gflop + binding.beyond_gflop
    return {
        "quote_id": binding.quote_id,
        "plan_id": binding.plan_id,
        "basis": binding.basis,
        "quoted_gflop": binding.quoted_gflop,
        "quoted_degrees": units.degrees_text(binding.quoted_gflop),
        "quoted_p50_s": binding.quoted_p50_s,
        "quoted_p90_s": binding.quoted_p90_s,
        "cap_gflop": binding.cap_gflop,
        "cap_fen": binding.cap_fen,
        "used_gflop": charged + binding.borne_gflop,
        "charged_gflop": binding.charged_gflop,
        "charged_fen": binding.charged_fen,
        "centre_gflop": binding.borne_gflop,
        "beyond_gflop": binding.beyond_gflop,
        "beyond_fen": binding.beyond_fen,
        "took_s": round(sum(a.held_ms / a.devices for a in attempts) / 1_000, 3),
    }


def report(tx: Tx, actor: Actor, template: str | None) -> dict[str, Any]:
    """How well quotes were kept, by template: error, coverage of P50 and P90, the centre's share.

    An operator sees every organisation's, anyone else what their accounts accepted.
    """
    accounts = None if actor.operator else [a.id for a in visible_accounts(tx, actor)]
    rows = tx.dicts("quotes_kept", accounts=accounts, template=template)
    groups: dict[tuple[str, str], list[Kept]] = defaultdict(list)
    for row in rows:
        groups[row["org"], row["template"]].append(_kept(row))
    return {
        "templates": [
            {"organisation": org, "template": name, **asdict(reliability(kept))}
            for (org, name), kept in sorted(groups.items())
        ],
        "all": asdict(reliability([_kept(row) for row in rows])) if rows else None,
    }


def _kept(row: Mapping[str, Any]) -> Kept:
    return Kept(
        finished_at=row["finished_at"].isoformat(),
        quoted_p50_s=row["quoted_p50_s"],
        quoted_p90_s=row["quoted_p90_s"],
        took_s=row["took_s"],
        cap_gflop=row["cap_gflop"],
        charged_gflop=row["charged_gflop"],
        borne_gflop=row["borne_gflop"],
    )
