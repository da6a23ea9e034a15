"""Uploads: the archives of work directories that jobs run in."""

from __future__ import annotations

from typing import Any

from dusuan.app.access import Actor, visible_accounts
from dusuan.app.context import Platform, refuse
from dusuan.store.database import Tx


def check_may_upload(tx: Tx, actor: Actor) -> None:
    """Raise `Refused` forbidden unless `actor` is an operator or has a role somewhere."""
    if not actor.operator and not visible_accounts(tx, actor):
        raise refuse(
            "forbidden",
            "no_role",
            "you have no role on any account",
            "ask an owner of the organisation: dusuan member add",
        )


def record(
    platform: Platform, tx: Tx, actor: Actor, upload_id: str, sha256: str, size_bytes: int
) -> dict[str, Any]:
    """Write down an archive that lies complete in `platform.uploads` as `<upload_id>.tar.gz`."""
    check_may_upload(tx, actor)
    tx.run(
        "upload_insert",
        id=upload_id,
        org_id=actor.org_id,
        sha256=sha256,
        bytes=size_bytes,
        now=platform.now(),
    )
    return {"id": upload_id, "upload_id": upload_id, "sha256": sha256, "bytes": size_bytes}
