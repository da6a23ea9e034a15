"""The embedded engine: starts shepherds, reads their journals, carries orders to them."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from dusuan.core.metering.journal import EndReason, Exit, Reading, RecordKind
from dusuan.engines.base import (
    Action,
    Capabilities,
    Device,
    Lease,
    Observation,
    StartFailed,
    StartOrder,
)
from dusuan.engines.local import commands, isolation, lock, outputs
from dusuan.engines.local.archive import unpack
from dusuan.engines.local.calibration import (
    Calibration,
    Load,
    Uncalibrated,
    calibrate,
    measure_class,
)
from dusuan.engines.local.commands import Settings
from dusuan.engines.local.errands import Errands
from dusuan.engines.local.files import (
    has_ended,
    note_end,
    read_bytes,
    read_journal,
    read_json,
    replace_json,
    size_of,
)
from dusuan.engines.local.inventory import Found, discover
from dusuan.engines.local.layout import (
    SANDBOXED,
    AttemptFolder,
    JobFolder,
    Layout,
    Seen,
    is_safe_name,
    seen_directly,
)
from dusuan.engines.local.leftovers import kill_leftovers
from dusuan.engines.local.nursery import Nursery
from dusuan.engines.local.sandbox import Shown, sandbox_argv

__all__ = ["LocalEngine", "Settings"]

_WAKE_NAME = "wake.sock"
_UNPACKING_MAX = 2  # archives at a time
_STRENGTH = {Action.CHECKPOINT.value: 0, Action.STOP.value: 1, Action.KILL.value: 2}


def boot_id() -> str:
    """What tells this run of the host's kernel from every other one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class LocalEngine:
    """Runs attempts on this host, below the folder `root`, which it owns.

    `isolation` is "auto" (bubblewrap where it works, else plain processes), "process" or
    "bubblewrap". `devices` replaces the inventory of the host. `hidden` are folders no job may
    see, `root` always being one of them. Raises IsolationUnavailable when "bubblewrap" was asked
    for and does not work.

    All state is in the files below `root` and in the shepherds' locks: an engine made anew on
    the same root goes on where another left off, however that one ended. Until it adopts or starts
    something it has neither a process nor a socket of its own.
    """

    def __init__(
        self,
        root: Path,
        *,
        isolation: str = "auto",
        node: str = "localhost",
        devices: Sequence[Device] | None = None,
        hidden: Sequence[Path] = (),
        settings: Settings | None = None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._layout = Layout(root.resolve())
        self._settings = settings or Settings()
        self._isolation = self._choose_isolation(isolation, hidden)
        found = discover(node) if devices is None else _as_found(devices)
        self._found = {item.device.device: item for item in found}
        self._boot_id = boot_id()
        self._guard = threading.Lock()
        self._unpacking = threading.Semaphore(_UNPACKING_MAX)
        self._nursery = Nursery()
        self._ended: set[str] = set()
        self._errands = Errands()
        self._live = {name: self._devices_of(name) for name in self._running()}
        self._wake: socket.socket | None = None

    # -- the engine protocol -----------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """What this engine does on this host; told as tried, not as hoped."""
        return Capabilities(
            name="local",
            isolation=self._isolation.sentence,
            network_off=self._isolation.sandbox is not None,
            tells_oom=False,
            limits_disk=True,
            limits_memory=True,
            limits_processes=True,
        )

    def inventory(self) -> Sequence[Device]:
        """The devices of this host."""
        return [found.device for found in self._found.values()]

    def calibrate(self) -> list[Calibration | Uncalibrated]:
        """Measure every device, all at once. Only while no attempt runs; takes some seconds."""
        return calibrate(list(self._found.values()))

    def measure_class(self, class_: str) -> list[Load]:
        """Measure one class of work on every device, all at once. Only while no attempt runs."""
        return measure_class(list(self._found.values()), class_)

    def start(self, order: StartOrder) -> None:
        """Start a shepherd for `order`; returns as soon as it is spawned. See the protocol."""
        problem = commands.order_problem(order)
        if problem:
            raise StartFailed(problem)
        if not is_safe_name(order.attempt_id) or not is_safe_name(order.job_id):
            raise StartFailed(f"not a plain id: {order.job_id!r} {order.attempt_id!r}")
        placement = self._placement(order.devices)
        attempt = self._layout.attempt(order.attempt_id)
        with self._guard:
            if attempt.journal.exists():
                return
            self._refuse_taken(order)
            self._start(order, placement, attempt)

    def observe(self, cursors: Mapping[str, int]) -> Sequence[Observation]:
        """News since `cursors`. See the protocol."""
        self._errands.retry()
        seen = (self._look(attempt_id, cursor) for attempt_id, cursor in cursors.items())
        return [observation for observation in seen if observation is not None]

    def signal(self, attempt_id: str, action: Action) -> None:
        """Leave a wish for the shepherd, which looks every `poll_ms`. See the protocol."""
        if not self._is_known(attempt_id):
            return
        path = self._layout.attempt(attempt_id).control
        with self._guard:
            last = read_json(path)
            # A stronger wish is never replaced by a weaker one, and only a checkpoint is repeated.
            wish, standing = _STRENGTH[action.value], _STRENGTH.get(last.get("action", ""), 0)
            if wish < standing or wish == standing > 0:
                return
            self._errands.leave(path, {"seq": last.get("seq", 0) + 1, "action": action.value})

    def set_lease(self, attempt_id: str, lease: Lease) -> None:
        """Replace the lease file. See the protocol."""
        if not self._is_known(attempt_id):
            return
        path = self._layout.attempt(attempt_id).lease
        with self._guard:
            if lease.seq > read_json(path).get("seq", -1):
                self._errands.leave(path, _lease_document(lease))

    def trouble(self) -> str:
        """Why nothing can be started here now: a disk without room for journals and orders."""
        room = os.statvfs(self._layout.root)
        free = room.f_bavail * room.f_frsize
        if free < self._settings.disk_free_bytes_min or (room.f_files and not room.f_favail):
            return f"the disk of its machine is full: {free >> 20} MiB are free"
        return ""

    def remove_files(self, job_id: str, attempt_ids: Sequence[str]) -> None:
        """Remove all that is kept of a job that has ended. See the protocol."""
        folders = [self._layout.attempt(name).folder for name in attempt_ids]
        for folder in (self._layout.job(job_id).folder, *folders):
            shutil.rmtree(folder, ignore_errors=True)
        self._ended.difference_update(attempt_ids)

    def adopt(self) -> Sequence[str]:
        """The attempts that are still running, by their locks. From here on the nudges are ours,
        until another engine on the same root adopts."""
        running = self._running()
        self._nursery.begin()
        with self._guard:
            self._live = {name: self._devices_of(name) for name in running}
            self._hang_up()
        return running

    def _running(self) -> list[str]:
        folders = sorted(self._layout.attempts.iterdir())
        return [folder.name for folder in folders if self._is_running(folder.name)]

    def fileno(self) -> int | None:
        """The socket that shepherds nudge at a start and at an end."""
        if self._wake is None:
            self._wake = self._listen()
        return self._wake.fileno()

    def drain(self) -> None:
        """Read away the nudges."""
        while self._wake is not None:
            try:
                self._wake.recv(64)
            except BlockingIOError:
                return

    # -- what jobs wrote ---------------------------------------------------------------------

    def read_log(self, attempt_id: str, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes of the job's output from byte `offset`."""
        if not self._is_known(attempt_id):
            return b""
        return read_bytes(self._layout.attempt(attempt_id).log, offset, limit)

    def outputs(self, job_id: str) -> Sequence[tuple[str, int]]:
        """The job's output files: (path relative to its output folder, bytes), sorted."""
        if not is_safe_name(job_id):
            return []
        return outputs.list_files(self._layout.job(job_id).output)

    def open_output(self, job_id: str, relative: str) -> BinaryIO:
        """Open one output file. Raises FileNotFoundError, also for links and `..`."""
        if not is_safe_name(job_id):
            raise FileNotFoundError(relative)
        return outputs.open_file(self._layout.job(job_id).output, relative)

    def close(self) -> None:
        """Let go of the socket. Running attempts go on: that is what shepherds are for."""
        self._nursery.close()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._wake is not None:
            self._wake.close()
            self._wake = None

    # -- setting up --------------------------------------------------------------------------

    def _choose_isolation(self, asked: str, hidden: Sequence[Path]) -> isolation.Isolation:
        """Try what works, then close the folders as far as that allows."""
        layout = self._layout
        layout.attempts.mkdir(mode=0o700, exist_ok=True)
        layout.jobs.mkdir(mode=0o711, exist_ok=True)
        layout.root.chmod(0o711)
        layout.jobs.chmod(0o711)
        chosen = isolation.choose(asked, layout.jobs, (layout.root, *hidden))
        if chosen.sandbox is not None or chosen.user is None:
            layout.root.chmod(0o700)
        return chosen

    def _listen(self) -> socket.socket:
        """The socket `wake.sock`, reached by descriptor: a socket's path may not pass 107 bytes."""
        path = self._layout.root / _WAKE_NAME
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        folder = os.open(self._layout.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{_WAKE_NAME}")
        finally:
            os.close(folder)
        path.chmod(0o600)
        return listener

    # -- starting ----------------------------------------------------------------------------

    def _placement(self, devices: Sequence[str]) -> list[Found]:
        unknown = [device for device in devices if device not in self._found]
        if unknown:
            raise StartFailed(f"unknown device: {', '.join(unknown)}")
        return [self._found[device] for device in devices]

    def _refuse_taken(self, order: StartOrder) -> None:
        """All of the devices or none: an attempt that lives on one of them is in the way."""
        for attempt_id, devices in list(self._live.items()):
            if not self._is_running(attempt_id):
                del self._live[attempt_id]
                continue
            taken = sorted(set(devices) & set(order.devices))
            if taken and attempt_id != order.attempt_id:
                raise StartFailed(f"held by another attempt: {', '.join(taken)}")

    def _start(self, order: StartOrder, placement: Sequence[Found], attempt: AttemptFolder) -> None:
        attempt.folder.mkdir(mode=0o700, exist_ok=True)
        held = lock.take(attempt.lock)
        if held is None:
            return  # its shepherd lives, or is about to
        self._live[order.attempt_id] = order.devices
        if order.files is None or self._layout.job(order.job_id).work.exists():
            self._start_now(order, placement, attempt, held)
        else:
            # A large archive takes its time, and everybody else's meter must not wait for it.
            args = (order, placement, attempt, held)
            threading.Thread(target=self._start_later, args=args, daemon=True).start()

    def _start_now(
        self, order: StartOrder, placement: Sequence[Found], attempt: AttemptFolder, held: int
    ) -> None:
        try:
            self._prepare(order, placement, attempt)
            self._spawn(attempt, held)
        except BaseException:
            shutil.rmtree(attempt.folder, ignore_errors=True)
            self._live.pop(order.attempt_id, None)
            raise
        finally:
            os.close(held)  # the shepherd has it now

    def _start_later(
        self, order: StartOrder, placement: Sequence[Found], attempt: AttemptFolder, held: int
    ) -> None:
        """Unpack in a thread of its own, then start. How it went is told by the journal alone.

        Where this process dies on the way, the lock is free and there is no journal: the attempt is
        started anew. Where its machine fails it, likewise, by whoever observes that.
        """
        try:
            with self._unpacking:
                self._make_work(order, self._layout.job(order.job_id))
            with self._guard:
                asked = read_json(attempt.control).get("action")
                if asked in (Action.STOP, Action.KILL):
                    note_end(attempt.journal, Exit(EndReason.STOPPED, text="before it began"))
                else:
                    self._prepare(order, placement, attempt)
                    self._spawn(attempt, held)
        except StartFailed as failed:
            note_end(attempt.journal, Exit(EndReason.START_FAILED, text=str(failed)))
        except OSError as error:
            attempt.complaints.write_text(f"{error}\n")
        finally:
            os.close(held)

    def _prepare(
        self, order: StartOrder, placement: Sequence[Found], attempt: AttemptFolder
    ) -> None:
        """Every file the shepherd needs; the spec last."""
        job = self._layout.job(order.job_id)
        self._prepare_job(order, job)
        sandbox = self._isolation.sandbox
        seen = SANDBOXED if sandbox else seen_directly(job, order.attempt_id)
        tools = str(Path(sys.prefix).resolve() / "bin")
        around = commands.Surroundings(
            sandbox=self._sandbox_argv(order, placement, job),
            user=self._isolation.user,
            cores=commands.cpu_indexes(placement),
            as_root=os.geteuid() == 0 and self._isolation.user is None,
            report=str(job.report(order.attempt_id)),
            wake_folder=str(self._layout.root),
            wake_name=_WAKE_NAME,
            boot_id=self._boot_id,
            host_memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            disk_free_bytes=shutil.disk_usage(self._layout.root).free,
            folders=[str(each) for each in (job.work, job.checkpoint, job.output, job.scratch)],
        )
        env = commands.job_env(order, seen, placement, tools)
        if order.lease.seq > read_json(attempt.lease).get("seq", -1):
            replace_json(attempt.lease, _lease_document(order.lease))
        spec = commands.shepherd_spec(order, seen, env, around, self._settings)
        replace_json(attempt.spec, spec)

    def _prepare_job(self, order: StartOrder, job: JobFolder) -> None:
        """The job's folders; its files are unpacked once, before its first attempt."""
        self._make_work(order, job)
        for folder in (job.checkpoint, job.output, job.scratch):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._give(folder)
        self._write_job_file(job.report(order.attempt_id), "")
        if order.script is not None:
            self._write_job_file(job.script(order.attempt_id), order.script)
        if self._isolation.sandbox is None:
            self._give(job.folder)  # inside a sandbox the job sees only what is below

    def _make_work(self, order: StartOrder, job: JobFolder) -> None:
        """The job's work directory, whole or not at all."""
        job.folder.mkdir(mode=0o700, exist_ok=True)
        if job.work.exists():
            return
        fresh = job.folder / "work.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            if order.files is not None:
                unpack(order.files, fresh, self._settings.files_bytes_max)
            self._give_tree(fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        fresh.rename(job.work)

    def _write_job_file(self, path: Path, text: str) -> None:
        """The folder may be the job's own by now: never write through something it left there."""
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(text)
        self._give(path)

    def _give_tree(self, folder: Path) -> None:
        if self._isolation.user is None:
            return
        for path, folders, files in os.walk(folder):
            for name in (*folders, *files):
                self._give(Path(path) / name)
        self._give(folder)

    def _give(self, path: Path) -> None:
        """Hand `path` to the user that jobs run as, never through a link."""
        if self._isolation.user is not None:
            os.chown(path, *self._isolation.user, follow_symlinks=False)

    def _sandbox_argv(
        self, order: StartOrder, placement: Sequence[Found], job: JobFolder
    ) -> Sequence[str]:
        host = self._isolation.sandbox
        if host is None:
            return ()
        seen: Seen = SANDBOXED
        shown = [
            Shown(str(job.work), seen.work, True),
            Shown(str(job.checkpoint), seen.checkpoint, True),
            Shown(str(job.output), seen.output, True),
            Shown(str(job.report(order.attempt_id)), seen.report, True),
        ]
        if order.script is not None:
            shown.append(Shown(str(job.script(order.attempt_id)), seen.script, False))
        devices = sorted({path for found in placement for path in found.paths})
        return sandbox_argv(host, shown, devices, order.network)

    def _spawn(self, attempt: AttemptFolder, held: int) -> None:
        """A session of its own: the shepherd outlives the service, however that ends."""
        with attempt.complaints.open("wb") as complaints:
            self._nursery.start(attempt.folder, held, complaints.fileno())

    # -- watching ----------------------------------------------------------------------------

    def _look(self, attempt_id: str, cursor: int) -> Observation | None:
        """One journal that cannot be read just now keeps nobody from reading the others."""
        try:
            return self._observe(attempt_id, cursor)
        except OSError as error:
            problem = f"its journal cannot be read: {error.strerror}"
            return Observation(attempt_id, cursor, problems=(problem,))

    def _observe(self, attempt_id: str, cursor: int) -> Observation | None:
        if not self._is_known(attempt_id):
            return Observation(attempt_id, cursor, lost=True)
        attempt = self._layout.attempt(attempt_id)
        news = self._news(attempt, attempt_id, cursor)
        if news is not None:
            return news
        if attempt_id in self._ended or self._lives(attempt):
            return None
        # It may have written its last records between the two looks, and then let go of the lock.
        news = self._news(attempt, attempt_id, cursor)
        if news is not None:
            return news
        if has_ended(attempt.journal):
            self._ended.add(attempt_id)
            return None
        self._bury(attempt)
        return Observation(attempt_id, cursor, lost=True, began=attempt.journal.exists())

    def _news(self, attempt: AttemptFolder, attempt_id: str, cursor: int) -> Observation | None:
        if size_of(attempt.journal) < cursor:
            cursor = 0  # it was cut: its registers are cumulative, so it is read once more
        reading: Reading = read_journal(attempt.journal, cursor)
        if not reading.consumed:
            return None
        if any(record.kind is RecordKind.END for record in reading.records):
            self._ended.add(attempt_id)
        position = cursor + reading.consumed
        return Observation(attempt_id, position, reading.records, reading.problems)

    def _is_known(self, attempt_id: str) -> bool:
        return is_safe_name(attempt_id) and self._layout.attempt(attempt_id).folder.is_dir()

    def _lives(self, attempt: AttemptFolder) -> bool:
        return lock.is_held(attempt.lock)

    def _is_running(self, attempt_id: str) -> bool:
        """Alive and not at its end: a shepherd that has written its end holds nothing any more."""
        if not is_safe_name(attempt_id) or attempt_id in self._ended:
            return False
        attempt = self._layout.attempt(attempt_id)
        return self._lives(attempt) and not has_ended(attempt.journal)

    def _devices_of(self, attempt_id: str) -> tuple[str, ...]:
        return tuple(read_json(self._layout.attempt(attempt_id).spec).get("devices", ()))

    def _bury(self, attempt: AttemptFolder) -> None:
        """Before an attempt is called lost, nothing of it may live.

        Its keeper saw to that, unless it was killed too, and then only plain processes can be
        left: a sandbox dies with its first process, which is the keeper.
        """
        spec = read_json(attempt.spec)
        if spec.get("boot_id") != self._boot_id or spec.get("sandbox"):
            return
        names = ("DUSUAN_JOB_ID", "DUSUAN_ATTEMPT", "DUSUAN_WORK_DIR")
        marks = {name: spec["env"][name] for name in names}
        while kill_leftovers(marks):
            os.sched_yield()


def _as_found(devices: Sequence[Device]) -> tuple[Found, ...]:
    return tuple(Found(device, visible=str(device.index)) for device in devices)


def _lease_document(lease: Lease) -> dict[str, int]:
    return {"seq": lease.seq, "held_ms_max": lease.held_ms_max}
