"""What every endpoint works with: who asks, and one transaction for one verb."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from dusuan.api.hooks import Hooks
from dusuan.app.access import Actor
from dusuan.app.context import Platform
from dusuan.app.once import once
from dusuan.store.database import Tx

Answer = Mapping[str, Any]
Out = TypeVar("Out")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key with the same request is done once and answered alike.",
    ),
]


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the platform, the process behind it, and the actor."""

    platform: Platform
    hooks: Hooks
    actor: Actor
    where: str  # method and path

    def read(self, verb: Callable[[Tx], Out]) -> Out:
        """Run a verb that changes nothing, on one moment of the database."""
        with self.platform.store.snapshot() as tx:
            return verb(tx)

    def write(self, verb: Callable[[Tx], Out]) -> Out:
        """Run a verb in a transaction of its own."""
        with self.platform.store.transaction() as tx:
            return verb(tx)

    def once(
        self, key: str | None, body: BaseModel, verb: Callable[[Tx], dict[str, Any]]
    ) -> Answer:
        """Run a verb, unless `key` already was used for this request: then its answer again."""
        asked = f"{self.where}\n{body.model_dump_json()}"
        request_hash = hashlib.sha256(asked.encode()).hexdigest()
        with self.platform.store.transaction() as tx:
            return once(tx, self.actor, key, request_hash, self.platform.now(), lambda: verb(tx))


def _calling(request: Request) -> Call:
    return Call(
        request.app.state.platform,
        request.app.state.hooks,
        request.state.actor,
        f"{request.method} {request.url.path}",
    )


Calling = Annotated[Call, Depends(_calling)]
