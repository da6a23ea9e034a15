"""`dusuan up`, at the mercy of a test: faults strike at exact points, time may jump.

Forked from a process that has imported everything, so that a test of a hundred restarts need not
wait for a hundred imports. Everything that makes it different from the real command is here: the
real parts are wrapped in this process, and know nothing of it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.faults import strikes

from dusuan.api.call import Call
from dusuan.app import jobs, placing, pool, rounds
from dusuan.app.context import Limits, Platform
from dusuan.cli import LauncherError
from dusuan.core.ledger.tick import SlicePolicy
from dusuan.engines.local import LocalEngine, nursery
from dusuan.engines.local import engine as engine_module
from dusuan.service import loop
from dusuan.store import ledger
from dusuan.wiring import assembly

# Short slices: what takes an hour in a centre is seen in seconds.
SLICES = {"slice_ms": 12_000, "least_ms": 3_500, "settle_ms": 400, "head_ms": 3_000}
RATING_GFLOPS = 100
CANNOT_MOUNT = "this machine lets nobody mount"
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 1 << 14, 1 << 18
CLOCK = "clock"  # a file in the data directory: by how many seconds the clock is wrong


def wrap(
    owner: Any,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[[Any], None] | None = None,
) -> None:
    """Call `before` with the arguments and `after` with the result of `owner.name`."""
    real = getattr(owner, name)  # no such name: the table of points is out of date, so fail

    @functools.wraps(real)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        result = real(*args, **kwargs)
        if after is not None:
            after(result)
        return result

    setattr(owner, name, wrapped)


def set_points(data: Path) -> None:
    """The points of submit, start, tick, settle, close and stop at which a fault can strike."""
    closes = [False]

    def point(name: str) -> Callable[..., None]:
        return lambda *_: strikes.at(data, name)

    def if_any(name: str) -> Callable[[Any], None]:
        return lambda count: strikes.at(data, name) if count else None

    def applied(written: tuple[Any, Any]) -> None:
        if written[0]:
            strikes.at(data, "start.written")

    def closing(_platform: Any, _tx: Any, claims: Any, _now: Any) -> None:
        closes[0] = bool(claims)

    def closed(_: Any) -> None:
        if closes[0]:
            strikes.at(data, "close.written")

    def submitted(call: Call, *_: Any) -> None:
        if call.where == "POST /v1/jobs":
            strikes.at(data, "submit.committed")

    once = Call.once
    Call.once = lambda call, *args: (once(call, *args), submitted(call))[0]  # type: ignore[method-assign] # this process only
    wrap(jobs, "insert_job", after=point("submit.written"))
    wrap(placing, "_apply", after=applied)
    for room in (placing, rounds):
        starts = {"before": point("start.committed"), "after": point("start.done")}
        wrap(room, "start_attempt", **starts)
    wrap(LocalEngine, "_spawn", before=point("start.prepared"), after=point("start.spawned"))
    wrap(rounds, "_ingest", before=point("tick.read"), after=point("tick.written"))
    wrap(rounds, "observe", after=if_any("tick.committed"))
    wrap(ledger, "write_tick", after=point("settle.written"))
    wrap(LocalEngine, "set_lease", before=point("settle.committed"), after=point("settle.told"))
    wrap(rounds, "_close", before=closing, after=closed)
    wrap(LocalEngine, "signal", before=point("stop.committed"), after=point("stop.told"))
    wrap(rounds, "stop_cancelled", after=if_any("stop.noted"))
    wrap(engine_module, "unpack", after=point("unpack"))  # before the tree gets its name
    wrap(loop, "step", before=point("turn"))


def wrong_clock(data: Path) -> Callable[[], datetime]:
    """The real time, wrong by as many seconds as the file `clock` says now."""

    def now() -> datetime:
        try:
            wrong_s = float((data / CLOCK).read_text())
        except (OSError, ValueError):
            wrong_s = 0.0
        return datetime.now(UTC) + timedelta(seconds=wrong_s)

    return now


def serve(settings: dict[str, Any]) -> None:
    """Become a service, with its faults, in a process of its own."""
    data = Path(settings["data"])
    os.setsid()
    log = os.open(data / "service.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    for name, size in settings.get("disks", {}).items():
        mount_small_disk(data / name, size)
    if zone := settings.get("zone"):
        os.environ["TZ"] = zone
        time.tzset()
    set_points(data)
    assembly.now = wrong_clock(data)
    assembly._measure = measured
    limits = Limits(**settings.get("limits", {}))
    slices = SlicePolicy(**SLICES | settings.get("slices", {}))
    assembly.Platform = functools.partial(Platform, slices=slices, limits=limits)  # type: ignore[misc,assignment] # this process only
    loop.Pace = functools.partial(loop.Pace, **settings.get("pace", {}))  # type: ignore[misc,assignment] # this process only
    haunt_shepherds()
    if boot_id := settings.get("boot_id"):
        engine_module.boot_id = lambda: boot_id
    start = assembly.Start(
        data,
        0,
        settings.get("database"),
        standby=settings.get("standby", False),
        take_over=settings.get("take_over", False),
    )
    try:
        assembly.run_here(start, lambda _: None)
    except LauncherError as error:
        sys.exit(f"{error.code}: {error.text}")


def mount_small_disk(folder: Path, size: str) -> None:
    """A file system of its own for `folder`, which this process and its children see, and no other.

    It goes with the last of them, so nothing on the machine has to be cleared away.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir(parents=True, exist_ok=True)
    option = f"size={size},mode=755".encode()
    steps = (
        lambda: libc.unshare(_CLONE_NEWNS),
        lambda: libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None),
        lambda: libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, option),
    )
    for step in steps:
        if step():
            sys.exit(f"{CANNOT_MOUNT}: {os.strerror(ctypes.get_errno())}")


def measured(engine: LocalEngine) -> list[pool.Measured]:
    """A round figure, at once."""
    return [pool.Measured(d.device, RATING_GFLOPS) for d in engine.inventory()]


def haunt_shepherds() -> None:
    """Shepherds that this service starts have points of their own."""
    nursery._PROGRAM = Path(__file__).with_name("haunted.py")
