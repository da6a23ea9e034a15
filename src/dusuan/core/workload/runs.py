"""Rows of a table of training runs, read into what their device-hours rest on.

A model's shape is looked up by name; where the name is unknown, or the row's own parameter counts
say otherwise, a usual shape of the row's size is taken and said. Nothing measured is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from dusuan.core.catalog.accelerators import Accelerator, Match
from dusuan.core.workload import flops, goodput, guess, vision
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.cells import Row, number, word
from dusuan.core.workload.describe import BATCH_TOKENS, CHINCHILLA, SEQ_USUAL, Kind, Span, Work
from dusuan.core.workload.goodput import RunFeatures
from dusuan.core.workload.jobspec import Problem

FindDevice = Callable[[str, str], Match | Problem]


class Models(Protocol):
    """Architectures by name, such as `named.ModelTable`."""

    def known(self, name: str) -> Architecture | Problem | None:
        """The one in the table, or None."""

    def find(self, name: str) -> Architecture | Problem:
        """The one in the table, or one of the size that the name states."""


KINDS = ("dense", "moe", "vit", "dit", "cnn")
SEQ = {"vit": 256, "dit": 4_096}
DEVICES_USUAL = (8, 4_096)
PARAMS_TOLERANCE = 0.15
TOKENS_PER_PARAM_MAX = 1_000_000
EPOCHS = 90
IMAGES_PER_DEVICE, IMAGES_MAX = 256, 10**15
_EPOCHS = re.compile(r"(\d+)\s*epochs?", re.I)
# DeepSeek-V3, arXiv 2412.19437 section 3.3; Llama 4, Meta's announcement of 2025-04-05.
TRAINED_IN_FP8 = ("DeepSeek-V3", "Llama-4")
# Trained on the logits of larger models (Meta's model card of 2024-09-25 names 8B and 70B); the
# smaller teacher's forward pass over every token is what its published compute leaves room for.
TEACHERS = {"Llama-3.2-1B": "Llama-3.1-8B", "Llama-3.2-3B": "Llama-3.1-8B"}
_FP8_TFLOPS_MIN = 900.0  # cards of H100's class and above


@dataclass(frozen=True, slots=True)
class Run:
    """A training run as described: what its time and its memory rest on, and what was assumed."""

    features: RunFeatures
    work: Work
    device: Accelerator
    devices: int
    notes: tuple[str, ...]


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


def read(row: Row, find_device: FindDevice, models: Models) -> Run | Problem:
    """The run that a row describes, or what is missing."""
    try:
        return _read(row, find_device, models)
    except _Refused as refused:
        return refused.problem


def _read(row: Row, find_device: FindDevice, models: Models) -> Run:
    notes: list[str] = []
    device = _device(row, find_device, notes)
    kind = _kind(row)
    if kind == goodput.VISION_CONVOLUTION:
        return _convolution(row, device, notes)
    model = _model(row, kind, models, notes)
    if kind == "dense" and model.is_moe:
        kind = "moe"
    seq = round(_number(row, "seq_len"))
    if not seq:
        seq = SEQ.get(kind, SEQ_USUAL)
        notes.append(f"sequences of {seq:,} tokens are assumed")
    tokens = _tokens(row, model, notes)
    devices = _devices(row, model, notes)
    counted = _counted_seq(kind, seq, notes)
    flop = flops.training(model, tokens, counted)
    features = RunFeatures(
        flop=float(flop + _teaching(model, tokens, counted, models, notes)),
        params_active=float(model.params_active),
        peak_tflops=_peak(device),
        bandwidth_gbs=device.bandwidth_gbs,
        kind=kind,
        devices=devices,
        fp8=_fp8(model, device, notes),
    )
    work = Work(model, Kind.TRAIN, _known(tokens), seq, max(1, BATCH_TOKENS // seq))
    return Run(features, work, device, devices, tuple(notes))


def _teaching(model: Architecture, tokens: int, seq: int, models: Models, notes: list[str]) -> int:
    """FLOP of the forward passes of the model that this one was distilled from, if any."""
    teacher = models.known(TEACHERS.get(model.name, "")) if model.basis == "named" else None
    if not isinstance(teacher, Architecture):
        return 0
    notes.append(f"distilled: a forward pass of {teacher.name} over every token is counted")
    return flops.training(teacher, tokens, seq) // 3


def _device(row: Row, find_device: FindDevice, notes: list[str]) -> Accelerator:
    name, variant = word(row, "hardware"), word(row, "hw_variant")
    if not name:
        raise _Refused(Problem("no_hardware", "hardware is blank", remedy="name an accelerator"))
    match = find_device(name, variant)
    if isinstance(match, Problem) and variant:
        plain = find_device(name, "")
        if isinstance(plain, Match):
            notes.append(f"the variant {variant[:40]!r} is not known")
            match = plain
    if isinstance(match, Problem):
        raise _Refused(match)
    if match.assumed:
        notes.append(match.assumed)
    return match.device


def _peak(device: Accelerator) -> float:
    peak = device.tflops("bf16") or device.tflops("fp16")
    if peak is None:
        words = f"{device.name}: dense BF16 or FP16 TFLOPS are not published"
        raise _Refused(Problem("unpublished", words, remedy="calibrate it"))
    return peak


def _kind(row: Row) -> str:
    given = word(row, "kind").lower()
    if given in KINDS:
        return given
    total, active = _number(row, "params_total_b"), _number(row, "params_active_b")
    return "moe" if 0 < active < 0.9 * total else "dense"


def _model(row: Row, kind: str, models: Models, notes: list[str]) -> Architecture:
    name = word(row, "model").split("(", 1)[0].strip()
    total = _number(row, "params_total_b") * 1e9
    active = _number(row, "params_active_b") * 1e9
    known = models.known(name) if name else None
    if isinstance(known, Architecture) and _agrees(known, total, active):
        notes.extend(known.notes)
        return known
    if total or active:
        made = guess.from_params(total or active, active or None, name)
    elif name:
        made = models.find(name)
    else:
        words = "neither a model nor a parameter count is given"
        made = Problem("unknown_model", words, remedy="fill model or params_total_b")
    if isinstance(made, Problem):
        raise _Refused(made)
    notes.extend(made.notes)
    return replace(made, causal=kind not in ("vit", "dit"))


def _agrees(model: Architecture, total: float, active: float) -> bool:
    pairs = ((model.params_total, total), (model.params_active, active))
    return all(not said or abs(own / said - 1) <= PARAMS_TOLERANCE for own, said in pairs)


def _tokens(row: Row, model: Architecture, notes: list[str]) -> int:
    tokens = round(_number(row, "tokens_b") * 1e9)
    if not tokens:
        tokens = CHINCHILLA * model.params_active
        notes.append(f"{tokens / 1e9:,.4g} billion tokens are assumed: {CHINCHILLA} each")
    if tokens > TOKENS_PER_PARAM_MAX * model.params_active:
        words = f"{tokens / 1e9:g} billion tokens is more than any run of this model has"
        raise _Refused(Problem("out_of_range", words, remedy="tokens_b counts billions"))
    return tokens


def _devices(row: Row, model: Architecture, notes: list[str]) -> int:
    devices = round(_number(row, "n_devices"))
    if not devices:
        low, high = DEVICES_USUAL
        usual = min(max(model.params_total / 1e9 * 32, low), high)
        devices = 2 ** round(usual).bit_length() // 2
        notes.append(f"{devices} devices are assumed")
    return devices


def _counted_seq(kind: str, seq: int, notes: list[str]) -> int:
    """Diffusion of video grows its resolution in stages: most tokens are in short sequences."""
    if kind != "dit" or seq <= SEQ["dit"]:
        return seq
    notes.append(f"trained in stages: sequences of {SEQ['dit']:,} on average are assumed")
    return SEQ["dit"]


def _fp8(model: Architecture, device: Accelerator, notes: list[str]) -> bool:
    """Whether its makers say that they trained it in FP8, and the card can."""
    said = model.basis == "named" and model.name.startswith(TRAINED_IN_FP8)
    if not said or (device.tflops("fp8") or 0.0) < _FP8_TFLOPS_MIN:
        return False
    notes.append("its matrix products run in FP8, as its report says")
    return True


def _convolution(row: Row, device: Accelerator, notes: list[str]) -> Run:
    name = word(row, "model")
    network = vision.named(name)
    if network is None or isinstance(network, Problem):
        words = f"the convolutional network {name[:60]!r} is not known"
        remedy = "known: resnet-18, -34, -50, -101, -152"
        raise _Refused(network or Problem("unknown_model", words, remedy=remedy))
    images = round(_number(row, "tokens_b") * 1e9)
    if not images:
        epochs = _EPOCHS.search(name)
        count = int(epochs[1]) if epochs else EPOCHS
        images = count * vision.IMAGENET_IMAGES
        notes.append(f"{count} epochs of ImageNet-1k are assumed: {images:,} images")
    if images > IMAGES_MAX:
        words = f"{images:,} images is more than any run of such a network sees"
        raise _Refused(Problem("out_of_range", words, remedy="tokens_b counts billions of images"))
    features = RunFeatures(
        flop=float(network.training_flop(images)),
        params_active=float(network.params),
        peak_tflops=_peak(device),
        bandwidth_gbs=device.bandwidth_gbs,
        kind=goodput.VISION_CONVOLUTION,
        devices=max(1, round(_number(row, "n_devices"))),
    )
    devices = features.devices or 1
    work = Work(network, Kind.VISION, _known(images), 1, IMAGES_PER_DEVICE * devices)
    return Run(features, work, device, devices, tuple(notes))


def _known(amount: int) -> Span:
    return Span(amount, amount, amount)


def _number(row: Row, name: str) -> float:
    value = number(row, name, 0.0)
    if isinstance(value, Problem):
        raise _Refused(value)
    return value
