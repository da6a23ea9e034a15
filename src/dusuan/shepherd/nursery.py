"""Starts shepherds by forking itself: a process with everything imported, and nothing else to do.

Started as `python -I -S nursery.py SOCKET PADDING`: the number of one end of a SOCK_SEQPACKET pair,
and a long argument that makes room for the titles of what is forked from here. Each message is the
folder of an attempt, with two descriptors: its lock, and the file for what its shepherd complains
about. The answer is `started`, or why it could not be. The end of the socket ends the nursery;
the shepherds stay.
"""

# ruff: noqa: PTH100, PTH120 - importing pathlib would cost milliseconds and memory
from __future__ import annotations

import _socket  # the C module itself: `socket` brings much that no shepherd needs
import array
import gc
import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from dusuan.shepherd import loop
from dusuan.shepherd.title import set_title

_MESSAGE_BYTES = 8192
_SHEPHERD = "dusuan-shepherd"  # in the title only


def main(argv: list[str]) -> None:
    """Serve until the other end is closed."""
    connection = _socket.socket(fileno=int(argv[1]))
    set_title([sys.executable, "-I", "-S", *argv[:2]])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps shepherds that have ended
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the engine, and not before
    gc.disable()
    gc.freeze()  # what is shared with the shepherds stays shared
    while True:
        folder, descriptors = _receive(connection)
        if not folder:
            return
        connection.send(_start(folder, descriptors, connection))


def _receive(connection: _socket.socket) -> tuple[bytes, array.array[int]]:
    descriptors = array.array("i")
    room = _socket.CMSG_SPACE(2 * descriptors.itemsize)
    folder, extra, _, _ = connection.recvmsg(_MESSAGE_BYTES, room)
    for _level, _kind, data in extra:
        descriptors.frombytes(data)
    return folder, descriptors


def _start(folder: bytes, descriptors: array.array[int], connection: _socket.socket) -> bytes:
    """Fork one shepherd; what to answer."""
    try:
        if os.fork() == 0:
            connection.close()
            _become_shepherd(os.fsdecode(folder), *descriptors)
    except OSError as error:
        return str(error).encode()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return b"started"


def _become_shepherd(folder: str, lock: int, complaints: int) -> None:
    """The rest of this process's life is one attempt's."""
    try:
        os.setsid()
        os.dup2(complaints, 2)
        os.close(complaints)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        argv = [_SHEPHERD, folder, str(lock)]
        set_title([sys.executable, "-I", "-S", *argv])
        loop.main(argv)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # into the attempt's file of complaints
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv)
