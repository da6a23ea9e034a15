"""Getting a quote: ask, wait while the job is probed, and read what came out."""

from __future__ import annotations

import time
from typing import Any

from dusuan.cli.failures import INTERRUPTED, Failure
from dusuan.cli.jobfile import Prepared
from dusuan.cli.session import Session

POLL_S = 0.3


def quoted(
    session: Session, job: Prepared, account: str, *, what_if: bool = False
) -> dict[str, Any]:
    """The finished quote of a job. Raises `Failure` when there is no plan, with the reason."""
    body: dict[str, Any] = job.request(account) | ({"what_if": True} if what_if else {})
    quote = session.client.post("/v1/quotes", body, job.where)
    if quote["state"] == "probing":
        with session.busy("measuring the job: short probes of it run, which the account pays"):
            quote = _wait_patiently(session, quote["quote_id"])
    problem = quote["problem"]
    if problem is not None:
        raise Failure(problem["code"], problem["text"], problem["remedy"], where=job.where)
    return quote


def _wait_patiently(session: Session, quote_id: str) -> dict[str, Any]:
    try:
        return _wait(session, quote_id)
    except KeyboardInterrupt:
        text = f"not waiting for the quote {quote_id} any longer; its probes end by themselves"
        raise Failure("interrupted", text, "quote again later", INTERRUPTED) from None


def _wait(session: Session, quote_id: str) -> dict[str, Any]:
    while True:
        quote = session.client.get(f"/v1/quotes/{quote_id}")
        if quote["state"] != "probing":
            return quote
        time.sleep(POLL_S)


def chosen(quote: dict[str, Any], plan_id: str | None) -> str:
    """The plan to submit. Raises `Failure` when the goal picks none and none is named."""
    plan = plan_id or quote["chosen"]
    if plan is not None:
        return str(plan)
    missed = quote.get("missed") or {}
    raise Failure(
        missed.get("code", "no_plan"),
        missed.get("text", "no plan meets the goal"),
        f"{missed.get('remedy', 'change the goal')}; or name a plan with --plan",
    )
