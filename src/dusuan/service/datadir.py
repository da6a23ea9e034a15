"""The data directory of an embedded platform: its layout, its version, and who serves it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYOUT_VERSION = 1
DYING_S_MAX = 5.0  # how long the processes of a service that was killed may take to be gone


class DataDirProblem(Exception):
    """The data directory cannot be used: what is wrong, and what to do."""

    def __init__(self, code: str, text: str, remedy: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class DataDir:
    """Where everything of one platform lives. Only its owner may read what is in it."""

    root: Path

    @property
    def postgres(self) -> Path:
        """The embedded database server's folder."""
        return self.root / "postgres"

    @property
    def engine(self) -> Path:
        """The embedded engine's folder: attempts and jobs."""
        return self.root / "engine"

    @property
    def uploads(self) -> Path:
        """Uploaded work directories."""
        return self.root / "uploads"

    @property
    def operator_key(self) -> Path:
        """The operator's API key, readable by its owner alone."""
        return self.root / "operator.key"

    @property
    def log(self) -> Path:
        """What a detached service says."""
        return self.root / "service.log"

    @property
    def status(self) -> Path:
        """Where the service that leads says how to reach it."""
        return self.root / "platform.json"

    @property
    def services(self) -> Path:
        """One file for every service here: the one that leads and those that stand by."""
        return self.root / "services"

    def prepare(self) -> None:
        """Make the folder and check its version. Raises `DataDirProblem`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o711)
            self._check_version()
            self.uploads.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise DataDirProblem(
                "data_dir_unusable",
                f"the data directory {self.root} cannot be written: {error.strerror}",
                "choose another with --data, or mend its permissions",
            ) from error

    def _check_version(self) -> None:
        file = self.root / "VERSION"
        if not file.exists():
            file.write_text(f"{LAYOUT_VERSION}\n")
            return
        text = file.read_text().strip()
        if not text.isdigit() or int(text) > LAYOUT_VERSION:
            raise DataDirProblem(
                "data_dir_newer",
                f"the data directory {self.root} has layout {text!r}; this version of dusuan "
                f"knows layouts up to {LAYOUT_VERSION}",
                "use the newer dusuan that wrote it, or another directory with --data",
            )

    def identity(self, fresh: str) -> str:
        """What this directory is called in the database that belongs to it: made once, `fresh`."""
        file = self.root / "ID"
        if not file.exists():
            draft = file.with_suffix(".new")
            draft.write_text(fresh + "\n")
            draft.replace(file)
        return file.read_text().strip()

    def join(self, *, beside: bool, patience_s: float = 0.0) -> int:
        """A share of the directory for this process, for as long as the descriptor is open.

        Raises `DataDirProblem` when another process has one, unless we may stand `beside` it. Those
        of a service that was killed take a moment to die: as long as nobody is on the list of who
        serves here, we wait for `patience_s`.
        """
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                return self._join(beside)
            except DataDirProblem:
                if time.monotonic() >= deadline_s or self.entries():
                    raise
            time.sleep(0.02)

    def _join(self, beside: bool) -> int:
        with self._doorway():
            share = self._open_lock()
            if not beside and not _try(share, fcntl.LOCK_EX):
                os.close(share)
                raise self._taken()
            fcntl.flock(share, fcntl.LOCK_SH)
            return share

    @contextlib.contextmanager
    def leave(self, share: int) -> Iterator[bool]:
        """Give a share back at the end of the block, which is told whether it was the last one.

        Nobody can join meanwhile, so the last one may stop what all of them used.
        """
        with self._doorway():
            try:
                yield _try(share, fcntl.LOCK_EX)
            finally:
                os.close(share)

    @contextlib.contextmanager
    def _doorway(self) -> Iterator[None]:
        """One process at a time joins, leaves or asks."""
        door = os.open(self.root / "door.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield
        finally:
            os.close(door)

    def _open_lock(self) -> int:
        return os.open(self.root / "platform.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def _taken(self) -> DataDirProblem:
        status = self.read_status()
        where = f" at {status['url']} (process {status['pid']})" if status else ""
        return DataDirProblem(
            "already_running",
            f"a platform on {self.root} is running already{where}",
            f"use it, stop it first (dusuan down --data {self.root}), or start this one with "
            "--standby, to take over when it fails",
        )

    def refuse_if_taken(self, patience_s: float = 0.0) -> None:
        """Raise `DataDirProblem` when a process has a share of the directory now."""
        os.close(self.join(beside=False, patience_s=patience_s))

    def is_taken(self) -> bool:
        """Whether a process has a share of the directory now."""
        try:
            self.refuse_if_taken()
        except (DataDirProblem, OSError):
            return (self.root / "platform.lock").exists()
        return False

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """One process at a time measures the devices."""
        turn = os.open(self.root / "measure.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield
        finally:
            os.close(turn)

    def enter(self, status: Mapping[str, Any]) -> int:
        """Put this process on the list of those who serve here, until the descriptor is closed."""
        self.services.mkdir(mode=0o700, exist_ok=True)
        file = self.services / str(status["pid"])
        file.unlink(missing_ok=True)  # of a process that had this number before
        entry = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        _try(entry, fcntl.LOCK_EX)
        os.write(entry, json.dumps(dict(status)).encode())
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """Who serves here now: what each of them said of itself. Those of the dead are removed."""
        alive = []
        for file in sorted(self.services.glob("*")):
            with contextlib.suppress(OSError, ValueError):
                if _is_locked(file):
                    alive.append(dict(json.loads(file.read_text())))
                else:
                    file.unlink()
        return alive

    def read_status(self) -> dict[str, Any]:
        """What the running platform wrote, or nothing."""
        with contextlib.suppress(OSError, ValueError):
            status = json.loads(self.status.read_text())
            return dict(status) if isinstance(status, dict) else {}
        return {}

    def withdraw_status(self, pid: int) -> None:
        """Take back what process `pid` said, unless another one leads by now."""
        if self.read_status().get("pid") == pid:
            self.status.unlink(missing_ok=True)

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Say how to reach the platform, all at once."""
        draft = self.status.with_suffix(".new")
        draft.write_text(json.dumps(dict(status)))
        draft.replace(self.status)

    def write_key(self, key: str) -> None:
        """Write the operator's key, never readable by anyone else."""
        draft = self.operator_key.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
        draft.replace(self.operator_key)


def _try(descriptor: int, kind: int) -> bool:
    """Take a lock of `kind` if that is possible now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(file: Path) -> bool:
    descriptor = os.open(file, os.O_RDWR)
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
