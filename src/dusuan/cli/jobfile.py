"""Job files and work directories: read, packed, sent. What they mean is the platform's to say."""

from __future__ import annotations

import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dusuan.cli.failures import Failure, usage
from dusuan.cli.session import Session

JOB_FILE_BYTES_MAX = 1_048_576
SKIPPED = frozenset({".git", "__pycache__", ".dusuan"})
PLATFORM_KEY = "operator.key"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job ready to be quoted or submitted. `sized`: it says enough for a quote to size it."""

    text: str
    name: str
    where: str
    upload_id: str | None
    sized: bool
    warnings: tuple[str, ...]

    def request(self, account: str) -> dict[str, str | None]:
        """The body of a request about it."""
        return {
            "account": account,
            "job": self.text,
            "name": self.name,
            "upload_id": self.upload_id,
        }


def read(path: Path) -> str:
    """The text of a job file. Raises `Failure` when it is none."""
    where = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(JOB_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise usage("no_job_file", "there is no such job file", "check its path", where) from None
    except IsADirectoryError:
        remedy = f"name the file, such as {path / 'job.yaml'}"
        raise usage("job_file_is_a_folder", "this is a directory", remedy, where) from None
    except (OSError, ValueError) as error:
        text = f"the job file cannot be read: {getattr(error, 'strerror', None) or error}"
        raise usage("unreadable_job_file", text, "check its path and mode", where) from None
    if len(data) > JOB_FILE_BYTES_MAX:
        text = f"the job file has more than {JOB_FILE_BYTES_MAX:,} bytes"
        remedy = "put data and programs into its workdir"
        raise usage("job_file_too_large", text, remedy, where)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        text = f"the job file is not UTF-8 text (byte {error.start})"
        raise usage("job_file_not_text", text, "save it as UTF-8", where) from None


def prepare(session: Session, text: str, name: str, where: str, folder: Path) -> Prepared:
    """Let the platform read the job, then pack and upload its workdir if it has one.

    `where` is how errors call the job file, `folder` is what its workdir is relative to.
    """
    checked = session.client.post("/v1/jobs/check", {"job": text, "name": name}, where)
    for warning in checked["warnings"]:
        session.say(f"warning: {warning}")
    upload_id = None
    if checked["workdir"] is not None:
        workdir = folder / Path(checked["workdir"]).expanduser()
        upload_id = _send(session, workdir, checked["upload_bytes_max"], where)
    return Prepared(text, name, where, upload_id, checked["sized"], tuple(checked["warnings"]))


def _send(session: Session, workdir: Path, bytes_max: int, where: str) -> str:
    if not workdir.is_dir():
        text = f"its workdir {str(workdir)!r} is no directory"
        raise usage("no_workdir", text, "it is relative to the job file", where)
    with tempfile.TemporaryDirectory(prefix="dusuan-") as folder:
        archive = Path(folder) / "workdir.tar.gz"
        with session.busy("sending the workdir"):
            for left_out in pack(workdir, archive, bytes_max):
                session.say(f"left out: {left_out}")
            return session.client.upload(archive)


def command_file(command: list[str], name: str, workdir: str | None) -> str:
    """The job file of a plain command. JSON is YAML, once DEL is escaped."""
    document = {"name": name, "argv": command} | ({"workdir": workdir} if workdir else {})
    try:
        text = json.dumps(document, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        raise usage("not_text", "the command holds bytes that are no UTF-8 text") from None
    return text.replace("\x7f", "\\u007f")


def pack(folder: Path, archive: Path, bytes_max: int) -> list[str]:
    """Pack `folder` as a gzip tar; what was left out, and why.

    Raises `Failure` when the archive passes `bytes_max`.
    """
    root, left_out = folder.resolve(), []
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path in _walk(root):
            reason = _add(tar, root, path)
            if reason:
                left_out.append(f"{path.relative_to(root)}: {reason}")
            if archive.stat().st_size > bytes_max:
                raise _too_large(folder, bytes_max)
    if archive.stat().st_size > bytes_max:
        raise _too_large(folder, bytes_max)
    return left_out


def _walk(root: Path) -> Iterator[Path]:
    """Everything below `root` in a stable order, each directory before what is in it."""
    for parent, folders, files in os.walk(root):
        here = Path(parent)
        folders[:] = sorted(f for f in folders if f not in SKIPPED and not _platform(here / f))
        yield from (here / name for name in folders)
        yield from (here / name for name in sorted(files))


def _platform(folder: Path) -> bool:
    """Whether this is a platform's data directory, with its database and its operator's key."""
    return not folder.is_symlink() and (folder / PLATFORM_KEY).exists()


def _add(tar: tarfile.TarFile, root: Path, path: Path) -> str | None:
    """Add one path; why it was left out, or None."""
    try:
        str(path).encode()
        mode = path.lstat().st_mode
        info = tar.gettarinfo(path, str(path.relative_to(root)))
    except (OSError, UnicodeEncodeError) as error:
        return f"it cannot be read ({error.__class__.__name__})"
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if stat.S_ISLNK(mode):
        inside = _link_inside(root, path)
        if inside is None:
            return "a link that leads out of the workdir"
        info.linkname = inside
        tar.addfile(info)
    elif stat.S_ISDIR(mode):
        tar.addfile(info)
    elif stat.S_ISREG(mode):
        return _add_file(tar, info, path)
    else:
        return "neither a file nor a directory"
    return None


def _add_file(tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> str | None:
    # A hard link to an earlier file would be a link in the archive; a copy is simpler to trust.
    info.type, info.linkname = tarfile.REGTYPE, ""
    try:
        with path.open("rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, file)
    except PermissionError:
        return "it cannot be read (PermissionError)"
    except OSError as error:
        text = f"{path} changed while it was packed: {error}"
        raise Failure("workdir_changed", text, "try again when nothing writes to it") from None
    return None


def _link_inside(root: Path, link: Path) -> str | None:
    """Where a link leads, relative to itself with `..` only in front; None: out of `root`."""
    target = Path(os.path.normpath(link.parent / link.readlink()))
    if not target.is_relative_to(root) or not link.resolve().is_relative_to(root):
        return None
    return os.path.relpath(target, link.parent)


def _too_large(folder: Path, bytes_max: int) -> Failure:
    text = f"the workdir {str(folder)!r} packs to more than {bytes_max:,} bytes"
    remedy = "move data and environments out of it, and fetch them in `setup:`"
    return usage("workdir_too_large", text, remedy)
