"""Endpoints about the catalogue of accelerators as this centre sees it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from dusuan.api import models
from dusuan.api.call import Answer, Calling, IdempotencyKey
from dusuan.app import overrides

router = APIRouter(tags=["catalog"])


@router.get(
    "/catalog/overrides", response_model=models.OverridesView, response_model_exclude_unset=True
)
def show_overrides(call: Calling, device: Annotated[models.Text | None, Query()] = None) -> Answer:
    """Figures that the operator has set for accelerators of the catalogue, the oldest first."""
    return call.read(lambda tx: overrides.history(tx, call.actor, device))


@router.post(
    "/catalog/overrides",
    status_code=201,
    response_model=models.AcceleratorView,
    response_model_exclude_unset=True,
)
def set_override(call: Calling, body: models.NewOverride, key: IdempotencyKey = None) -> Answer:
    """Set a figure of a device, or take an override back (`value` null). Operators only.

    With `make`, a device that the catalogue does not have is added to it.
    """
    said = (body.device, body.field, body.value, body.source, body.make)
    return call.once(key, body, lambda tx: overrides.change(call.platform, tx, call.actor, *said))
