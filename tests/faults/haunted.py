"""Shepherds at the mercy of a test: the real ones, with points at which a fault can strike."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "src"), str(_ROOT)]

from tests.faults import strikes  # noqa: E402 - the path has to be set first

from dusuan.shepherd import journal, loop, nursery  # noqa: E402 - the path has to be set first


def _data() -> Path:
    return Path.cwd().parents[2]  # DATA/engine/attempts/ID


_append = journal.Journal.append
_launch = loop.launch


def append(self: journal.Journal, kind: str, held_ms: int, body: dict[str, object]) -> bool:
    """Write a record, with a point before it, in the middle of it, and after it."""
    strikes.at(_data(), f"shepherd.{kind}.before")
    if _is_struck("torn", kind):
        whole = journal.line({**body, "n": 0, "kind": kind, "held_ms": held_ms, "wall_ms": 0})
        os.write(self._descriptor, whole[: len(whole) // 2])
        strikes.at(_data(), f"shepherd.{kind}.torn")
    done = _append(self, kind, held_ms, body)
    strikes.at(_data(), f"shepherd.{kind}.after")
    return done


def _is_struck(where: str, kind: str) -> bool:
    try:
        return f'"shepherd.{kind}.{where}"' in (_data() / strikes.FAULT).read_text()
    except OSError:
        return False


def launch(*args: object) -> object:
    """Start the keeper, with a point before and after."""
    strikes.at(_data(), "shepherd.launch.before")
    link = _launch(*args)  # type: ignore[arg-type] # handed on as it came
    strikes.at(_data(), "shepherd.launch.after")
    return link


journal.Journal.append = append  # type: ignore[method-assign] # this process only
loop.launch = launch  # type: ignore[assignment] # this process only

if __name__ == "__main__":
    nursery.main(sys.argv)
