"""A multilayer perceptron in NumPy, single precision, with every matrix product counted.

FLOP are those of the matrix products, two per multiply-add, which is over 99 % of the work here;
element-wise work (ReLU, softmax, the optimiser) is left out, as is the custom.

Each batch is cut into chunks, which as many threads work off as the platform allows
(`OMP_NUM_THREADS`), each with a single-threaded BLAS: a thread that is held up by other work on the
host takes fewer chunks, where threads inside one matrix product would all wait for it.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

THREADS = max(1, int(os.environ.get("OMP_NUM_THREADS") or 1))
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # has to stand before NumPy is there

import numpy as np  # noqa: E402 - see above

LAYERS = (64, 1024, 1024, 10)
BATCH = 1024
CHUNK = 256
LEARNING_RATE = 0.1
MOMENTUM = 0.9
SEED = 20240607
HELD_OUT = 360  # of the 1,797 digits; the rest is for training


def forward_flop(rows: int) -> int:
    """FLOP of one forward pass over `rows` samples."""
    return sum(2 * rows * inputs * outputs for inputs, outputs in itertools.pairwise(LAYERS))


def step_flop(rows: int) -> int:
    """FLOP of one training step: forward, weight gradients, and input gradients past layer one."""
    return 3 * forward_flop(rows) - 2 * rows * LAYERS[0] * LAYERS[1]


@dataclass
class Data:
    """Handwritten digits as rows of 64 pixels in 0..1, split once and for all by `SEED`."""

    train_x: np.ndarray
    train_y: np.ndarray
    held_out_x: np.ndarray
    held_out_y: np.ndarray


def load_data() -> Data:
    """The digits that ship with scikit-learn (UCI, 1,797 images of 8 x 8).

    The file is read straight from the package: importing all of scikit-learn takes seconds.
    Raises `ModuleNotFoundError` when the package is not there.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("scikit-learn is needed: it carries the digits")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    pixels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(pixels))
    x, y = pixels[order] / np.float32(16), labels[order]
    return Data(x[HELD_OUT:], y[HELD_OUT:], x[:HELD_OUT], y[:HELD_OUT])


@dataclass
class Training:
    """All that a training run is: weights, momentum, step, FLOP done, and the random state."""

    rng: np.random.Generator
    weights: list[np.ndarray]
    momentum: list[np.ndarray]
    step: int = 0
    flop: int = 0
    loss: float = float("nan")


def start() -> Training:
    """A fresh run, the same every time."""
    rng = np.random.default_rng(SEED)
    weights: list[np.ndarray] = []
    for inputs, outputs in itertools.pairwise(LAYERS):
        scale = np.float32(np.sqrt(2 / inputs))
        weights.append(rng.standard_normal((inputs, outputs), dtype=np.float32) * scale)
        weights.append(np.zeros(outputs, dtype=np.float32))
    return Training(rng, weights, [np.zeros_like(weight) for weight in weights])


@dataclass
class Worker:
    """One thread's memory, used again at every step: fresh pages would cost a tenth of the time."""

    buffers: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)
    gradients: list[np.ndarray] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)
    loss: float = 0.0

    def product(self, name: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """`left @ right`, in the buffer called `name`."""
        key = (name, left.shape[0], right.shape[1])
        if key not in self.buffers:
            self.buffers[key] = np.empty(key[1:], dtype=np.float32)
        return np.matmul(left, right, out=self.buffers[key])

    def add_product(self, layer: int, left: np.ndarray, right: np.ndarray) -> None:
        """Add `left @ right` to the sum of a layer's gradients."""
        if layer in self.begun:
            self.gradients[layer] += self.product(f"gradient{layer}", left, right)
        else:
            self.begun.add(layer)
            np.matmul(left, right, out=self.gradients[layer])

    def begin(self, weights: list[np.ndarray]) -> None:
        """Forget the last batch."""
        if not self.gradients:
            self.gradients = [np.zeros_like(weight) for weight in weights]
        for bias in self.gradients[1::2]:
            bias.fill(0)
        self.begun.clear()
        self.loss = 0.0


_workers = [Worker() for _ in range(THREADS)]
_pool = ThreadPoolExecutor(THREADS)


def _forward(worker: Worker, weights: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """The input and the output of every layer; the last are the logits."""
    values = [x]
    for layer in range(0, len(weights), 2):
        out = worker.product(f"value{layer}", values[-1], weights[layer])
        out += weights[layer + 1]
        if layer + 2 < len(weights):
            np.maximum(out, 0, out=out)
        values.append(out)
    return values


def _loss_and_gradient(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """These rows' part of the batch's mean cross entropy, and its gradient by the logits."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    loss = float(np.sum(np.log(sums[:, 0]) - shifted[rows, labels])) / BATCH
    gradient = exponentials / sums
    gradient[rows, labels] -= 1
    gradient /= np.float32(BATCH)
    return loss, gradient


def _backward(
    worker: Worker, weights: list[np.ndarray], values: list[np.ndarray], gradient: np.ndarray
) -> None:
    """Add the gradients by weights and biases to the worker's sums."""
    for layer in range(len(weights) - 2, -1, -2):
        below = values[layer // 2]
        worker.add_product(layer, below.T, gradient)
        worker.gradients[layer + 1] += gradient.sum(axis=0)
        if layer > 0:  # nothing is below the first layer, so its input gradient is never needed
            gradient = worker.product(f"below{layer}", gradient, weights[layer].T)
            gradient *= below > 0


def _work_off(worker: Worker, run: Training, data: Data, chunks: Iterator[np.ndarray]) -> Worker:
    """Take chunks of the batch until none is left."""
    worker.begin(run.weights)
    for rows in chunks:
        values = _forward(worker, run.weights, data.train_x[rows])
        loss, gradient = _loss_and_gradient(values[-1], data.train_y[rows])
        worker.loss += loss
        _backward(worker, run.weights, values, gradient)
    return worker


def train_step(run: Training, data: Data) -> None:
    """One step of SGD with momentum on a random batch."""
    picked = run.rng.permutation(len(data.train_x))[:BATCH]
    chunks = iter([picked[n : n + CHUNK] for n in range(0, BATCH, CHUNK)])
    jobs = [_pool.submit(_work_off, worker, run, data, chunks) for worker in _workers]
    done = [worker for job in jobs if (worker := job.result()).begun]
    run.loss = sum(worker.loss for worker in done)
    for layer, (weight, momentum) in enumerate(zip(run.weights, run.momentum, strict=True)):
        momentum *= np.float32(MOMENTUM)
        for worker in done:
            momentum += worker.gradients[layer]
        weight -= np.multiply(momentum, np.float32(LEARNING_RATE), out=done[0].gradients[layer])
    run.step += 1
    run.flop += step_flop(BATCH)


def accuracy(run: Training, data: Data) -> float:
    """Share of the held-out digits that are read correctly."""
    logits = _forward(_workers[0], run.weights, data.held_out_x)[-1]
    run.flop += forward_flop(len(data.held_out_x))
    return float(np.mean(logits.argmax(axis=1) == data.held_out_y))


def save(run: Training, path: Path) -> None:
    """Write `run` to `path`, all or nothing: a reader never sees half a checkpoint."""
    state = {"step": run.step, "flop": run.flop, "rng": run.rng.bit_generator.state}
    arrays = {f"weight{n}": array for n, array in enumerate(run.weights)}
    arrays |= {f"momentum{n}": array for n, array in enumerate(run.momentum)}
    _write_arrays(path, state=np.array(json.dumps(state)), **arrays)


def save_model(run: Training, path: Path) -> None:
    """Write the trained weights alone."""
    _write_arrays(path, **{f"weight{n}": array for n, array in enumerate(run.weights)})


def _write_arrays(path: Path, **arrays: np.ndarray) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> Training:
    """The run that `save` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        state = json.loads(str(saved["state"]))
        count = 2 * (len(LAYERS) - 1)
        weights = [saved[f"weight{n}"] for n in range(count)]
        momentum = [saved[f"momentum{n}"] for n in range(count)]
    rng = np.random.default_rng()
    rng.bit_generator.state = state["rng"]
    return Training(rng, weights, momentum, state["step"], state["flop"])
