"""Measures matrix multiplication on one device; run as a program by `calibration.py`.

`python gemm.py cpu CORE WINDOWS WINDOW_MS START` or `python gemm.py cuda VISIBLE WINDOWS WINDOW_MS
START`. START is the moment on the host's steady clock (seconds) to begin at, so that all devices
are measured under the load of all the others. Prints one JSON document:
`{"gflops": [...], "method": "...", "precision": "..."}`, or `{"reason": "..."}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

_CPU_SIZE = 1024
_CUDA_SIZE = 8192


def main(argv: list[str]) -> None:
    kind, name, windows, window_ms, start = argv[1], argv[2], int(argv[3]), int(argv[4]), argv[5]
    prepare = _cpu if kind == "cpu" else _cuda
    document = prepare(name, windows, window_ms / 1000, float(start))
    print(json.dumps(document))


def _cpu(core: str, windows: int, window_s: float, start: float) -> dict[str, object]:
    """FP32 GEMM on one core. One thread, set before NumPy loads its BLAS."""
    os.sched_setaffinity(0, [int(core)])
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    import numpy  # after the thread count is set

    left = numpy.ones((_CPU_SIZE, _CPU_SIZE), numpy.float32)
    out = numpy.empty_like(left)

    def multiply() -> None:
        numpy.matmul(left, left, out=out)

    rates = _measure(multiply, _CPU_SIZE, windows, window_s, start)
    method = f"NumPy {numpy.__version__} SGEMM n={_CPU_SIZE}, one thread, all cores at once"
    return {"gflops": rates, "method": method, "precision": "fp32"}


def _cuda(visible: str, windows: int, window_s: float, start: float) -> dict[str, object]:
    """BF16 GEMM with FP32 accumulation on one NVIDIA device."""
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    try:
        import torch  # type: ignore[import-not-found, unused-ignore] # optional, seconds to load
    except ImportError:
        return {"reason": "PyTorch is not installed, so this device stays uncalibrated"}
    if not torch.cuda.is_available():
        return {"reason": "PyTorch finds no usable CUDA device, so it stays uncalibrated"}
    # Random operands: a card draws less power, and clocks higher, on constant ones.
    left = torch.randn(_CUDA_SIZE, _CUDA_SIZE, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(left)

    def multiply() -> None:
        for _ in range(8):
            torch.matmul(left, left, out=out)
        torch.cuda.synchronize()

    rates = [8 * rate for rate in _measure(multiply, _CUDA_SIZE, windows, window_s, start)]
    method = f"PyTorch {torch.__version__} BF16 GEMM n={_CUDA_SIZE}"
    return {"gflops": rates, "method": method, "precision": "bf16"}


def _measure(
    multiply: Callable[[], None], size: int, windows: int, window_s: float, start: float
) -> list[float]:
    """GFLOPS of each window: 2 n^3 operations a product, counted over whole products."""
    multiply()  # the first one loads code and raises the clock
    while time.monotonic() < start:
        multiply()
    return [_window(multiply, size, window_s) for _ in range(windows)]


def _window(multiply: Callable[[], None], size: int, window_s: float) -> float:
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < window_s:
        multiply()
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - began) / 1e9


if __name__ == "__main__":
    main(sys.argv)
