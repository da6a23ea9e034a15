"""Endpoints about prices and about how well quotes were kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from dusuan.api import models
from dusuan.api.call import Answer, Calling, IdempotencyKey
from dusuan.app import bindings, prices

router = APIRouter(tags=["quotes"])


@router.get("/reports/quotes", response_model=models.QuoteReport, response_model_exclude_unset=True)
def quote_report(call: Calling, template: Annotated[models.Text | None, Query()] = None) -> Answer:
    """How well accepted quotes were kept, by template: the error and coverage of P50 and P90."""
    return call.read(lambda tx: bindings.report(tx, call.actor, template))


@router.get("/prices", response_model=models.PriceView, response_model_exclude_unset=True)
def show_prices(call: Calling) -> Answer:
    """What each tier costs, in thousandths of the price of a degree."""
    return call.read(prices.show)


@router.post(
    "/prices", status_code=201, response_model=models.PriceView, response_model_exclude_unset=True
)
def change_prices(call: Calling, body: models.NewPrices, key: IdempotencyKey = None) -> Answer:
    """Put a new price version in force. Quotes made before keep theirs. Operators only."""
    named = {tier: value for tier, value in body.model_dump().items() if value is not None}
    return call.once(key, body, lambda tx: prices.change(call.platform, tx, call.actor, named))
