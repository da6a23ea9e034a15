"""What a job left for its customer, read without following any link the job made."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_FILES_MAX = 100_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def list_files(folder: Path) -> list[tuple[str, int]]:
    """Plain files below `folder` as (relative path, bytes), sorted; no links and no pipes."""
    found: list[tuple[str, int]] = []
    if folder.is_symlink() or not folder.is_dir():
        return found
    for path, _, names, descriptor in os.fwalk(folder, follow_symlinks=False):
        for relative, size in _plain_files(Path(path), names, descriptor):
            found.append((str(relative.relative_to(folder)), size))
            if len(found) >= _FILES_MAX:
                return sorted(found)
    return sorted(found)


def _plain_files(path: Path, names: list[str], descriptor: int) -> Iterator[tuple[Path, int]]:
    for name in names:
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError:
            continue  # the job is still at work and has just removed it
        if stat.S_ISREG(status.st_mode) and _is_text(name):
            yield path / name, status.st_size


def _is_text(name: str) -> bool:
    """A name that is no UTF-8 cannot be told to anyone as JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def open_file(folder: Path, relative: str) -> BinaryIO:
    """Open a plain file below `folder` for reading, step by step and through no link.

    Raises FileNotFoundError for anything else, `..` and absolute paths included.
    """
    parts = PurePosixPath(relative).parts
    if not parts or ".." in parts or "/" in parts or "\0" in relative:
        raise FileNotFoundError(relative)
    try:
        step = os.open(folder, _FOLDER)
    except OSError as error:
        raise FileNotFoundError(relative) from error
    try:
        for part in parts[:-1]:
            deeper = os.open(part, _FOLDER, dir_fd=step)
            os.close(step)
            step = deeper
        descriptor = os.open(parts[-1], _FILE, dir_fd=step)
    except OSError as error:
        raise FileNotFoundError(relative) from error
    finally:
        os.close(step)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(relative)
    return os.fdopen(descriptor, "rb")
