"""Where the engine keeps things, on the host and as the job sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Ids become folder names; anything else in them would reach the file system.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,199}")


def is_safe_name(name: str) -> bool:
    """Whether `name` can be a folder's name and nothing more than that."""
    return _SAFE_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class AttemptFolder:
    """One attempt: private to the service."""

    folder: Path

    @property
    def spec(self) -> Path:
        """What the shepherd runs; written last, so that it is whole or absent."""
        return self.folder / "spec.json"

    @property
    def lease(self) -> Path:
        """The ceiling on the attempt's register."""
        return self.folder / "lease.json"

    @property
    def control(self) -> Path:
        """The action asked for last."""
        return self.folder / "control.json"

    @property
    def journal(self) -> Path:
        """Written by the shepherd; it exists as soon as the attempt has begun."""
        return self.folder / "journal"

    @property
    def log(self) -> Path:
        """What the job wrote to stdout and stderr."""
        return self.folder / "log"

    @property
    def lock(self) -> Path:
        """Locked while the shepherd or the keeper lives."""
        return self.folder / "shepherd.lock"

    @property
    def complaints(self) -> Path:
        """The shepherd's own stderr: empty unless it has a bug."""
        return self.folder / "shepherd.err"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """One job's folders, shared by its attempts."""

    folder: Path

    @property
    def work(self) -> Path:
        """The job's files and its current directory."""
        return self.folder / "work"

    @property
    def checkpoint(self) -> Path:
        """What survives from one attempt to the next."""
        return self.folder / "checkpoint"

    @property
    def output(self) -> Path:
        """What the customer fetches."""
        return self.folder / "output"

    @property
    def scratch(self) -> Path:
        """TMPDIR of a job without a sandbox."""
        return self.folder / "tmp"

    def report(self, attempt_id: str) -> Path:
        """What an attempt says about itself, as JSON lines."""
        return self.folder / f"report.{attempt_id}"

    def script(self, attempt_id: str) -> Path:
        """The script of a `script` job."""
        return self.folder / f"script.{attempt_id}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The engine's root."""

    root: Path

    @property
    def attempts(self) -> Path:
        """One folder per attempt."""
        return self.root / "attempts"

    @property
    def jobs(self) -> Path:
        """One folder per job."""
        return self.root / "jobs"

    def attempt(self, attempt_id: str) -> AttemptFolder:
        """Raises ValueError for an id that is no plain name."""
        if not is_safe_name(attempt_id):
            raise ValueError(f"not an attempt id: {attempt_id!r}")
        return AttemptFolder(self.attempts / attempt_id)

    def job(self, job_id: str) -> JobFolder:
        """Raises ValueError for an id that is no plain name."""
        if not is_safe_name(job_id):
            raise ValueError(f"not a job id: {job_id!r}")
        return JobFolder(self.jobs / job_id)


@dataclass(frozen=True, slots=True)
class Seen:
    """The job's folders under the paths the job itself sees."""

    work: str
    checkpoint: str
    output: str
    report: str
    script: str
    scratch: str


SANDBOXED = Seen(
    work="/dusuan/work",
    checkpoint="/dusuan/checkpoint",
    output="/dusuan/output",
    report="/dusuan/report",
    script="/dusuan/script",
    scratch="/tmp",
)


def seen_directly(job: JobFolder, attempt_id: str) -> Seen:
    """What a job without a sandbox sees: the host's own paths."""
    return Seen(
        work=str(job.work),
        checkpoint=str(job.checkpoint),
        output=str(job.output),
        report=str(job.report(attempt_id)),
        script=str(job.script(attempt_id)),
        scratch=str(job.scratch),
    )
