"""What would make a waiting job start, tried on a copy of the pool by the rules themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dusuan.app import jobs, prices
from dusuan.app.access import Actor, Need, job_for
from dusuan.app.context import Platform
from dusuan.core.scheduling.live import picture
from dusuan.core.scheduling.model import Wait, WaitCode
from dusuan.core.scheduling.whatif import Remedy, expected_start_ms, remedies
from dusuan.store import ledger
from dusuan.store.database import Tx

_LACKS_MONEY = (WaitCode.BALANCE.value, WaitCode.BUDGET.value)


def why(platform: Platform, tx: Tx, actor: Actor, job_id: str) -> dict[str, Any]:
    """Why a job is where it is; for one that waits, proven remedies and when it may start."""
    answer = tx.look(jobs.why(actor, job_id))
    job = job_for(tx, actor, job_id, Need.READ)
    if job.state != "queued":
        return answer
    now = platform.now()
    now_ms = ledger.unix_ms(now)
    lacks = answer["code"] in _LACKS_MONEY
    wait = Wait(WaitCode(answer["code"]), answer["text"], answer["remedy"]) if lacks else None
    blocked = {job_id: wait} if wait else {}
    cluster, queue = picture(platform.memory.load(tx, now).sight(blocked), now_ms)
    if job_id not in {each.job_id for each in queue}:  # it has a claim already
        return answer
    found = remedies(cluster, queue, job_id, platform.policy, now_ms)
    told = [_told(tx, each) for each in found]
    start_ms = None if lacks else expected_start_ms(cluster, queue, job_id, platform.policy, now_ms)
    at = None if start_ms is None else now + timedelta(milliseconds=start_ms - now_ms)
    return {**answer, "remedies": told, "expected_start_at": at and at.isoformat()}


def _also(value: str) -> str:
    """What else has to be allowed besides lending."""
    return "" if value == "others" else f"the operator let accounts borrow more ({value}) and "


def _told(tx: Tx, remedy: Remedy) -> dict[str, Any]:
    value = str(remedy.value)
    texts = {
        "balance": "with enough in the account it would start now",
        "count": f"with {value} device{'s' if value != '1' else ''} it would start now",
        "device": f"on {value} it would start now",
        "tier": f"on the tier {value} ({_price(tx, value)}) it would start now",
        "wall_time": f"with a wall time of {remedy.value} ms or less it would start now",
        "without": f"if {value} were cancelled it would start now",
        "borrow": f"if the operator let accounts borrow more ({value}) it would start now",
        "lend": f"if {_also(value)}others lent what they are guaranteed and do not use it would "
        "start now",
    }
    stops = f", for which {remedy.stops} preemptible jobs would be stopped" if remedy.stops else ""
    return {
        "change": remedy.change,
        "value": value,
        "text": texts[remedy.change] + stops,
        "stops": remedy.stops,
    }


def _price(tx: Tx, tier: str) -> str:
    return f"{prices.permille(prices.latest(tx), tier) / 10:g} % of the price of a degree"
