"""What an attempt runs, as data: environment and the shepherd's spec. Pure builders."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dusuan.engines.base import StartOrder
from dusuan.engines.local.inventory import Found
from dusuan.engines.local.layout import Seen
from dusuan.engines.local.sandbox import SCRATCH_FOLDERS
from dusuan.engines.local.visibility import visibility

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_FILES_OPEN_MAX = 65_536
_PROCESSES_MAX = 4_096
_DISK_BYTES_LEAST = 16 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """The engine's own bounds. All times are milliseconds.

    `margin_ms` is how long before a ceiling the kill is sent. `log_bytes_max` is what is kept of
    a job's output, `files_bytes_max` what its archive may unpack to. Below `disk_free_bytes_min`
    nothing is started. Of the host, a job's tree may use at most `processes_max` processes,
    `memory_share` of the memory (less when it asked for less), and `disk_share` of what was free
    on the data's disk when it began.
    """

    poll_ms: int = 50
    margin_ms: int = 100
    log_bytes_max: int = 64 << 20
    files_bytes_max: int = 4 << 30
    disk_free_bytes_min: int = 16 << 20
    processes_max: int = 2_048
    memory_share: float = 0.8
    disk_share: float = 0.5


def order_problem(order: StartOrder) -> str:
    """Why `order` can never be started, in words for the customer; empty when it can."""
    if (order.argv is None) == (order.script is None):
        return "exactly one of a command and a script has to be given"
    if order.argv is not None and not (order.argv and order.argv[0]):
        return "the command is empty"
    if signal_number(order.checkpoint_signal) is None:
        return f"unknown checkpoint signal: {order.checkpoint_signal}"
    texts = [*(order.argv or ()), *order.env.values()]
    if any("\0" in text for text in texts):
        return "commands and environment values may not contain NUL characters"
    for name in order.env:
        if not name or "=" in name or "\0" in name:
            return f"not a name for an environment variable: {name!r}"
    if not order.devices or len(set(order.devices)) != len(order.devices):
        return "at least one device is needed, and none may be named twice"
    return ""


def signal_number(name: str) -> int | None:
    """The number of "SIGUSR1" (or "USR1"); None when there is no such signal to send."""
    full = name if name.startswith("SIG") else f"SIG{name}"
    number = getattr(signal, full, None)
    if not isinstance(number, signal.Signals) or number in (signal.SIGKILL, signal.SIGSTOP):
        return None
    return int(number)


def job_argv(order: StartOrder, seen: Seen) -> list[str]:
    """The command itself. A script is a file, so nothing of it is ever quoted."""
    if order.argv is not None:
        return list(order.argv)
    return ["/bin/bash", "-e", seen.script]


def job_env(
    order: StartOrder, seen: Seen, placement: Sequence[Found], tools: str
) -> dict[str, str]:
    """The job's whole environment; nothing of the service's own goes in.

    The customer may override defaults, but not what the platform says about the job. `tools` is
    the folder whose `python` the job finds first.
    """
    cpu_count = len(cpu_indexes(placement))
    threads = dict.fromkeys(_THREAD_VARIABLES, str(cpu_count)) if cpu_count else {}
    defaults = {
        "PATH": f"{tools}:{_SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "HOME": seen.work,
        "TMPDIR": seen.scratch,
        "USER": "job",  # the uid has no name of its own on this host, and programs ask
        "LOGNAME": "job",
        "PYTHONUNBUFFERED": "1",  # a log that is watched live, and whole after a kill
    }
    told = {
        "DUSUAN_JOB_ID": order.job_id,
        "DUSUAN_ATTEMPT": order.attempt_id,
        "DUSUAN_WORK_DIR": seen.work,
        "DUSUAN_CHECKPOINT_DIR": seen.checkpoint,
        "DUSUAN_OUTPUT_DIR": seen.output,
        "DUSUAN_REPORT": seen.report,
        "DUSUAN_DEVICES": ",".join(order.devices),
    }
    return {**defaults, **threads, **order.env, **visibility(placement), **told}


def cpu_indexes(placement: Sequence[Found]) -> list[int]:
    """The cores of a placement; empty when it has a device that is no core."""
    if any(found.device.kind != "cpu" for found in placement):
        return []
    return sorted(found.device.index for found in placement)


def limits(memory_mib: int | None, as_root: bool, disk_bytes: int) -> dict[str, int]:
    """Resource limits by the kernel's names, of each process. `bounds` are those of all together.

    Memory is bounded as RLIMIT_DATA (per process): what is really allocated. RLIMIT_AS would
    count reserved addresses too, of which a CUDA or Java program reserves hundreds of GiB.
    """
    found = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": _FILES_OPEN_MAX,
        "RLIMIT_FSIZE": disk_bytes,
        "RLIMIT_NICE": 0,
        "RLIMIT_RTPRIO": 0,
    }
    if not as_root:
        found["RLIMIT_NPROC"] = _PROCESSES_MAX
    if memory_mib is not None:
        found["RLIMIT_DATA"] = memory_mib << 20
    return found


def bounds(order: StartOrder, around: Surroundings, settings: Settings) -> dict[str, object]:
    """What the shepherd lets the job's whole tree use. See `dusuan.shepherd.bounds`."""
    memory = int(around.host_memory_bytes * settings.memory_share)
    if order.memory_mib is not None:
        memory = min(memory, order.memory_mib << 20)
    return {
        "memory_bytes": memory,
        "processes": settings.processes_max,
        "disk_bytes": disk_bytes(around, settings),
        "folders": list(around.folders),
        "tmpfs": [*SCRATCH_FOLDERS, "/dev"] if around.sandbox else [],
    }


def disk_bytes(around: Surroundings, settings: Settings) -> int:
    """What a job's files may take, and what each of them may."""
    return max(_DISK_BYTES_LEAST, int(around.disk_free_bytes * settings.disk_share))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the engine adds to an order to make it a spec."""

    sandbox: Sequence[str]
    user: tuple[int, int] | None
    cores: Sequence[int]
    as_root: bool
    report: str
    wake_folder: str
    wake_name: str
    boot_id: str
    host_memory_bytes: int
    disk_free_bytes: int
    folders: Sequence[str]


def shepherd_spec(
    order: StartOrder,
    seen: Seen,
    env: Mapping[str, str],
    around: Surroundings,
    settings: Settings,
) -> dict[str, object]:
    """The document `spec.json`, which the shepherd and the keeper read."""
    return {
        "attempt_id": order.attempt_id,
        "job_id": order.job_id,
        "devices": list(order.devices),
        "device_count": len(order.devices),
        "boot_id": around.boot_id,
        "sandbox": list(around.sandbox),
        "argv": job_argv(order, seen),
        "shell": order.script is not None,
        "env": dict(env),
        "cwd": seen.work,
        "user": around.user,
        "cpus": list(around.cores),
        "limits": limits(order.memory_mib, around.as_root, disk_bytes(around, settings)),
        "bounds": bounds(order, around, settings),
        "checkpoint_signal": signal_number(order.checkpoint_signal),
        "grace_ms": order.grace_ms,
        "wall_ms": order.wall_ms,
        "margin_ms": settings.margin_ms,
        "tick_ms": order.tick_ms,
        "poll_ms": settings.poll_ms,
        "log_bytes_max": settings.log_bytes_max,
        "progress": None
        if order.progress_pattern is None
        else {"pattern": order.progress_pattern, "total": order.progress_total},
        "report": around.report,
        "wake_folder": around.wake_folder,
        "wake_name": around.wake_name,
    }
