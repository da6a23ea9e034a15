"""Job files that cannot be read, and work directories: what is packed, and what is left out."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from tests.cli.conftest import Command

from dusuan.cli.failures import Failure
from dusuan.cli.jobfile import pack
from dusuan.engines.local.archive import unpack

MIB = 1_048_576


@pytest.fixture
def funded(dusuan: Command) -> Command:
    dusuan.centre.organisation("acme", 1)
    return dusuan


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (None, "no_job_file", None),
        (b"", None, None),
        (b"run: [", None, None),
        (b"run: a\nrum: b\n", "unknown_key", 2),
        (b"run: a\npriority: high\n", "wrong_type", 2),
        (b"run: \xff\xfe\n", "job_file_not_text", None),
        (b"run: a\n#" + b"x" * MIB, "job_file_too_large", None),
        (b"run: a\nworkdir: nowhere\n", "no_workdir", None),
        (b"run: a\nresources: {accelerators: Z9}\n", "no_such_device", None),
        (b"run: a\nresources: {cpus: 99}\n", "too_many_devices", None),
    ],
)
@pytest.mark.parametrize("command", ["submit", "quote"])
def test_bad_job_files(
    funded: Command, command: str, content: bytes | None, code: str | None, line: int | None
) -> None:
    if content is not None:
        Path("job.yaml").write_bytes(content)
    exit_code, problem = funded.problem(command, "job.yaml")
    assert exit_code == 2, problem
    assert problem["where"] == "job.yaml"
    if code is not None:
        assert (problem["code"], problem.get("line")) == (code, line)
    told = funded(command, "job.yaml")
    assert told.exit_code == 2
    assert "where: job.yaml" in told.stderr
    assert (f"line {line}" in told.stderr) == (line is not None)
    assert "Traceback" not in told.output


def test_a_directory_is_no_job_file(funded: Command) -> None:
    Path("job.yaml").mkdir()
    assert funded.problem("submit", "job.yaml")[1]["code"] == "job_file_is_a_folder"


def test_a_name_with_a_nul_character(funded: Command) -> None:
    assert funded("submit", "a\0b").exit_code == 2


def test_a_workdir_reaches_the_engine(funded: Command) -> None:
    Path("sub/src").mkdir(parents=True)
    Path("sub/src/train.py").write_text("print()")
    Path("sub/job.yaml").write_text("run: a\nworkdir: src\n")
    funded.json("submit", "sub/job.yaml")
    [run] = funded.centre.engine.runs.values()
    assert run.order.files is not None
    with tarfile.open(run.order.files) as tar:
        assert tar.getnames() == ["train.py"]


def test_a_workdir_that_is_too_large(funded: Command) -> None:
    object.__setattr__(funded.centre.platform.limits, "upload_bytes", 50_000)
    Path("data").write_bytes(os.urandom(60_000))
    Path("job.yaml").write_text("run: a\nworkdir: .\n")
    code, problem = funded.problem("submit", "job.yaml")
    assert (code, problem["code"]) == (2, "workdir_too_large")
    assert list(funded.centre.platform.uploads.iterdir()) == []


def tree(folder: Path) -> None:
    """A work directory with something of everything."""
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_text("file")
    (folder / "空").write_text("名")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    os.link(folder / "run.sh", folder / "twice.sh")
    for skipped in (".git", "__pycache__", "a/__pycache__", ".dusuan", "platform"):
        (folder / skipped).mkdir()
        (folder / skipped / "x").write_text("x")
    (folder / "platform/operator.key").write_text("dk_secret")
    os.mkfifo(folder / "pipe")
    links = {
        "in": "a/b/file",
        "a/b/up": "../../run.sh",
        "a/round": "b/../b/file",
        "absolute": str(folder / "a"),
        "dangling": "a/none",
        "out": "../outside",
        "root": "/etc/passwd",
        "a/through": "../out/x",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)


def test_what_is_packed(tmp_path: Path) -> None:
    folder, target = tmp_path / "work", tmp_path / "out"
    folder.mkdir()
    target.mkdir()
    tree(folder)
    left_out = pack(folder, tmp_path / "x.tar.gz", MIB)
    unpack(tmp_path / "x.tar.gz", target, MIB)  # the engine takes what the client sends
    names = {str(path.relative_to(target)) for path in target.rglob("*")}
    links = {"in", "a/b/up", "a/round", "absolute", "dangling"}
    files = {"a", "a/b", "a/b/file", "空", "run.sh", "twice.sh"}
    assert names - links - {n for n in names if n.startswith("absolute/")} == files
    assert links <= names
    assert (target / "run.sh").stat().st_mode & 0o111
    assert (target / "a/round").read_text() == "file"
    assert (target / "absolute").resolve() == (target / "a").resolve()
    said = {line.partition(":")[0] for line in left_out}
    assert said == {"pipe", "out", "root", "a/through"}


def test_a_folder_of_its_own_name_is_packed_alike(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    pack(tmp_path / "link", tmp_path / "x.tar.gz", MIB)
    with tarfile.open(tmp_path / "x.tar.gz") as tar:
        assert tar.getnames() == ["file"]
        assert {(m.uid, m.uname) for m in tar} == {(0, "")}


def test_the_limit_counts_the_archive(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/zeros").write_bytes(bytes(5 * MIB))
    assert pack(tmp_path / "work", tmp_path / "x.tar.gz", 50_000) == []
    (tmp_path / "work/noise").write_bytes(os.urandom(60_000))
    with pytest.raises(Failure, match="packs to more than"):
        pack(tmp_path / "work", tmp_path / "y.tar.gz", 50_000)


def test_warnings_are_told_on_the_side(funded: Command) -> None:
    Path("job.yaml").write_text("run: a\nfile_mounts: {}\n")
    result = funded("submit", "job.yaml")
    assert "warning: line 2: file_mounts" in result.stderr
    assert "warnings" in json.loads(funded("submit", "--json", "job.yaml").stdout)
