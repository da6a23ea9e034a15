"""A nudge to the service, so that it need not poll to learn of a start or an end."""

from __future__ import annotations

import _socket  # the C module itself: `socket` costs several milliseconds of start-up
import os


def nudge(folder: str, name: str) -> None:
    """Send one datagram to the socket `name` in `folder`; if nobody listens, so be it.

    The address goes through an open descriptor, since a socket's path may not pass 107 bytes.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        sender.setblocking(False)
        sender.sendto(b"!", f"/proc/self/fd/{descriptor}/{name}")
    except OSError:
        return
    finally:
        sender.close()
        os.close(descriptor)
