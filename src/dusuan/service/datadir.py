"""The data directory of an embedded platform: its layout, its version, and who has it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYOUT_VERSION = 1


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
        """Where the running platform says how to reach it."""
        return self.root / "platform.json"

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

    def lock(self) -> int:
        """Take the directory for this process, for as long as the descriptor is open.

        Raises `DataDirProblem` when another process has it.
        """
        descriptor = os.open(self.root / "platform.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise self._taken() from None
        return descriptor

    def _taken(self) -> DataDirProblem:
        status = self.read_status()
        where = f" at {status['url']} (process {status['pid']})" if status else ""
        return DataDirProblem(
            "already_running",
            f"a platform on {self.root} is running already{where}",
            f"use it, or stop it first: dusuan down --data {self.root}",
        )

    def is_taken(self) -> bool:
        """Whether a process has the directory now."""
        try:
            os.close(self.lock())
        except (DataDirProblem, OSError):
            return (self.root / "platform.lock").exists()
        return False

    def read_status(self) -> dict[str, Any]:
        """What the running platform wrote, or nothing."""
        with contextlib.suppress(OSError, ValueError):
            status = json.loads(self.status.read_text())
            return dict(status) if isinstance(status, dict) else {}
        return {}

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
