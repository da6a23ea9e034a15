"""Unpacks a customer's files. The archive is hostile until proven otherwise."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from zlib import error as zlib_error

from dusuan.engines.base import StartFailed

_MEMBERS_MAX = 200_000
_LINKS_MAX = 50_000  # they are kept in memory until the files are there
_NAME_CHARS_MAX = 4_096
# tarfile takes a whole header into memory, and an archive may say of itself that it has gigabytes.
_HEADER_BYTES_MAX = 65_536
# The machine's fault, and none of the archive's.
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)
# RecursionError: headers of headers, which tarfile takes one inside the other.
_UNREADABLE = (
    tarfile.TarError,
    zlib_error,
    EOFError,
    OSError,
    UnicodeError,
    ValueError,
    RecursionError,
)


def unpack(archive: Path, target: Path, bytes_max: int) -> None:
    """Unpack the gzip tar `archive` into the empty folder `target` (a path without links).

    Links are made after every file has been written, so that no file is ever written through
    one. Raises StartFailed, with the member's name, for anything that would leave `target`, is
    no file, folder or link, or passes `bytes_max` in all; OSError where the machine fails it.
    """
    try:
        with gzip.open(archive) as plain:
            _unpack(_Stream(plain, bytes_max), target, bytes_max)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno in _OURS:
            raise
        raise StartFailed(f"the job's files cannot be unpacked: {error}") from error


def _unpack(stream: _Stream, target: Path, bytes_max: int) -> None:
    links: list[tarfile.TarInfo] = []
    bytes_total = 0
    for count, (file, member) in enumerate(_members(stream)):
        bytes_total += member.size
        if bytes_total > bytes_max or count >= _MEMBERS_MAX or len(links) > _LINKS_MAX:
            raise _too_large()
        _member(file, member, target, links)
    # Hard links first: their sources are files, and no symbolic link is in the way yet.
    for member in sorted(links, key=tarfile.TarInfo.issym):
        _link(member, target)


class _Stream(io.RawIOBase):
    """The unpacked bytes of an archive for `tarfile`, with an end to them.

    Inside `in_header`, no more than `_HEADER_BYTES_MAX` may be read. Raises StartFailed beyond
    that, and where the whole is larger than `bytes_max` and all headers can be.
    """

    def __init__(self, file: gzip.GzipFile, bytes_max: int) -> None:
        self._file = file
        self._end = bytes_max + _MEMBERS_MAX * 4 * tarfile.BLOCKSIZE
        self._header_left: int | None = None

    @contextmanager
    def in_header(self) -> Iterator[None]:
        """While one member's headers are read."""
        self._header_left = _HEADER_BYTES_MAX
        yield
        self._header_left = None

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        if self._header_left is not None:
            if not 0 <= size <= self._header_left:
                raise StartFailed("the job's files cannot be unpacked: a header is too large")
            self._header_left -= size
        data = self._file.read(size)
        if self._file.tell() > self._end:
            raise _too_large()
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go forward, which reads what is between."""
        if offset > self._end:
            raise _too_large()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """How many bytes have been read or skipped."""
        return self._file.tell()


def _members(stream: _Stream) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every member, each with the open archive, which remembers none of them."""
    with stream.in_header():
        file = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 # it holds nothing of its own
    while True:
        with stream.in_header():
            member = file.next()
        if member is None:
            return
        if member.size < 0:
            raise StartFailed(f"the job's files hold a size below nothing: {member.name}")
        file.members.clear()  # type: ignore[attr-defined] # it is not in its types
        yield file, member


def _too_large() -> StartFailed:
    return StartFailed("the job's files are too large to unpack")


def _member(
    file: tarfile.TarFile, member: tarfile.TarInfo, target: Path, links: list[tarfile.TarInfo]
) -> None:
    place = _inside(target, member.name)
    if member.issym() or member.islnk():
        member.pax_headers = {}
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
    if len(name) > _NAME_CHARS_MAX:
        raise StartFailed("the job's files hold a name that is too long")
    return target.joinpath(*parts)


def _escapes(name: str) -> StartFailed:
    return StartFailed(f"the job's files hold a path or link that leaves their folder: {name!r}")
