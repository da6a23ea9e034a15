"""The log of live rounds as lines of a file, page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

from dusuan import __version__
from dusuan.app.context import Platform
from dusuan.core.scheduling.record import FORMAT, VERSION
from dusuan.store.database import Tx
from dusuan.store.rows import Id, RoundLine

PAGE = 500


def rounds(platform: Platform, since: datetime | None, until: datetime | None) -> Iterator[str]:
    """The record from `since` (or a little before: where the whole sight was written) to `until`.

    A header, the rounds, and an end that says how many there were: without it, it was cut off.
    """
    header = {"format": FORMAT, "version": VERSION, "software": __version__}
    exported = {"exported_at": platform.now().isoformat()}
    yield _line({"kind": "header", **header, **exported})
    count, place = 0, platform.store.read(lambda tx: _first(tx, since))
    while place is not None:
        page = _page(platform, place, until)
        for row in page:
            yield row.line + "\n"
        count += len(page)
        place = page[-1].n + 1 if len(page) == PAGE else None
    yield _line({"kind": "end", "rounds": count})


def _first(tx: Tx, since: datetime | None) -> int | None:
    row = tx.one(Id, "round_first_of", since=since)
    return None if row is None else row.id


def _page(platform: Platform, first: int, until: datetime | None) -> list[RoundLine]:
    return platform.store.read(
        lambda tx: tx.all(RoundLine, "rounds_page", first=first, until=until, limit=PAGE)
    )


def _line(document: dict[str, object]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
