"""Failures of a command, and the exit code each ends with.

0 done; 1 failed or an invariant broken; 2 usage or input that cannot be used (a job file that is
missing or cannot be read included); 3 not enough balance or budget; 4 not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAILED, USAGE, SHORT, NOT_FOUND, INTERRUPTED = 1, 2, 3, 4, 130
_EXIT_OF_STATUS = {400: USAGE, 413: USAGE, 422: USAGE, 402: SHORT, 404: NOT_FOUND}
_EXIT_OF_CODE = {"budget_unreachable": SHORT}


class Failure(Exception):
    """What happened, where, and what to do next."""

    def __init__(
        self,
        code: str,
        text: str,
        remedy: str = "",
        exit_code: int | None = None,
        *,
        where: str | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.remedy = remedy
        self.exit_code = _EXIT_OF_CODE.get(code, FAILED) if exit_code is None else exit_code
        self.where = where
        self._document = document

    @property
    def line(self) -> int | None:
        """The line of the input at fault, when there is one."""
        return (self._document or {}).get("line")

    @property
    def document(self) -> dict[str, Any]:
        """As problem details (RFC 9457)."""
        return {
            "type": f"urn:dusuan:problem:{self.code}",
            "title": self.code.replace("_", " "),
            "detail": self.text,
            "code": self.code,
            "remedy": self.remedy,
            **(self._document or {}),
            **({} if self.where is None else {"where": self.where}),
            "exit_code": self.exit_code,
        }


def from_problem(status: int, document: Mapping[str, Any], where: str | None = None) -> Failure:
    """The failure that an answer of the API is."""
    return Failure(
        str(document.get("code", "http_error")),
        str(document.get("detail", f"the platform answered with status {status}")),
        str(document.get("remedy", "")),
        _EXIT_OF_STATUS.get(status, FAILED),
        where=where,
        document=document,
    )


def usage(code: str, text: str, remedy: str = "", where: str | None = None) -> Failure:
    """A failure of the command's own input."""
    return Failure(code, text, remedy, USAGE, where=where)
