"""Named queries: all SQL stands in `queries/*.sql`, each under a `-- name: …` line."""

from __future__ import annotations

from functools import cache
from importlib import resources

_MARK = "-- name: "


@cache
def queries() -> dict[str, str]:
    """Every named query. Raises `ValueError` when a name stands twice."""
    found: dict[str, str] = {}
    folder = resources.files(__package__) / "queries"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        for name, text in _split(file.read_text(encoding="utf-8")):
            if name in found:
                raise ValueError(f"query {name!r} is defined twice")
            found[name] = text
    return found


def _split(text: str) -> list[tuple[str, str]]:
    parts = text.split(_MARK)[1:]
    return [(name.strip(), body.strip()) for name, _, body in (p.partition("\n") for p in parts)]
