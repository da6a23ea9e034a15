"""Progress read from the log of a script that knows nothing of the platform."""

from __future__ import annotations

import time

import pytest
from engine_harness import Driver, LocalHarness, Program

from dusuan.shepherd.pattern import Pattern
from dusuan.sim.engine import Behaviour


def read(pattern: str, *pieces: bytes, total: float | None = None) -> Pattern:
    reader = Pattern(pattern, total)
    for piece in pieces:
        reader.feed(piece)
    reader.poll()
    return reader


@pytest.mark.parametrize(
    ("pattern", "log", "total", "progress"),
    [
        (r"step (\d+)/(\d+)", b"step 3/10\nstep 4/10\nloss 0.5\n", None, [4.0, 10.0]),
        (r"step (\d+)/(\d+)", b"step 3/10\nstep 4/1", None, [3.0, 10.0]),  # not a whole line yet
        (r"(\d+)%", b" 12%|#  |\r 45%|## |\r", 100.0, [45.0, 100.0]),
        (r"epoch ([\d.]+)", b"epoch 1.5\n", None, [1.5, 0.0]),
        (r"tokens ([\d,]+)", b"tokens 1,234,567\n", 2e6, [1_234_567.0, 2e6]),
        (r"step (\S+)", b"step 7\nstep nan\nstep -3\nstep x\n", None, [7.0, 0.0]),
        (r"step (\d+)(?: of (\d+))?", b"step 7\n", 9.0, [7.0, 9.0]),
        (r"step (\d+)", b"nothing of the kind\n", None, None),
        (r"step (\d+)", b"\xff\x00 step 2\n", None, [2.0, 0.0]),
    ],
)
def test_the_last_match_counts(
    pattern: str, log: bytes, total: float | None, progress: list[float] | None
) -> None:
    assert read(pattern, log, total=total).progress == progress


def test_a_match_may_come_in_pieces() -> None:
    reader = read(r"step (\d+)", b"st", b"ep 1", b"2\n")
    assert reader.progress == [12.0, 0.0]


def test_a_pattern_that_never_ends_is_given_up_in_time() -> None:
    reader = Pattern(r"(x+x+)+(\d)", None)
    reader.feed(b"x" * 1_000 + b"\n")
    began_s = time.monotonic()
    reader.poll()
    assert time.monotonic() - began_s < 2
    assert "took too long" in reader.failure
    reader.feed(b"xx1\n")
    reader.poll()
    assert reader.progress is None


def test_a_flood_is_read_at_its_end() -> None:
    reader = Pattern(r"step (\d+)", None)
    began_s = time.monotonic()
    for n in range(2_000):
        reader.feed(b"step %d\n" % n * 1_000)
    reader.poll()
    assert reader.progress == [1_999.0, 0.0]
    assert time.monotonic() - began_s < 5


def test_a_foreign_scripts_progress_and_memory_reach_the_journal(
    local: LocalHarness,
) -> None:
    script = (
        'python -c "\nimport time\nblock = bytearray(96 << 20)\n'
        "for i in range(5):\n    print(f'step {i + 1}/5', flush=True)\n    time.sleep(0.1)\n\""
    )
    driver = Driver(local)
    story = driver.finished(
        driver.start(Program(script, Behaviour()), progress_pattern=r"step (\d+)/(\d+)")
    )
    assert story.end.progress == (5.0, 5.0)
    seen = {r.progress for r in story.records if r.progress}
    assert len(seen) > 1  # it was followed, not only read at the end
    assert story.end.peak_mib is not None
    assert 96 <= story.end.peak_mib < 400
