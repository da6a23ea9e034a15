"""A parallel layout in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_layout(found: Mapping[str, Any] | None) -> str:
    """A layout in a few words: `tp 2 · pp 4 · dp 8 · zero 1`."""
    if not found:
        return ""
    parts = [f"{n} {found[n]}" for n in ("tp", "pp", "dp", "ep", "zero") if found.get(n, 1) > 1]
    if found.get("recompute") not in (None, "none"):
        parts.append("recompute")
    return " · ".join(parts) or "one device"
