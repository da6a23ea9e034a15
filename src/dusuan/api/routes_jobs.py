"""Endpoints about quotes and jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Discriminator, Tag

from dusuan.api import models
from dusuan.api.call import Answer, Calling, IdempotencyKey, answered, calling, looked
from dusuan.app import jobs, quotes, receipts, remedies
from dusuan.core.workload.description import is_described
from dusuan.core.workload.jobspec import Goal
from dusuan.store.database import Tx

router = APIRouter(tags=["jobs"])
often = APIRouter(tags=["jobs"])  # what is asked most

JobId = Annotated[models.Text, Path()]
State = Literal["queued", "starting", "running", "stopping", "succeeded", "failed", "cancelled"]


def _kind(body: Any) -> str:
    named = body.keys() if isinstance(body, dict) else getattr(body, "model_fields_set", ())
    return "quote" if "quote_id" in named else "file"


NewJob = Annotated[
    Annotated[models.JobFromFile, Tag("file")] | Annotated[models.JobFromQuote, Tag("quote")],
    Discriminator(_kind),
]


@often.get("/jobs/{job_id}", response_model=models.JobView, response_model_exclude_unset=True)
async def show_job(request: Request, job_id: JobId) -> Response:
    """A job with its attempts, and why it waits if it does."""
    return await looked(request, lambda actor: jobs.show(actor, job_id))


@often.get("/jobs/{job_id}/why", response_model=models.WhyView, response_model_exclude_unset=True)
async def why(
    request: Request, job_id: JobId, tried: Annotated[bool, Query(alias="remedies")] = False
) -> Response:
    """Why a job is where it is. With `remedies`: what would start it, tried on a copy."""
    if not tried:
        return await looked(request, lambda actor: jobs.why(actor, job_id))
    call = await calling(request)

    def verb(tx: Tx) -> Answer:
        return remedies.why(call.platform, tx, call.actor, job_id)

    return answered(await to_thread.run_sync(call.read, verb))


@often.get("/jobs", response_model=models.JobList, response_model_exclude_unset=True)
async def list_jobs(
    request: Request,
    state: State | None = None,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Your jobs, newest first. `next` goes into `before` for the next page; null: the last."""
    return await looked(request, lambda actor: jobs.listing(actor, state, before, limit))


@router.post(
    "/quotes", status_code=201, response_model=models.QuoteView, response_model_exclude_unset=True
)
def create_quote(call: Calling, body: models.NewQuote, key: IdempotencyKey = None) -> Answer:
    """Quote a job. One that is described is sized at once; `what_if` adds devices that the pool
    could have. While its state is `probing`, ask again: short probes of the job itself run."""
    return call.once(
        key,
        body,
        lambda tx: quotes.create(
            call.platform,
            tx,
            call.actor,
            body.account,
            body.job,
            name=body.name,
            upload_id=body.upload_id,
            what_if=body.what_if,
        ),
    )


@router.get(
    "/quotes/{quote_id}", response_model=models.QuoteView, response_model_exclude_unset=True
)
def show_quote(
    call: Calling,
    quote_id: Annotated[models.Text, Path()],
    deadline_s: Annotated[float | None, Query(gt=0, le=1e9, allow_inf_nan=False)] = None,
    budget_fen: Annotated[int | None, Query(ge=0, le=models.INT64_MAX)] = None,
) -> Answer:
    """A quote with what its probes cost. A deadline or budget asks what that goal would pick."""
    named = deadline_s is not None or budget_fen is not None
    goal = Goal(deadline_s, budget_fen) if named else None

    def verb(tx: Tx) -> Answer:
        view = quotes.show(tx, call.actor, quote_id, goal)
        return {**view, "probes": receipts.probe_bill(tx, quote_id)}

    return call.read(verb)


@router.post("/jobs/check", response_model=models.CheckedView, response_model_exclude_unset=True)
def check_job_file(call: Calling, body: models.JobFile) -> Answer:
    """Read a job file without submitting it: what it names, and what a client has to upload."""
    parsed = jobs.understood(call.platform, body.job, body.name)
    return {
        "name": parsed.spec.name,
        "workdir": parsed.spec.workdir,
        "steps": parsed.spec.workload.steps,
        "sized": quotes.tells_progress(parsed.spec) or is_described(parsed.spec.workload),
        "checkpoint": parsed.spec.checkpoint is not None,
        "warnings": [
            w.text if w.line is None else f"line {w.line}: {w.text}" for w in parsed.warnings
        ],
        "upload_bytes_max": call.platform.limits.upload_bytes,
    }


@router.post(
    "/jobs", status_code=201, response_model=models.SubmittedView, response_model_exclude_unset=True
)
def submit(call: Calling, body: NewJob, key: IdempotencyKey = None) -> Answer:
    """Submit a job: a job file as it is, or a plan of a quote (its goal's own without plan_id)."""

    def verb(tx: Tx) -> dict[str, Any]:
        if isinstance(body, models.JobFromQuote):
            return jobs.submit_plan(call.platform, tx, call.actor, body.quote_id, body.plan_id)
        return jobs.submit(
            call.platform,
            tx,
            call.actor,
            body.account,
            body.job,
            name=body.name,
            upload_id=body.upload_id,
        )

    return call.once(key, body, verb)


@router.post(
    "/jobs/{job_id}/cancel", response_model=models.JobView, response_model_exclude_unset=True
)
def cancel(call: Calling, job_id: JobId) -> Answer:
    """Cancel a job; one that has ended stays as it is."""
    return call.write(lambda tx: jobs.cancel(call.platform, tx, call.actor, job_id))


@router.get(
    "/jobs/{job_id}/receipt", response_model=models.ReceiptView, response_model_exclude_unset=True
)
def receipt(call: Calling, job_id: JobId) -> Answer:
    """What an ended job held, delivered and cost."""
    return call.read(lambda tx: receipts.receipt(tx, call.actor, job_id))
