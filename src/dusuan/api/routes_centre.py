"""Endpoints about the centre: its pool, its audit, and who is asking."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from dusuan.api import models
from dusuan.api.call import Answer, Calling
from dusuan.app import exporting, pool
from dusuan.app.access import operator_only
from dusuan.app.audit import audit

router = APIRouter(tags=["centre"])

Class = Literal["gemm", "bandwidth", "train_step", "prefill", "decode"]


@router.get("/whoami", response_model=models.Whoami, response_model_exclude_unset=True)
def whoami(call: Calling) -> Answer:
    """Who the key belongs to."""
    actor = call.actor
    return {
        "operator": actor.operator,
        "member_id": actor.member_id,
        "org_id": actor.org_id,
        "key_id": actor.key_id,
    }


@router.get("/pool", response_model=models.PoolView, response_model_exclude_unset=True)
def show_pool(call: Calling) -> Answer:
    """Every device with the rating at which it is metered, and the share of domestic makes."""
    shown = call.read(lambda tx: pool.show(tx, operator=call.actor.operator))
    return pool.with_domestic_share(shown)


@router.post("/pool/calibrate", response_model=models.PoolView, response_model_exclude_unset=True)
def calibrate(
    call: Calling, classes: Annotated[list[Class] | None, Query(alias="class")] = None
) -> Answer:
    """Measure what the devices are rated at, or what they sustain on classes of work; takes
    seconds. Operators only."""
    operator_only(call.actor)
    return call.hooks.calibrate(list(dict.fromkeys(classes or ())))


@router.get("/audit", response_model=models.AuditView, response_model_exclude_unset=True)
def run_audit(call: Calling) -> dict[str, Any]:
    """Check every invariant of the ledger. Operators only."""
    operator_only(call.actor)
    return call.read(audit)


@router.get(
    "/rounds",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {}}}},
)
def record_of_rounds(
    call: Calling,
    since: Annotated[AwareDatetime | None, Query(description="all of it by default")] = None,
    until: Annotated[AwareDatetime | None, Query()] = None,
) -> Response:
    """The log of scheduling rounds as JSON lines: a header, what each round saw and decided, and an
    end that counts them. It begins where the whole is known, at most an hour before `since`.
    Operators only."""
    operator_only(call.actor)
    lines = exporting.rounds(call.platform, since, until)
    return StreamingResponse(lines, media_type="application/jsonl")
