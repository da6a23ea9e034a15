"""The command line against a centre that answers on loopback and works on its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from click.testing import Result
from tests.api.centre import Centre
from typer.testing import CliRunner

from dusuan.cli import LauncherError, build


@dataclass
class MadeUpLauncher:
    """Says where the centre is; starts and stops nothing."""

    url: str
    key: str
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    running: bool = True

    def up(
        self,
        data: Path,
        port: int | None,
        database: str | None,
        detach: bool,
        report: Callable[[str], None],
        *,
        standby: bool = False,
        take_over: bool = False,
    ) -> dict[str, Any]:
        self.asked.append((data, port, database, detach))
        if standby or take_over:
            self.asked.append(("beside", standby, take_over))
        report("starting the platform")
        return {"url": self.url, "pid": 1, "data_dir": str(data), "database_url": "postgresql://"}

    def down(self, data: Path) -> dict[str, Any]:
        return {"url": self.url, "pid": 1, "data_dir": str(data), "stopped": True}

    def client(self, data: Path | None) -> tuple[str, str]:
        self.asked.append(("client", data))
        if not self.running:
            raise LauncherError("not_running", "no platform is running", "dusuan up")
        return self.url, self.key


@dataclass
class Command:
    """The command `dusuan`, as an operator unless `key` says otherwise."""

    centre: Centre
    launcher: MadeUpLauncher
    app: typer.Typer

    def __call__(self, *words: str, key: str | None = None) -> Result:
        self.launcher.key = key or self.centre.operator_key
        return CliRunner().invoke(self.app, list(words))

    def json(self, *words: str, key: str | None = None, code: int = 0) -> Any:
        """What a command answers with --json, and nothing else, on stdout."""
        result = self(*words, "--json", key=key)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def problem(self, *words: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
        """The exit code and the problem of a command that fails with --json."""
        result = self(*words, "--json", key=key)
        assert result.stdout == "", result.stdout
        return result.exit_code, json.loads(result.stderr)


@pytest.fixture(scope="session")
def served(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    """A centre that answers on loopback for as long as the session lasts."""
    made = Centre(migrated_url, tmp_path_factory.mktemp("centre"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The centre runs in this process; what it logs is not what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def centre(served: Centre, clean_url: str) -> Iterator[Centre]:
    """A centre whose service works on its own."""
    served.begin()
    served.keep_turning()
    yield served
    served.end()


@pytest.fixture
def dusuan(centre: Centre, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command, in an empty directory."""
    for name in ("DUSUAN_ACCOUNT", "DUSUAN_DATA", "DUSUAN_URL", "DUSUAN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    launcher = MadeUpLauncher(centre.url, centre.operator_key)
    return Command(centre, launcher, build(launcher))
