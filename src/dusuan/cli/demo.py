"""`dusuan demo`."""

from __future__ import annotations

from typing import Any

from dusuan.cli.session import Session


class Demo:
    """To come."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self) -> dict[str, Any]:
        raise NotImplementedError
