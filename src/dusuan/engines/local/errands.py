"""Orders that a full disk refused: kept in mind, and delivered as soon as there is room."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dusuan.engines.local.files import replace_json


class Errands:
    """Writes small files for shepherds; what could not be written is tried again.

    Only this process remembers it. That is enough: whoever leads next tells the engine every lease
    and every stop in force anew.
    """

    def __init__(self) -> None:
        self._owed: dict[Path, Mapping[str, Any]] = {}
        self._guard = threading.Lock()

    def leave(self, path: Path, document: Mapping[str, Any]) -> None:
        """Replace `path` by `document`, now or later; the newest document counts."""
        with self._guard:
            self._deliver(path, document)

    def retry(self) -> None:
        """Deliver what is owed, as far as that is possible now."""
        with self._guard:
            for path, document in list(self._owed.items()):
                self._deliver(path, document)

    def _deliver(self, path: Path, document: Mapping[str, Any]) -> None:
        self._owed.pop(path, None)
        try:
            replace_json(path, document)
        except FileNotFoundError:
            return  # what it was for is gone
        except OSError:
            self._owed[path] = document
