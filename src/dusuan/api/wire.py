"""HTTP as uvicorn speaks it, with an end to its patience: who does not finish asking is let go."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S_MAX = 5.0
HEAD_BYTES_MAX = 32_768


class _Gathered:
    """A transport that sends what is written in one turn of the event loop at once.

    uvicorn writes the head of an answer and its body one after the other: that would be two
    packets, and the client would be woken twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it, at the end of this turn at the latest."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Send what was written."""
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def close(self) -> None:
        """Close, after what was written has been sent."""
        self.flush()
        self._transport.close()


class PatientProtocol(H11Protocol):
    """Closes a connection whose request line and headers are not whole after `HEAD_S_MAX`.

    Between two requests uvicorn's own keep-alive time holds; from the first byte of one, ours.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for the first request."""
        self._gathered = _Gathered(transport, self.loop)
        super().connection_made(self._gathered)  # type: ignore[arg-type] # is one in all that is used
        self._wait()

    def on_response_complete(self) -> None:
        """Send what is left of it now."""
        self._gathered.flush()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Take in what came; stop waiting when it was a whole head."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to be waited for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_S_MAX, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _hang_up(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.close()


def server_options() -> dict[str, Any]:
    """What a server of this API hands to `uvicorn.Config`."""
    return {
        "http": PatientProtocol,
        "h11_max_incomplete_event_size": HEAD_BYTES_MAX,
        "log_config": None,
        "access_log": False,
        "server_header": False,
    }
