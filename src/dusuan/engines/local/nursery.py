"""The engine's end of the nursery: the process that shepherds are forked from."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from dusuan.engines.local.isolation import interpreter

_PROGRAM = Path(__file__).resolve().parents[2] / "shepherd" / "nursery.py"
_TITLE_ROOM = "." * 8192
_PATIENCE_S = 10.0
_ANSWER_BYTES = 4096


class Nursery:
    """Starts shepherds in a millisecond, where a new interpreter takes twenty.

    `begin` starts the process, so that the first job need not wait for it either; one that was
    killed is replaced at the next start.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Have the process there from now on."""
        if self._process is None:
            self._open()

    def start(self, folder: Path, lock: int, complaints: int) -> None:
        """Fork a shepherd for `folder`, which inherits both descriptors.

        Raises OSError when this host starts no process now: no fault of the job's.
        """
        self.begin()
        try:
            answer = self._ask(folder, lock, complaints)
        except OSError:  # killed. Had it forked before that, the second shepherd gives way
            self.close()
            self.begin()
            answer = self._ask(folder, lock, complaints)
        if answer != b"started":
            raise ChildProcessError(f"no process can be started here: {answer.decode()}")

    def close(self) -> None:
        """End the nursery; the shepherds go on."""
        if self._process is not None:
            self._socket.close()
            self._process.kill()  # it may be stopped, and would not see the end of its socket
            self._process.wait()
            self._process = None

    def _open(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_PATIENCE_S)
        argv = [str(interpreter()), "-I", "-S", str(_PROGRAM), str(theirs.fileno()), _TITLE_ROOM]
        with theirs:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
                env={},
            )

    def _ask(self, folder: Path, lock: int, complaints: int) -> bytes:
        socket.send_fds(self._socket, [os.fsencode(folder)], [lock, complaints])
        answer = self._socket.recv(_ANSWER_BYTES)
        if not answer:
            raise BrokenPipeError("the nursery has ended")
        return answer
