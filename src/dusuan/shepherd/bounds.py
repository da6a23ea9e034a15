# ruff: noqa: PTH116, PTH123, PTH208 - importing pathlib would cost milliseconds of every start
"""What a job's whole tree may use of the host: memory, processes, disk. Looked at, not asked for.

A limit of the kernel binds one process, or all of a user; a tree that forks has as many of them as
it likes. So the shepherd counts, four times a second, and ends the tree that has too much.
"""

from __future__ import annotations

import functools
import os
import stat
import time

from dusuan.shepherd import tree

_LOOK_MS = 250
_DISK_LOOK_MS = 1_000
_DISK_SHARE = 20  # a walk through the folders may take this part of the time, 1 in 20
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are
_ENTRIES_MAX = 2_000_000


class Bounds:
    """The bounds of one tree: `memory_bytes`, `processes` and `disk_bytes`; 0 is no bound."""

    __slots__ = (
        "_disk_due_ms",
        "_due_ms",
        "_folders",
        "_tmpfs",
        "disk_bytes",
        "memory_bytes",
        "processes",
    )

    def __init__(self, spec: dict[str, object]) -> None:
        self.memory_bytes = _number(spec.get("memory_bytes"))
        self.processes = _number(spec.get("processes"))
        self.disk_bytes = _number(spec.get("disk_bytes"))
        folders = spec.get("folders")
        self._folders = [str(each) for each in folders] if isinstance(folders, list) else []
        tmpfs = spec.get("tmpfs")
        self._tmpfs = [str(each) for each in tmpfs] if isinstance(tmpfs, list) else []
        self._due_ms = _LOOK_MS
        self._disk_due_ms = _DISK_LOOK_MS

    def look(self, pid: int, elapsed_ms: int) -> str:
        """Why the tree below `pid` has to go, in words for its owner; empty when it may stay.

        Most calls are too early and do nothing.
        """
        if elapsed_ms < self._due_ms:
            return ""
        self._due_ms = elapsed_ms + _LOOK_MS
        pids = tree.descendants(pid)
        if self.processes and len(pids) > self.processes:
            return f"it had more than {self.processes} processes"
        if self.memory_bytes and self._memory(pids) > self.memory_bytes:
            return f"it used more than {_mib(self.memory_bytes)} MiB of memory"
        return ""

    def look_at_disk(self, pid: int, elapsed_ms: int) -> str:
        """The same for the job's folders. The longer a look takes, the rarer it is."""
        if not self.disk_bytes or elapsed_ms < self._disk_due_ms:
            return ""
        began_ns = time.monotonic_ns()
        try:
            used = _folders_bytes(self._folders)
        except OverflowError:
            return "its folders hold more files, or deeper folders, than can be counted"
        took_ms = (time.monotonic_ns() - began_ns) // 1_000_000
        self._disk_due_ms = elapsed_ms + max(_DISK_LOOK_MS, took_ms * _DISK_SHARE)
        pids = tree.descendants(pid)
        if used + unnamed_bytes(pids, self._scratch(pids)[1])[0] > self.disk_bytes:
            return f"its files took more than {_mib(self.disk_bytes)} MiB of disk"
        return ""

    def _memory(self, pids: list[int]) -> int:
        """Bytes that the tree keeps in memory. What processes share counts once.

        The quick sum counts it for each of them; it is exact only when that would be too much.
        """
        scratch, devices = self._scratch(pids)
        files = unnamed_bytes(pids, devices)[1] + scratch
        if sum(_resident_bytes(pid) for pid in pids) + files <= self.memory_bytes:
            return 0
        private = shared = 0
        for pid in pids:
            anonymous, shmem = _proportional_bytes(pid)
            private, shared = private + anonymous, shared + shmem
        return private + max(shared, files)  # files that are mapped are in both

    def _scratch(self, pids: list[int]) -> tuple[int, set[int]]:
        """The sandbox's own file systems in memory, as its innermost process sees them.

        Bytes of all files there, deleted ones included, and the devices' numbers.
        """
        total, devices = 0, set[int]()
        for folder in self._tmpfs if pids else ():
            path = f"/proc/{pids[-1]}/root{folder}"
            try:
                found, device = os.statvfs(path), os.stat(path).st_dev
            except OSError:
                continue  # it is gone: the next look finds another
            if device not in devices:
                total += (found.f_blocks - found.f_bfree) * found.f_frsize
                devices.add(device)
        return total, devices


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _mib(count: int) -> int:
    return count >> 20


def _resident_bytes(pid: int) -> int:
    """Anonymous and shared memory of one process; 0 when it is gone."""
    return sum(_fields(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")))


def _proportional_bytes(pid: int) -> tuple[int, int]:
    """Anonymous and shared memory, divided by those who share it; private alone when hidden."""
    anonymous, shmem = _fields(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:"))
    if anonymous or shmem:
        return anonymous, shmem
    return _fields(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:"))


def _fields(path: str, names: tuple[bytes, bytes]) -> tuple[int, int]:
    """Two fields of kB, in bytes; 0 for what is not there."""
    found = dict.fromkeys(names, 0)
    try:
        with open(path, "rb") as file:
            for line in file:
                name = line.split(None, 1)[0]
                if name in found:
                    found[name] = int(line.split()[1]) << 10
    except (OSError, IndexError, ValueError):
        pass  # it is gone, or not ours to look at
    return found[names[0]], found[names[1]]


def unnamed_bytes(pids: list[int], counted: set[int]) -> tuple[int, int]:
    """(disk, memory) in bytes of open files without a name: deleted ones, and memfds.

    No folder shows them, and no process's resident memory either. What is on one of the devices
    `counted` is left out.
    """
    seen: dict[tuple[int, int], int] = {}
    in_memory = 0
    for pid in pids:
        for status in _open_files(pid):
            key = (status.st_dev, status.st_ino)
            if status.st_nlink or not stat.S_ISREG(status.st_mode) or key in seen:
                continue
            if status.st_dev in counted:
                continue
            seen[key] = status.st_blocks * _BLOCK_BYTES
            if status.st_dev in _memory_devices():
                in_memory += seen[key]
    return sum(seen.values()) - in_memory, in_memory


@functools.cache
def _memory_devices() -> frozenset[int]:
    """Where the kernel keeps files in memory: memfds and the like, and the host's /dev/shm."""
    found = set()
    try:
        descriptor = os.memfd_create("dusuan")
        found.add(os.fstat(descriptor).st_dev)
        os.close(descriptor)
        found.add(os.stat("/dev/shm").st_dev)  # only looked at
    except OSError:
        pass  # a host without them has no files there
    return frozenset(found)


def _open_files(pid: int) -> list[os.stat_result]:
    found = []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.append(os.stat(f"/proc/{pid}/fd/{name}"))
            except OSError:
                continue  # closed meanwhile
    except OSError:
        return found
    return found


def _folders_bytes(folders: list[str]) -> int:
    """Bytes on disk of everything below `folders`, through no link; a hard link counts once.

    Raises OverflowError when that cannot be counted: too many entries, or too deep for a path.
    """
    total, entries, waiting = 0, 0, list(folders)
    linked: set[int] = set()
    while waiting:
        for status, path in _entries(waiting.pop()):
            entries += 1
            if entries > _ENTRIES_MAX:
                raise OverflowError
            if stat.S_ISDIR(status.st_mode):
                waiting.append(path)
            elif status.st_nlink > 1:
                if status.st_ino in linked:
                    continue
                linked.add(status.st_ino)
            total += status.st_blocks * _BLOCK_BYTES
    return total


def _entries(folder: str) -> list[tuple[os.stat_result, str]]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found.append((entry.stat(follow_symlinks=False), entry.path))
                except OSError:
                    continue  # removed meanwhile
    except OSError as error:
        if error.errno in (36, 40):  # ENAMETOOLONG, ELOOP: hidden from us by its depth
            raise OverflowError from error
    return found
