"""Price versions: what each service tier costs, in thousandths of the price of a degree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dusuan.app.access import Actor, operator_only
from dusuan.app.context import Platform, refuse
from dusuan.store.database import Tx, json

PERMILLE_MAX = 100_000
TIERS = ("reserved", "standard", "spot")


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """One version; it never changes. `tiers`: thousandths of the price of a degree, by tier.

    `id` None: nobody has set any price, and every tier costs the price of a degree.
    """

    id: int | None
    tiers: Mapping[str, int]


def latest(tx: Tx) -> PriceVersion:
    """The version that is in force."""
    return tx.one(PriceVersion, "price_version_latest") or PriceVersion(None, {})


def permille(version: PriceVersion, tier: str) -> int:
    """What `tier` costs; a version that does not name it leaves the price as it is."""
    return int(version.tiers.get(tier, 1_000))


def show(tx: Tx) -> dict[str, Any]:
    """The version in force, as the API shows it."""
    version = latest(tx)
    return {"price_version": version.id, "tiers": {t: permille(version, t) for t in TIERS}}


def change(platform: Platform, tx: Tx, actor: Actor, tiers: Mapping[str, int]) -> dict[str, Any]:
    """Put a new version in force; tiers that are not named keep their price. Operators only.

    Quotes that were made before, accepted or not, keep the version they were made with.
    """
    operator_only(actor)
    unknown = sorted(set(tiers) - set(TIERS))
    if unknown:
        text = f"{unknown[0]!r} is no tier"
        raise refuse("invalid", "unknown_tier", text, f"tiers: {', '.join(TIERS)}")
    for tier, value in tiers.items():
        if not 0 < value <= PERMILLE_MAX:
            text = f"the price of {tier} is {value} thousandths; it has to be 1 to {PERMILLE_MAX}"
            raise refuse("invalid", "out_of_range", text, "600 makes a tier cost 60 %")
    merged = {**latest(tx).tiers, **tiers}
    tx.run("price_version_insert", tiers=json(merged), now=platform.now())
    return show(tx)
