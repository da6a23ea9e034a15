"""Functions stay short: at most 70 lines, nine in ten at most 25, and never longer than before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import measure


@pytest.fixture(scope="module")
def found() -> list[measure.Length]:
    return measure.lengths()


@pytest.mark.parametrize(("name", "limit"), [("max", 70), ("p90", 25)])
def test_functions_are_short(found: list[measure.Length], name: str, limit: int) -> None:
    allowed = min(limit, measure.ratchet()[name])
    longest = "\n".join(f"{length.lines:4} {length.where}" for length in found[:10])
    assert measure.summary(found)[name] <= allowed, f"{name} may be {allowed}; longest:\n{longest}"


def test_lengths_leave_out_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n')
    assert measure.lengths(tmp_path) == [measure.Length(2, "a.py:1 f")]
