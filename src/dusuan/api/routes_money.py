"""Endpoints about packages, payments, purchases and wallets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from dusuan.api import models
from dusuan.api.call import Answer, Calling, IdempotencyKey, looked
from dusuan.app import wallets

router = APIRouter(tags=["money"])
often = APIRouter(tags=["money"])  # what is asked most


@router.get("/packages", response_model=models.PackageList, response_model_exclude_unset=True)
def list_packages(call: Calling) -> Answer:
    """What is on sale."""
    return {"packages": call.read(wallets.list_packages)}


@router.post(
    "/packages",
    status_code=201,
    response_model=models.PackageView,
    response_model_exclude_unset=True,
)
def create_package(call: Calling, body: models.NewPackage, key: IdempotencyKey = None) -> Answer:
    """Put a package on sale; one of the same name is replaced. Operators only."""
    return call.once(
        key,
        body,
        lambda tx: wallets.create_package(
            call.platform,
            tx,
            call.actor,
            body.name,
            body.gflop,
            body.price_fen,
            body.valid_days,
            body.priority,
        ),
    )


@router.post(
    "/purchases",
    status_code=201,
    response_model=models.WalletView,
    response_model_exclude_unset=True,
)
def buy(call: Calling, body: models.NewPurchase, key: IdempotencyKey = None) -> Answer:
    """Buy a package from the account's cash; answers the lot's id and the wallet after it."""
    return call.once(
        key,
        body,
        lambda tx: wallets.buy_package(call.platform, tx, call.actor, body.account, body.package),
    )


@router.post(
    "/payments",
    status_code=201,
    response_model=models.PaymentView,
    response_model_exclude_unset=True,
)
def pay(call: Calling, body: models.NewPayment, key: IdempotencyKey = None) -> Answer:
    """Record money received from a customer. Operators only."""
    return call.once(
        key,
        body,
        lambda tx: wallets.record_payment(
            call.platform, tx, call.actor, body.account, body.fen, body.reference
        ),
    )


@router.post(
    "/transfers",
    status_code=201,
    response_model=models.TransferView,
    response_model_exclude_unset=True,
)
def transfer(call: Calling, body: models.NewTransfer, key: IdempotencyKey = None) -> Answer:
    """Move degrees to another account of the organisation, with their price and validity."""
    return call.once(
        key,
        body,
        lambda tx: wallets.transfer_degrees(
            call.platform, tx, call.actor, body.account, body.to, body.gflop
        ),
    )


@often.get("/wallet", response_model=models.WalletView, response_model_exclude_unset=True)
async def wallet(request: Request, account: Annotated[models.Text, Query()]) -> Response:
    """What the wallet that an account pays from has."""
    return await looked(request, lambda actor: wallets.wallet(actor, account))
