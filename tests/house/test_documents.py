"""Documents are true: links resolve, make targets and commands exist, nothing of a workplace."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dusuan.cli import build
from dusuan.core.workload.jobfile import parse_job
from dusuan.core.workload.jobspec import Parsed
from dusuan.wiring import EmbeddedLauncher

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?dusuan +(\S.*)$", re.MULTILINE)
WORKPLACE = [f"/{name}/" for name in ("work", "root")]


def tracked() -> list[Path]:
    """Files of the repository; without git (a source archive), what is there."""
    try:
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        names = [name.decode() for name in listed.stdout.split(b"\0") if name]
    except (OSError, subprocess.CalledProcessError):
        hidden = re.compile(r"(^|/)\.|__pycache__")
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [str(path) for path in paths if not hidden.search(str(path))]
    return [path for name in names if (path := ROOT / name).is_file()]


DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]
each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


@each_document
def test_relative_links_resolve(document: Path) -> None:
    targets = LINK.findall(FENCE.sub("", document.read_text("utf-8")))
    local = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
    broken = [t for t in local if not (document.parent / t.partition("#")[0]).exists()]
    assert not broken


@each_document
def test_make_targets_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", document.read_text("utf-8"), re.M))
    assert named <= targets


def cli() -> Any:
    """The root command."""
    return typer.main.get_command(build(EmbeddedLauncher()))


def commands_said(text: str) -> Iterator[list[str]]:
    """Words after `dusuan` in code, up to a pipe, a comment, `;` or a redirection."""
    code = [*FENCE.findall(text), *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]
    for piece in code:
        for said in SAID.findall(piece):
            yield re.split(r"\s[#|>;&]|\s--\s", said + " ")[0].split()


def problem(command: Any, words: list[str]) -> str | None:
    """What is wrong with a command line as written in a document, or None."""
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    asked = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    unknown = asked - known - {"--help"}
    return f"no option {sorted(unknown)}" if unknown else None


@each_document
def test_commands_exist(document: Path) -> None:
    command = cli()
    wrong = {
        " ".join(words): why
        for words in commands_said(document.read_text("utf-8"))
        if words and (why := problem(command, words))
    }
    assert not wrong


def test_nothing_names_the_place_it_was_written_in() -> None:
    naming = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "ignore")
        naming += [f"{path.relative_to(ROOT)}: {word}" for word in WORKPLACE if word in text]
    assert not naming


def test_decision_records_have_their_parts() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [record.name[:4] for record in records]
    assert len(set(numbers)) == len(numbers), "two records have one number"
    for record in records:
        text = record.read_text("utf-8")
        missing = [part for part in ("## Context", "## Choice", "## Rejected") if part not in text]
        assert not missing, f"{record.name} lacks {missing}"


@each_document
def test_job_files_in_documents_are_understood(document: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)
    for block in blocks:
        if re.search(r"^run:", block, re.MULTILINE):
            understood = parse_job(block)
            assert isinstance(understood, Parsed), understood
            assert not understood.warnings
