"""The reasons of jobs that wait, written down where they have changed.

Numbers in reasons change with everything that starts or ends: in a long queue, nearly all of them
in every round. So a reason of another code is written at once, and of those in which only words or
numbers are others so many a round, the longest unwritten first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from dusuan.core.scheduling.model import Plan, Wait
from dusuan.store.database import Tx
from dusuan.store.rows import Queued

REWORDED_MOST = 1_000  # in a round


class Reasons:
    """What is written down of each waiting job. One for each term of a leader, who alone writes."""

    def __init__(self) -> None:
        self._told: Mapping[str, Wait] = {}  # the longest unwritten first

    def write(self, tx: Tx, plan: Plan, queued: Sequence[Queued]) -> Mapping[str, Wait]:
        """Write what is due; what to `keep` once `tx` is committed."""
        rows = {job.id: job for job in queued}
        news = self._due(plan.waits, rows)
        if news:
            views = _views((wait, rows[name].stop_reason) for name, wait in news.items())
            tx.run("jobs_waiting", jobs=list(news), waiting=views)
        waits = plan.waits
        same = {n: wait for n, wait in self._told.items() if n in waits and n not in news}
        return same | news

    def keep(self, told: Mapping[str, Wait]) -> None:
        """The transaction of what `write` answered is committed."""
        self._told = told

    def _due(self, waits: Mapping[str, Wait], rows: Mapping[str, Queued]) -> dict[str, Wait]:
        news, reworded = {}, set()
        for name, wait in waits.items():
            before = self._told.get(name) if rows[name].told else None
            if before is None or before.code is not wait.code:
                news[name] = wait
            elif before is not wait and before != wait:
                reworded.add(name)
        oldest = (name for name in self._told if name in reworded) if reworded else ()
        return news | {name: waits[name] for name in islice(oldest, REWORDED_MOST)}


def _views(told: Iterable[tuple[Wait, str | None]]) -> list[str]:
    """As JSON; many jobs share a reason."""
    known: dict[tuple[int, str | None], str] = {}
    found = []
    for wait, stop_reason in told:
        key = (id(wait), stop_reason)
        if key not in known:
            known[key] = json.dumps(view(wait, stop_reason), ensure_ascii=False)
        found.append(known[key])
    return found


def view(wait: Wait, stop_reason: str | None) -> dict[str, Any]:
    """A reason as it is stored and shown; `stop_reason`: why the job was stopped before."""
    text = wait.text
    if stop_reason is not None:
        text = f"stopped before ({stop_reason}) and waits to go on: {text}"
    return {"code": wait.code.value, "text": text, "remedy": wait.remedy, "data": dict(wait.data)}
