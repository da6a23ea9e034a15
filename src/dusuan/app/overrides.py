"""The catalogue as this centre sees it: the shipped figures, and its operator's own over them."""

from __future__ import annotations

from typing import Any

from dusuan.app.access import Actor, operator_only
from dusuan.app.context import Platform, Refused, refuse
from dusuan.core.catalog import overrides, views
from dusuan.core.catalog.accelerators import Catalogue, Override
from dusuan.core.workload.jobspec import Problem
from dusuan.facts import catalogue
from dusuan.store.database import Tx
from dusuan.store.rows import CatalogOverride


def effective(tx: Tx) -> Catalogue:
    """The shipped catalogue with the operator's figures in place; quotes are made from it."""
    found = _history(tx, None)
    return catalogue().with_overrides(found) if found else catalogue()


def history(tx: Tx, actor: Actor, device: str | None = None) -> dict[str, Any]:
    """Every override of a device, or of all, the oldest first. Who set it, operators see.

    Raises `Refused` not_found or invalid for a name that means no device, or several.
    """
    name = None if device is None else _device(tx, device)
    shown = [views.override(each) for each in _history(tx, name)]
    return {"overrides": [s if actor.operator else {**s, "by": "the operator"} for s in shown]}


def change(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    device: str,
    field: str,
    value: float | None,
    source: str,
    make: str | None = None,
) -> dict[str, Any]:
    """Set a figure of a device; None takes an override back. Operators only.

    With a `make`, a device that the catalogue does not have is added to it.

    Answers the device as it is now. Quotes that were made before keep what they were made with.
    """
    operator_only(actor)
    found = overrides.checked(effective(tx), device, field, value, source, make)
    if isinstance(found, Problem):
        raise _refused(found)
    tx.run(
        "catalog_override_insert",
        device=found[0].name,
        field=found[1],
        value=value,
        source=source.strip(),
        set_by=actor.key_id,
        make=found[0].make if make else None,
        now=platform.now(),
    )
    now = effective(tx).find(found[0].name)
    assert not isinstance(now, Problem), now
    return views.detailed(now)


def _device(tx: Tx, text: str) -> str:
    found = effective(tx).find(text)
    if isinstance(found, Problem):
        raise _refused(found)
    return found.name


def _refused(problem: Problem) -> Refused:
    kind = "not_found" if problem.code == "unknown_device" else "invalid"
    return refuse(kind, problem.code, problem.text, problem.remedy)


def _history(tx: Tx, device: str | None) -> list[Override]:
    rows = tx.all(CatalogOverride, "catalog_overrides", device=device)
    return [
        Override(r.device, r.field, r.value, r.source, r.set_by, r.created_at.isoformat(), r.make)
        for r in rows
    ]
