"""The same key, the same answer: a request with an Idempotency-Key is done once.

The key's row is written in the transaction that does the work, so the answer and the work are
committed together or not at all; a second request with the key waits for the first to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from dusuan.app.access import Actor
from dusuan.app.context import refuse
from dusuan.store.database import Tx, json
from dusuan.store.rows import Replay

Answer = dict[str, Any]


def once(
    tx: Tx,
    actor: Actor,
    key: str | None,
    request_hash: str,
    now: datetime,
    work: Callable[[], Answer],
) -> Mapping[str, Any]:
    """The answer of `work`, or the one remembered for `key`.

    Raises `Refused` key_reused when `key` was used for another request.
    """
    if key is None:
        return work()
    name = {"actor": actor.member_id or "operator", "key": key}
    if tx.run("replay_claim", **name, request_hash=request_hash, now=now):
        answer = work()
        tx.run("replay_store", **name, response=json(answer))
        return answer
    replay = tx.one(Replay, "replay_find", **name)
    if replay is None or replay.request_hash != request_hash or replay.response is None:
        raise refuse(
            "key_reused",
            "idempotency_key_reused",
            f"the Idempotency-Key {key!r} was used before with another request",
            "use a new key for a new request",
        )
    return replay.response
