"""What the command line needs from the process that can start platforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class LauncherError(Exception):
    """The platform could not be started, stopped or found, for a reason a person can mend."""

    def __init__(self, code: str, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.remedy = remedy


class Launcher(Protocol):
    """Starts and stops the embedded platform. Everything raises `LauncherError`."""

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
        """Start a platform; detached, answer when it is healthy, else when it was stopped.

        `standby`: beside one that runs on `data`, to take over when that one fails. `take_over`:
        the data directory that the database belongs to is lost for good.
        """

    def down(self, data: Path) -> dict[str, Any]:
        """Stop the platform of `data`."""

    def client(self, data: Path | None) -> tuple[str, str]:
        """The URL and the key to use, from the environment or the data directory."""
