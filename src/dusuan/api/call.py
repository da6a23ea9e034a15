"""What every endpoint works with: who asks, and one transaction for one verb."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from dusuan.api.doorkeeper import Doorkeeper
from dusuan.api.hooks import Hooks
from dusuan.app.access import Actor, check_key
from dusuan.app.context import Platform
from dusuan.app.once import once
from dusuan.store.database import Look, Tx
from dusuan.store.reads import Reads

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
    door: Doorkeeper
    where: str  # method and path

    def read(self, verb: Callable[[Tx], Out]) -> Out:
        """Run a verb that changes nothing, on one moment of the database."""
        return self.platform.store.read(verb)

    def write(self, verb: Callable[[Tx], Out]) -> Out:
        """Run a verb in a transaction of its own, with a key that is good at that moment."""
        with self.platform.store.transaction() as tx:
            check_key(tx, self.actor, self.platform.now())
            return verb(tx)

    def once(
        self, key: str | None, body: BaseModel, verb: Callable[[Tx], dict[str, Any]]
    ) -> Answer:
        """Run a verb, unless `key` already was used for this request: then its answer again."""
        asked = f"{self.where}\n{body.model_dump_json()}"
        request_hash = hashlib.sha256(asked.encode()).hexdigest()
        now = self.platform.now()
        return self.write(lambda tx: once(tx, self.actor, key, request_hash, now, lambda: verb(tx)))


def answered(view: Answer) -> Response:
    """A verb's answer as JSON, as it is: what it documents is for the tests to see to."""
    return Response(to_json(view), media_type="application/json")


async def looked(request: Request, look: Callable[[Actor], Look[Any]]) -> Response:
    """What a look of the actor's answers, without a thread: for what is asked most."""
    reads: Reads = request.app.state.reads
    return answered(await reads.look(look(request.state.actor)))


async def calling(request: Request) -> Call:  # async, or it would cost a thread of its own
    """The call that a request is. What is asked most takes it by hand: injection costs more."""
    return Call(
        request.app.state.platform,
        request.app.state.hooks,
        request.state.actor,
        request.app.state.door,
        f"{request.method} {request.url.path}",
    )


Calling = Annotated[Call, Depends(calling)]
