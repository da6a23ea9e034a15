"""Measures what the devices of this host sustain; the core turns that into ratings."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dusuan.engines.local.inventory import Found

_GEMM = Path(__file__).with_name("gemm.py")
_LOAD_S = 1.0  # until the slowest process has its libraries
_PATIENCE_S = 120


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one device sustains on dense matrix products.

    `gflops_median` is the median of the windows. `spread` is (maximum - minimum) / median of them.
    `precision` is that of the operands, `method` what was run.
    """

    device: str
    gflops_median: int
    spread: float
    samples: tuple[float, ...]
    method: str
    precision: str


@dataclass(frozen=True, slots=True)
class Uncalibrated:
    """A device that could not be measured, and why."""

    device: str
    reason: str


def calibrate(
    devices: Sequence[Found], *, windows: int = 5, window_ms: int = 160
) -> list[Calibration | Uncalibrated]:
    """Measure all `devices` at once, as they are when the host is full. Takes some 2 s.

    No job may run on them meanwhile: it would be slowed, and the ratings would be too low.
    """
    start = time.monotonic() + _LOAD_S
    running = [_begin(found, windows, window_ms, start) for found in devices]
    return [
        _outcome(found.device.device, process)
        for found, process in zip(devices, running, strict=True)
    ]


def gemm_argv(found: Found, windows: int, window_ms: int, start: float) -> list[str] | None:
    """The command that measures one device; None when there is no way to measure it."""
    place = [str(windows), str(window_ms), repr(start)]
    if found.device.kind == "cpu":
        return [sys.executable, str(_GEMM), "cpu", str(found.device.index), *place]
    if found.device.make.lower() == "nvidia":
        return [sys.executable, str(_GEMM), "cuda", found.visible, *place]
    return None


def _begin(
    found: Found, windows: int, window_ms: int, start: float
) -> subprocess.Popen[bytes] | None:
    argv = gemm_argv(found, windows, window_ms, start)
    if argv is None:
        return None
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _outcome(device: str, process: subprocess.Popen[bytes] | None) -> Calibration | Uncalibrated:
    if process is None:
        return Uncalibrated(device, "there is no measurement for this make yet")
    try:
        output, complaints = process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Uncalibrated(device, f"the measurement took longer than {_PATIENCE_S} s")
    return parse_outcome(device, output, complaints)


def parse_outcome(device: str, output: bytes, complaints: bytes) -> Calibration | Uncalibrated:
    """What one measuring process said."""
    try:
        document: dict[str, Any] = json.loads(output)
    except ValueError:
        last = complaints.decode(errors="replace").strip().splitlines()[-1:]
        return Uncalibrated(device, f"the measurement failed: {last[0] if last else 'no output'}")
    if "reason" in document:
        return Uncalibrated(device, str(document["reason"]))
    samples = tuple(float(rate) for rate in document["gflops"])
    median = statistics.median(samples)
    return Calibration(
        device=device,
        gflops_median=round(median),
        spread=(max(samples) - min(samples)) / median,
        samples=samples,
        method=str(document["method"]),
        precision=str(document["precision"]),
    )
