"""Measures what the devices of this host sustain; the core turns that into ratings."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dusuan.engines.local.inventory import Found

_GEMM = Path(__file__).with_name("gemm.py")
_LOADS = Path(__file__).with_name("loads.py")
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


@dataclass(frozen=True, slots=True)
class Load:
    """One class of work measured on one device: windows in `unit`, or the reason there are none."""

    device: str
    class_: str
    values: tuple[float, ...] = ()
    unit: str = "gflops"
    precision: str = ""
    software: str = ""
    method: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


def measure_class(
    devices: Sequence[Found], class_: str, *, windows: int = 5, window_ms: int = 160
) -> list[Load]:
    """Measure one class of `loads.CLASSES` on all `devices` at once. Takes some 2 s."""
    start = time.monotonic() + _LOAD_S
    running = [_begin(found, windows, window_ms, start, class_) for found in devices]
    return [
        _load(found.device.device, class_, process)
        for found, process in zip(devices, running, strict=True)
    ]


def _load(device: str, class_: str, process: subprocess.Popen[bytes] | None) -> Load:
    if process is None:
        return Load(device, class_, reason="there is no measurement for this make yet")
    document = _said(process)
    if isinstance(document, str):
        return Load(device, class_, reason=document)
    if "reason" in document:
        return Load(device, class_, reason=str(document["reason"]))
    return Load(
        device=device,
        class_=class_,
        values=tuple(float(value) for value in document["values"]),
        **{name: document[name] for name in ("unit", "precision", "software", "method", "detail")},
    )


def _said(process: subprocess.Popen[bytes]) -> dict[str, Any] | str:
    """What a measuring process printed, or why it printed nothing."""
    said = _heard(process)
    return said if isinstance(said, str) else _document(*said)


def _heard(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes] | str:
    """Output and complaints of a measuring process, or that it took too long."""
    try:
        return process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"the measurement took longer than {_PATIENCE_S} s"


def _document(output: bytes, complaints: bytes) -> dict[str, Any] | str:
    try:
        document: dict[str, Any] = json.loads(output)
    except ValueError:
        last = complaints.decode(errors="replace").strip().splitlines()[-1:]
        return f"the measurement failed: {last[0] if last else 'no output'}"
    return document


def gemm_argv(found: Found, windows: int, window_ms: int, start: float) -> list[str] | None:
    """The command that measures one device; None when there is no way to measure it."""
    place = [str(windows), str(window_ms), repr(start)]
    if found.device.kind == "cpu":
        return [sys.executable, str(_GEMM), "cpu", str(found.device.index), *place]
    if found.device.make.lower() == "nvidia":
        return [sys.executable, str(_GEMM), "cuda", found.visible, *place]
    return None


def _begin(
    found: Found, windows: int, window_ms: int, start: float, class_: str | None = None
) -> subprocess.Popen[bytes] | None:
    argv = gemm_argv(found, windows, window_ms, start)
    if argv is None:
        return None
    if class_ is not None:
        argv = [argv[0], str(_LOADS), class_, *argv[2:]]
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _outcome(device: str, process: subprocess.Popen[bytes] | None) -> Calibration | Uncalibrated:
    if process is None:
        return Uncalibrated(device, "there is no measurement for this make yet")
    said = _heard(process)
    return Uncalibrated(device, said) if isinstance(said, str) else parse_outcome(device, *said)


def parse_outcome(device: str, output: bytes, complaints: bytes) -> Calibration | Uncalibrated:
    """What one measuring process said."""
    document = _document(output, complaints)
    if isinstance(document, str):
        return Uncalibrated(device, document)
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
