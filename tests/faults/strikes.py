"""Where a fault strikes, and whom. Standard library only: shepherds under test import it too.

A test writes one fault into `fault.json` of the data directory: at which point it strikes, and who
is its victim. A process under test calls `at(data, point)` wherever a fault could strike; the first
one to come to the point named removes the file, so that a fault strikes once, and carries it out.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from pathlib import Path

FAULT = "fault.json"


def arm(data: Path, point: str, *victims: str) -> None:
    """Let a fault strike `victims` when a process of `data` comes to `point`."""
    draft = data / "fault.new"
    draft.write_text(json.dumps({"point": point, "victims": victims}))
    draft.replace(data / FAULT)


def armed(data: Path) -> bool:
    """Whether the fault has not struck yet."""
    return (data / FAULT).exists()


def disarm(data: Path) -> None:
    """Take back a fault that has not struck."""
    (data / FAULT).unlink(missing_ok=True)


def at(data: Path, point: str) -> None:
    """This process is at `point` now: carry out the fault that is meant for it, if there is one."""
    try:
        fault = json.loads((data / FAULT).read_bytes())
        if fault["point"] != point:
            return
        (data / FAULT).unlink()
    except (OSError, ValueError):
        return
    for victim in fault["victims"]:
        VICTIMS[victim](data)


def kill_database(data: Path) -> None:
    """SIGKILL every process of the embedded server."""
    _kill(_database(data))


def kill_shepherds(data: Path) -> None:
    """SIGKILL every shepherd, this process last if it is one."""
    _kill([pid for pid in _beside_jobs(data) if not _is_keeper(pid)])


def kill_keepers(data: Path) -> None:
    """SIGKILL every keeper: inside the sandbox, where there is one."""
    _kill([pid for pid in _beside_jobs(data) if _is_keeper(pid)])


def kill_beside_jobs(data: Path) -> None:
    """SIGKILL shepherds and keepers together."""
    _kill(_beside_jobs(data))


def kill_service(_data: Path) -> None:
    """SIGKILL the service that this process is one of: the others die with their parent."""
    os.kill(os.getsid(0), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_process(_data: Path) -> None:
    """SIGKILL this process alone."""
    os.kill(os.getpid(), signal.SIGKILL)


def freeze_service(_data: Path) -> None:
    """SIGSTOP every process of this service, until somebody says SIGCONT."""
    signal_service(os.getsid(0), signal.SIGSTOP)


def signal_service(leader: int, number: signal.Signals) -> None:
    """Send a signal to a service's processes: those of the session of `leader`, oneself last."""
    ours = service_of(leader)
    for pid in sorted(ours, key=lambda pid: pid == os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def service_of(leader: int) -> list[int]:
    """The processes of the service that `leader` is the parent of, itself among them."""
    return [pid for pid in _pids() if _session(pid) == leader]


def kill_everything(data: Path) -> None:
    """What a power cut leaves: nothing that runs."""
    _kill(everything(data))


def everything(data: Path) -> list[int]:
    """Every process that belongs to `data`: services, database, shepherds, keepers, jobs."""
    known = {*_database(data), *_beside_jobs(data), *_services(data)}
    return [pid for pid in _pids() if pid in known or _names(pid, str(data))]


VICTIMS = {
    "process": kill_process,
    "database": kill_database,
    "shepherd": kill_shepherds,
    "keeper": kill_keepers,
    "beside": kill_beside_jobs,
    "service": kill_service,
    "freeze": freeze_service,
    "all": kill_everything,  # oneself last
}


def _kill(pids: list[int]) -> None:
    """Kill them all, oneself last, and wait until the others are gone.

    Before oneself comes one's parent, with whom one dies.
    """
    me, parent = os.getpid(), os.getsid(0)
    others = sorted((pid for pid in pids if pid != me), key=lambda pid: pid == parent)
    for pid in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if me in pids:
        os.kill(me, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while any(map(_lives, others)) and time.monotonic() < deadline:
        time.sleep(0.002)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def _database(data: Path) -> list[int]:
    home = os.fspath(data / "postgres")
    return [pid for pid in _pids() if _link(Path(f"/proc/{pid}/cwd")).startswith(home)]


def _beside_jobs(data: Path) -> list[int]:
    """Who has a shepherd's lock open: shepherds, keepers, and what sets up a sandbox."""
    home, services = os.fspath(data / "engine" / "attempts"), _services(data)
    others = [pid for pid in _pids() if pid not in services]
    return [pid for pid in others if _has_open(pid, home, "/shepherd.lock")]


def _has_open(pid: int, folder: str, name: str) -> bool:
    try:
        links = [_link(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(link.startswith(folder) and link.endswith(name) for link in links)


def _link(path: Path) -> str:
    try:
        return os.fspath(path.readlink())
    except OSError:
        return ""


def _words(pid: int) -> list[str]:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return []


def _is_keeper(pid: int) -> bool:
    words = _words(pid)
    return any(word.endswith("keeper.py") for word in words) and "python" in words[0]


def _services(data: Path) -> set[int]:
    """Every process of every service that lives: the number of a dead one may be another's."""
    entries = (data / "services").glob("[0-9]*")
    leaders = {int(entry.name) for entry in entries if _is_locked(entry)}
    return {pid for pid in _pids() if _session(pid) in leaders}


def _is_locked(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _names(pid: int, text: str) -> bool:
    """Whether a process was started with `text` among its arguments or in its environment."""
    words = _words(pid)
    if any("pytest" in word for word in words):
        return False
    if any(text in word for word in words):
        return True
    try:
        return text.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
