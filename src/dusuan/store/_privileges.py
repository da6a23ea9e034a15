"""Exec a command as another user, keeping at most the right to pass folder permissions.

Run as a script: `python -I -S _privileges.py UID:GID|- none|dac_override wait|detach COMMAND...`.
It exists because PostgreSQL refuses root, and because changing user inside `preexec_fn` is unsafe
in a process with threads. It imports the standard library only, so it starts in milliseconds.

`-` keeps the user. `dac_override` keeps CAP_DAC_OVERRIDE for the new user, which lets it enter
folders that only root may enter. `detach` leaves the command running without a parent.
"""

from __future__ import annotations

import ctypes
import os
import sys

EXIT_REFUSED = 77  # the user or capability could not be changed; the reason is on stderr

_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _become_keeping_dac_override(uid: int, gid: int) -> None:
    """Change user and keep CAP_DAC_OVERRIDE, and nothing else, across the coming exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Without this bit access() ignores the capability and postgres calls its binaries invalid.
    _checked(libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "set securebits")
    _checked(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
    _become(uid, gid)
    data = (_Data * 2)()
    mask = 1 << _CAP_DAC_OVERRIDE
    data[0].effective = data[0].permitted = data[0].inheritable = mask
    _checked(libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), data), "capset")
    ambient = libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
    _checked(ambient, "raise ambient capability")


def _change_user(user: str, capability: str) -> None:
    if user == "-":
        return
    uid, gid = (int(part) for part in user.split(":"))
    if capability == "dac_override":
        _become_keeping_dac_override(uid, gid)
    else:
        _become(uid, gid)


def main(argv: list[str]) -> None:
    """Change user, detach if asked, and become the command."""
    user, capability, lifetime, *command = argv
    try:
        _change_user(user, capability)
    except OSError as error:
        print(f"cannot become {user} with {capability}: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    if lifetime == "detach" and os.fork() != 0:
        sys.exit(0)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
