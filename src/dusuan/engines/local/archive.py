"""Unpacks a customer's files. The archive is hostile until proven otherwise."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from zlib import error as zlib_error

from dusuan.engines.base import StartFailed

_MEMBERS_MAX = 200_000
# The machine's fault, and none of the archive's.
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)


def unpack(archive: Path, target: Path, bytes_max: int) -> None:
    """Unpack the gzip tar `archive` into the empty folder `target` (a path without links).

    Links are made after every file has been written, so that no file is ever written through
    one. Raises StartFailed, with the member's name, for anything that would leave `target`, is
    no file, folder or link, or passes `bytes_max` in all; OSError where the machine fails it.
    """
    links: list[tarfile.TarInfo] = []
    bytes_total = 0
    try:
        with tarfile.open(archive, "r:gz") as file:
            for count, member in enumerate(file):
                bytes_total += member.size
                if bytes_total > bytes_max or count >= _MEMBERS_MAX:
                    raise StartFailed("the job's files are too large to unpack")
                _member(file, member, target, links)
            # Hard links first: their sources are files, and no symbolic link is in the way yet.
            for member in sorted(links, key=tarfile.TarInfo.issym):
                _link(member, target)
    except (tarfile.TarError, zlib_error, EOFError, OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in _OURS:
            raise
        raise StartFailed(f"the job's files cannot be unpacked: {error}") from error


def _member(
    file: tarfile.TarFile, member: tarfile.TarInfo, target: Path, links: list[tarfile.TarInfo]
) -> None:
    place = _inside(target, member.name)
    if member.issym() or member.islnk():
        links.append(member)
    elif member.isdir():
        place.mkdir(parents=True, exist_ok=True)
    elif member.isreg():
        place.parent.mkdir(parents=True, exist_ok=True)
        _copy(file, member, place)
    else:
        raise StartFailed(f"the job's files hold a device or pipe: {member.name}")


def _copy(file: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    source = file.extractfile(member)
    if source is None:
        raise StartFailed(f"the job's files cannot be read: {member.name}")
    # No set-user-id, nothing that others may write, always readable by its owner. The tar
    # module's own filter would do it too, but Python has it from 3.11.4 on only.
    mode = member.mode & 0o755 | 0o600
    place.unlink(missing_ok=True)  # a later member of the same name replaces the earlier one
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(place, flags, mode), "wb") as copy:
        shutil.copyfileobj(source, copy)


def _link(member: tarfile.TarInfo, target: Path) -> None:
    place = _inside(target, member.name)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.parent.resolve() != place.parent:
        raise _escapes(member.name)  # it would be made through another link
    if member.islnk():
        os.link(_inside(target, member.linkname), place, follow_symlinks=False)
        return
    if not _stays(PurePosixPath(member.name).parent, PurePosixPath(member.linkname)):
        raise _escapes(member.name)
    place.symlink_to(member.linkname)


def _stays(folder: PurePosixPath, link: PurePosixPath) -> bool:
    """Whether a link in `folder` stays below the root, whatever its parts may be links to.

    `..` is allowed only in front, where it climbs real folders; after a name it would climb from
    wherever that name leads.
    """
    names = [part != ".." for part in link.parts]
    climbs = names.count(False)
    return not link.is_absolute() and climbs <= len(folder.parts) and sorted(names) == names


def _inside(target: Path, name: str) -> Path:
    """The place of `name` below `target`."""
    parts = PurePosixPath(name).parts
    if ".." in parts or "/" in parts or "\0" in name:
        raise _escapes(name)
    return target.joinpath(*parts)


def _escapes(name: str) -> StartFailed:
    return StartFailed(f"the job's files hold a path or link that leaves their folder: {name!r}")
