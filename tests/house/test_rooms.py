"""Every room says what it is, stands in the import contract, and gives reasons for exemptions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dusuan"
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
README_LINES_MAX = 60
EXEMPTION = re.compile(r"#\s*(ruff: )?(noqa|type: ignore|pragma)\b[^#]*?(?P<reason>(#| - ).*)?$")


@pytest.mark.parametrize("room", ROOMS)
def test_room_says_what_comes_in_goes_out_and_is_never_there(room: str) -> None:
    readme = SOURCE / room / "README.md"
    assert readme.is_file(), f"write {readme.relative_to(ROOT)}: in, out, never"
    text = readme.read_text("utf-8").lower()
    assert text.count("\n") <= README_LINES_MAX
    for word in ("in", "out", "never"):
        assert re.search(rf"^[#*\-\s]*{word}\b", text, re.MULTILINE), f"no paragraph on '{word}'"


def test_import_contract_names_every_room() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    named: set[str] = set()
    for contract in settings["tool"]["importlinter"]["contracts"]:
        for line in [*contract.get("layers", []), *contract.get("source_modules", [])]:
            named |= {name.strip() for name in line.split("|")}
    assert {f"dusuan.{room}" for room in ROOMS} <= named


def test_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert not [room for room in ROOMS if f"`{room}`" not in text and f"{room}/" not in text]


def test_every_exemption_carries_its_reason_on_its_line() -> None:
    bare = []
    for folder in ("src", "tests", "bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
                match = EXEMPTION.search(line)
                if match and not match["reason"] and path != Path(__file__):
                    bare.append(f"{path.relative_to(ROOT)}:{number} {line.strip()}")
    assert not bare, "give the reason on the same line:\n" + "\n".join(bare)


def test_migrations_are_one_chain() -> None:
    """Two that were written side by side must not take the same place."""
    folder = SOURCE / "store" / "migrations" / "versions"
    found = {}
    for path in sorted(folder.glob("[0-9]*.py")):
        text = path.read_text("utf-8")
        own = re.search(r'^revision = "(\w+)"', text, re.MULTILINE)
        before = re.search(r'^down_revision = (?:"(\w+)"|None)', text, re.MULTILINE)
        assert own, path.name
        assert before, path.name
        assert path.name.startswith(own[1]), path.name
        assert own[1] not in found, f"{path.name}: the number is taken"
        found[own[1]] = before[1]
    expected = [None, *sorted(found)][:-1]
    assert [found[number] for number in sorted(found)] == expected
