"""Measures one class of work on one device; run as a program by `calibration.py`.

`python loads.py CLASS cpu CORE WINDOWS WINDOW_MS START`, or `… CLASS cuda VISIBLE …`, with START
the moment on the host's steady clock (seconds) to begin at, so that all devices are measured
under the load of all the others. Prints one JSON document: `{"values": [...], "unit": "gflops" or
"gbs", "precision": ..., "software": ..., "method": ..., "detail": {...}}`, or `{"reason": "..."}`.

CPU forms use NumPy on one thread, accelerators PyTorch. FLOP are those of the matrix products.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

CLASSES = ("gemm", "bandwidth", "train_step", "prefill", "decode")
_CPU_SIZES, _CUDA_SIZES = (256, 512, 1024), (1024, 4096, 8192)
_CPU_BYTES, _CUDA_BYTES = 32 << 20, 1 << 30
# hidden, feed-forward, tokens of a step, prompt, context of a decoded token
_CPU_MODEL = (512, 2048, 256, 256, 256)
_CUDA_MODEL = (4096, 16384, 8192, 2048, 2048)

Work = Callable[[], None]


def main(argv: list[str]) -> None:
    """Measure and print."""
    name, kind, device = argv[1:4]
    windows, window_s, start = int(argv[4]), int(argv[5]) / 1_000, float(argv[6])
    backend = _numpy(device) if kind == "cpu" else _torch(device)
    if isinstance(backend, str):
        print(json.dumps({"reason": backend}))
        return
    print(json.dumps(_measure(name, backend, windows, window_s, start)))


class Backend:
    """Arrays of one library on one device, and what they are called."""

    def __init__(self, library: Any, precision: str, software: str, on_cpu: bool) -> None:
        self.library = library
        self.precision = precision
        self.software = software
        self.on_cpu = on_cpu
        self.sizes = _CPU_SIZES if on_cpu else _CUDA_SIZES
        self.bytes = _CPU_BYTES if on_cpu else _CUDA_BYTES
        self.model = _CPU_MODEL if on_cpu else _CUDA_MODEL

    def matrix(self, rows: int, columns: int) -> Any:
        """Random operands: a card draws less power, and clocks higher, on constant ones."""
        if self.on_cpu:
            generator = self.library.random.default_rng(0)
            drawn = generator.standard_normal((rows, columns), dtype=self.library.float32)
            return drawn * 0.02
        return self.library.randn(rows, columns, device="cuda", dtype=self.library.bfloat16) * 0.02

    def wait(self) -> None:
        """Until what was asked for is done."""
        if not self.on_cpu:
            self.library.cuda.synchronize()


def _numpy(core: str) -> Backend:
    """NumPy on one core and one thread, which is set before it loads its BLAS."""
    os.sched_setaffinity(0, [int(core)])
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    import numpy  # after the thread count is set

    return Backend(numpy, "fp32", f"NumPy {numpy.__version__}", on_cpu=True)


def _torch(visible: str) -> Backend | str:
    """PyTorch on one accelerator, or why there is none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    try:
        import torch  # type: ignore[import-not-found, unused-ignore] # optional, seconds to load
    except ImportError:
        return "PyTorch is not installed, so this device stays uncalibrated"
    if not torch.cuda.is_available():
        return "PyTorch finds no usable CUDA device, so it stays uncalibrated"
    return Backend(torch, "bf16", f"PyTorch {torch.__version__}", on_cpu=False)


def _measure(
    name: str, backend: Backend, windows: int, window_s: float, start: float
) -> dict[str, Any]:
    work, amount, unit, method, detail = _LOADS[name](backend, window_s)
    work()
    backend.wait()  # the first one loads code and raises the clock
    while time.monotonic() < start:
        work()
        backend.wait()
    values = [_window(work, backend, window_s) * amount / 1e9 for _ in range(windows)]
    return {
        "values": values,
        "unit": unit,
        "precision": backend.precision,
        "software": backend.software,
        "method": method,
        "detail": detail,
    }


def _window(work: Work, backend: Backend, window_s: float) -> float:
    """Repetitions a second."""
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < window_s:
        work()
        backend.wait()
        count += 1
    return count / (time.perf_counter() - began)


Load = tuple[Work, float, str, str, dict[str, Any]]


def _product(backend: Backend, size: int) -> Work:
    left, right = backend.matrix(size, size), backend.matrix(size, size)
    out = backend.matrix(size, size)

    def work() -> None:
        backend.library.matmul(left, right, out=out)

    return work


def _gemm(backend: Backend, window_s: float) -> Load:
    """A sweep over sizes; the windows are of the largest, the rates of all are in the detail."""
    rates = {}
    for size in backend.sizes:
        work = _product(backend, size)
        work()
        backend.wait()
        rates[f"n{size}"] = round(_window(work, backend, window_s / 4) * 2 * size**3 / 1e9, 1)
    size = backend.sizes[-1]
    return _product(backend, size), 2.0 * size**3, "gflops", f"matrix product n={size}", rates


def _bandwidth(backend: Backend, _window_s: float) -> Load:
    """Reading two arrays and writing a third, each far larger than any cache."""
    columns = 1024
    width = 4 if backend.on_cpu else 2
    rows = backend.bytes // columns // width
    left, right, out = (backend.matrix(rows, columns) for _ in range(3))

    def work() -> None:
        backend.library.add(left, right, out=out)

    moved = 3.0 * rows * columns * width
    return work, moved, "gbs", f"add of {backend.bytes >> 20} MiB arrays", {}


def _train_step(backend: Backend, _window_s: float) -> Load:
    """Forward, backward and Adam of a feed-forward layer: 6 FLOP a weight and token."""
    hidden, inner, tokens, _, _ = backend.model
    x = backend.matrix(tokens, hidden)
    weights = [backend.matrix(hidden, inner), backend.matrix(inner, hidden)]
    first, second = [w * 0 for w in weights], [w * 0 for w in weights]

    def work() -> None:
        up = x @ weights[0]
        active = up * (up > 0)
        error = x + active @ weights[1] - x * 0.5
        grad_out = active.T @ error
        grad_up = (error @ weights[1].T) * (up > 0)
        for i, grad in enumerate((x.T @ grad_up, grad_out)):
            first[i] *= 0.9
            first[i] += 0.1 * grad
            second[i] *= 0.99
            second[i] += 0.01 * grad * grad
            weights[i] -= 1e-4 * first[i] / (second[i] ** 0.5 + 1e-6)
        _ = grad_up @ weights[0].T  # what a layer below would need

    flop = 6.0 * 2 * hidden * inner * tokens
    method = f"training step, {hidden} x {inner} x {tokens} tokens, Adam"
    return work, flop, "gflops", method, {}


def _block(backend: Backend) -> tuple[list[Any], Callable[[Any, Any, Any], Any]]:
    """One decoder block with one head: weights, and its forward over `x` with keys and values."""
    hidden, inner = backend.model[:2]
    weights = [backend.matrix(hidden, hidden) for _ in range(4)]
    weights += [backend.matrix(hidden, inner), backend.matrix(inner, hidden)]

    def forward(x: Any, keys: Any, values: Any) -> Any:
        scores = (x @ weights[0]) @ keys.T / hidden**0.5
        powers = backend.library.exp(scores - scores.max())
        mixed = (powers / powers.sum(-1)[:, None]) @ values
        x = x + mixed @ weights[3]
        up = x @ weights[4]
        return x + (up * (up > 0)) @ weights[5]

    return weights, forward


def _prefill(backend: Backend, _window_s: float) -> Load:
    """A prompt through one decoder block."""
    hidden, inner, _, prompt, _ = backend.model
    weights, forward = _block(backend)
    x = backend.matrix(prompt, hidden)

    def work() -> None:
        forward(x, x @ weights[1], x @ weights[2])

    flop = 2.0 * prompt * (4 * hidden * hidden + 2 * hidden * inner) + 4.0 * prompt**2 * hidden
    return work, flop, "gflops", f"prompt of {prompt} tokens through a block of {hidden}", {}


def _decode(backend: Backend, _window_s: float) -> Load:
    """One token at a time through one decoder block: bound by the bandwidth of its weights."""
    hidden, inner, _, _, context = backend.model
    weights, forward = _block(backend)
    x, keys, values = (backend.matrix(n, hidden) for n in (1, context, context))

    def work() -> None:
        x @ weights[1]
        x @ weights[2]
        forward(x, keys, values)

    flop = 2.0 * (4 * hidden * hidden + 2 * hidden * inner) + 4.0 * context * hidden
    return work, flop, "gflops", f"one token after {context} through a block of {hidden}", {}


_LOADS: dict[str, Callable[[Backend, float], Load]] = {
    "gemm": _gemm,
    "bandwidth": _bandwidth,
    "train_step": _train_step,
    "prefill": _prefill,
    "decode": _decode,
}


if __name__ == "__main__":
    main(sys.argv)
