"""A real platform of its own processes on a data directory, driven by the command itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "dusuan"]


def wait_for(done: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """The first true answer of `done`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := done():
            return answer
        time.sleep(0.05)
    pytest.fail(f"waited {timeout_s} s for {what}")


@dataclass
class Instance:
    """One data directory and the commands run on it."""

    data: Path
    environment: dict[str, str]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command with `--data` and `--json`."""
        done = subprocess.run(
            [*COMMAND, *words[:1], "--data", str(self.data), "--json", *words[1:]]
            if len(words) < 2
            or words[0] not in ("org", "account", "member", "key", "package", "cash")
            else [*COMMAND, *words[:2], "--data", str(self.data), "--json", *words[2:]],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=120,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ask(self, *words: str) -> Any:
        """Run the command; its JSON answer."""
        return json.loads(self.run(*words).stdout)

    def up(self, *words: str) -> dict[str, Any]:
        return dict(self.ask("up", "--port", "0", "--detach", *words))

    def down(self) -> None:
        self.run("down")

    def account(self, path: str, packs: int = 1) -> str:
        org, _, rest = path.partition("/")
        self.run("org", "create", org)
        if rest:
            self.run("account", "create", path)
        for _ in range(packs):
            self.run("package", "buy", "demo-pack", "--account", path)
        return path

    def submit(self, path: str, job: str, tmp: Path, name: str = "job.yaml") -> str:
        file = tmp / name
        file.write_text(job)
        words = ("submit", str(file), "--yes", "--detach", "--account", path)
        return str(self.ask(*words)["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.ask("job", job_id))

    def wait_state(self, job_id: str, *states: str, timeout_s: float = 60.0) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in states else None

        return dict(wait_for(reached, f"{job_id} to be {states}", timeout_s))

    def journal_held_ms(self, attempt_id: str) -> int:
        """The register as the shepherd itself wrote it last."""
        text = (self.data / "engine/attempts" / attempt_id / "journal").read_text()
        return int(json.loads(text.splitlines()[-1].partition(" ")[2])["held_ms"])

    def processes(self) -> list[int]:
        """Every process with something of this data directory in its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if str(self.data).encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def service_pid(self) -> int:
        return int(json.loads((self.data / "platform.json").read_text())["pid"])

    def kill_everything(self) -> None:
        """What a power cut leaves: nothing that runs, files as they are."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.processes(), "everything to be dead")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """A data directory on which nothing runs yet; whatever runs on it at the end is ended."""
    names = ("DUSUAN_URL", "DUSUAN_API_KEY", "DUSUAN_ACCOUNT", "DUSUAN_DATA", "DATABASE_URL")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    made = Instance(tmp_path / "data", environment)
    yield made
    made.run("down", check=False)
    made.kill_everything()
