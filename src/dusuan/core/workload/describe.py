"""What is to be computed, from what people say of it: defaults are filled in and told.

A model and little else is enough. Everything assumed is a sentence in `Work.assumptions`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from dusuan.core.workload import flops, guess
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.flops import LORA_RANK, Finetune
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.vision import VisionModel

Model = Architecture | VisionModel
TOKENS_MAX = 10**17
_DIGITS = r"[0-9]{1,30}(?:[._,0-9]{0,40})?|\.[0-9]{1,30}"
_AMOUNT = re.compile(rf"([+-]?(?:{_DIGITS})(?:e[+-]?[0-9]{{1,2}})?) ?([kmbgt]?)", re.I)
_NOT_FINITE = frozenset(("nan", "inf", "infinity"))
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
CHINCHILLA = 20  # tokens a parameter; Hoffmann et al., arXiv 2203.15556
RECENT_TOKENS, RECENT_RATIO = 15e12, 2_000  # Llama 3, arXiv 2407.21783: 15e12 for 8 B to 405 B
FINETUNE_TOKENS = (1e7, 1e8, 1e9)
SEQ_USUAL, BATCH_TOKENS = 4_096, 4 * 2**20
FINETUNE_BATCH = 64
PROMPT, OUTPUT, REQUESTS = 1_000, 500, 100_000
CONCURRENCY = 64


class Kind(StrEnum):
    """What is done with the model."""

    TRAIN = "train"
    FINETUNE = "finetune"
    BATCH = "batch"
    SERVE = "serve"
    VISION = "vision"


@dataclass(frozen=True, slots=True)
class Span:
    """An amount that is known (all three equal) or assumed within a range."""

    low: float
    middle: float
    high: float

    @property
    def known(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class Asked:
    """What was said; None where nothing was. Counts in tokens, sequences, images or requests."""

    model: Model | None = None
    params: float | None = None
    active_params: float | None = None
    kind: Kind | None = None
    tokens: float | None = None
    seq: int | None = None
    batch: int | None = None
    finetune: Finetune | None = None
    rank: int | None = None
    images: float | None = None
    samples: float | None = None
    epochs: float | None = None
    prompt: int | None = None
    output: int | None = None
    requests: float | None = None
    concurrency: int | None = None
    precision: str = "bf16"


@dataclass(frozen=True, slots=True)
class Work:
    """A workload with nothing left open. `amount` is tokens, images or requests by `kind`."""

    model: Model
    kind: Kind
    amount: Span
    seq: int
    batch: int
    method: Finetune = Finetune.FULL
    rank: int = LORA_RANK
    prompt: int = 0
    output: int = 0
    concurrency: int = 0
    precision: str = "bf16"
    weight_bits: float = 16.0
    assumptions: tuple[str, ...] = ()

    def flop(self, amount: float) -> int:
        """FLOP of the model for `amount` of the work: neither recomputed nor lost work counts."""
        if isinstance(self.model, VisionModel):
            return self.model.training_flop(round(amount))
        if self.kind in (Kind.BATCH, Kind.SERVE):
            return flops.generation(self.model, self.prompt, self.output) * round(amount)
        return flops.training(self.model, round(amount), self.seq, self.method, rank=self.rank)


def amount(text: str, what: str) -> float | Problem:
    """A count as people write it: `72e9`, `72B`, `1.5T`, `1,281,167`."""
    match = _AMOUNT.fullmatch(text.strip())
    cleaned = "" if match is None else match[1].replace(",", "").replace("_", "")
    if match is None or cleaned.count(".") > 1:
        code = "not_finite" if text.strip().lower().lstrip("+-") in _NOT_FINITE else "wrong_value"
        words = f"{what} is {text[:40]!r}, not a number"
        return Problem(code, words, remedy="write it like 72e9, 72B or 1.5T")
    return float(cleaned) * _SCALES[match[2].lower()]


def describe(asked: Asked) -> Work | Problem:
    """The workload, or what is missing or makes no sense."""
    wrong = _wrong_number(asked)
    model = _model(asked) if wrong is None else wrong
    if isinstance(model, Problem):
        return model
    odd = _of_another_kind(asked, model)
    if odd is not None:
        return odd
    if isinstance(model, VisionModel):
        return _vision(asked, model)
    kind = asked.kind or (Kind.FINETUNE if asked.finetune else Kind.TRAIN)
    if kind is Kind.VISION:
        words = f"{model.name} reads tokens, not images"
        return Problem("contradiction", words, remedy="such as --model vit-l/16 or resnet-50")
    if kind in (Kind.BATCH, Kind.SERVE):
        return _inference(asked, model, kind)
    return _training(asked, model, kind)


def _model(asked: Asked) -> Model | Problem:
    if asked.model is not None:
        return asked.model
    if asked.params is None:
        words = "neither a model nor a parameter count is given"
        remedy = "--model NAME, config.json, a safetensors or GGUF file, or --params 72e9"
        return Problem("missing_value", words, remedy=remedy)
    return guess.from_params(asked.params, asked.active_params)


_COUNTS = (
    *("tokens", "seq", "batch", "rank", "images", "samples", "epochs"),
    *("prompt", "output", "requests", "concurrency"),
)


def _wrong_number(asked: Asked) -> Problem | None:
    """The first amount that is no number above zero, or larger than anything."""
    for name in _COUNTS:
        value = getattr(asked, name)
        if value is None:
            continue
        if not math.isfinite(value):
            return Problem("not_finite", f"{name} is {value}, not a number")
        if value <= 0:
            words = f"{name} is {value:g}; it must be above zero"
            return Problem("out_of_range", words, remedy="leave it out for the default")
        if value > TOKENS_MAX:
            words = f"{name} is {value:.3g}, more than {TOKENS_MAX:.0e}"
            return Problem("out_of_range", words, remedy="check the unit")
    return None


_OF_TEXT = ("tokens", "seq", "prompt", "output", "requests", "concurrency", "rank")


def _of_another_kind(asked: Asked, model: Model) -> Problem | None:
    """An amount that this model has no use for, which would be left out without a word."""
    seen = isinstance(model, VisionModel)
    said = [n for n in (_OF_TEXT if seen else ("images",)) if getattr(asked, n) is not None]
    if not said:
        return None
    reads, remedy = (
        ("images", "--images, or --samples and --epochs")
        if seen
        else ("tokens", "--tokens, or --samples and --epochs")
    )
    words = f"{said[0]} is given, and {model.name} reads {reads}"
    return Problem("contradiction", words, remedy=f"say how much with {remedy}")


def _training(asked: Asked, model: Architecture, kind: Kind) -> Work | Problem:
    method = asked.finetune or Finetune.FULL
    seq, notes = _sequence(asked, model)
    amount, said = _tokens(asked, model, kind, seq)
    if asked.tokens is not None and asked.epochs is not None:
        amount, said = _times(amount, asked.epochs), f"{asked.epochs:g} passes over the tokens"
    usual = FINETUNE_BATCH if kind is Kind.FINETUNE else max(1, BATCH_TOKENS // seq)
    return Work(
        model=model,
        kind=kind,
        amount=amount,
        seq=seq,
        batch=asked.batch or usual,
        method=method,
        rank=asked.rank or LORA_RANK,
        precision=asked.precision,
        assumptions=tuple(filter(None, (*model.notes, said, *notes, _about(asked, method, usual)))),
    )


def _about(asked: Asked, method: Finetune, usual: int) -> str:
    batch = "" if asked.batch else f"a global batch of {usual:,} sequences"
    adapters = f"adapters of rank {asked.rank or LORA_RANK} on attention and feed-forward"
    return "; ".join(filter(None, (batch, adapters if method is not Finetune.FULL else "")))


def _times(span: Span, factor: float) -> Span:
    return Span(span.low * factor, span.middle * factor, span.high * factor)


def _sequence(asked: Asked, model: Architecture) -> tuple[int, list[str]]:
    if asked.seq is None:
        seq = min(SEQ_USUAL, model.context or SEQ_USUAL)
        return seq, [f"sequences of {seq:,} tokens"]
    if model.context is not None and asked.seq > model.context:
        return asked.seq, [f"sequences longer than the {model.context:,} tokens of its config"]
    return asked.seq, []


def _tokens(asked: Asked, model: Architecture, kind: Kind, seq: int) -> tuple[Span, str]:
    """Tokens given, or samples of one sequence each, or the range that people usually train on."""
    given = asked.tokens
    if given is None and asked.samples is not None:
        given = asked.samples * seq * (asked.epochs or 1.0)
        return Span(given, given, given), f"{asked.samples:,.0f} samples of {seq:,} tokens"
    if given is not None:
        return Span(given, given, given), ""
    if kind is Kind.FINETUNE:
        low, middle, high = FINETUNE_TOKENS
        text = f"no tokens given: {low:.0e} to {high:.0e}, as fine-tuning sets have"
        return Span(low, middle, high), text
    active = model.params_active
    low = CHINCHILLA * active
    high = max(min(RECENT_TOKENS, RECENT_RATIO * active), 2 * low)
    text = (
        f"no tokens given: between {low:.3g} (20 a parameter, Chinchilla) and {high:.3g} (as "
        "recent open models are trained); P10 is the low end, P90 the high end, P50 their "
        "geometric mean"
    )
    return Span(low, math.sqrt(low * high), high), text


def _inference(asked: Asked, model: Architecture, kind: Kind) -> Work | Problem:
    prompt, output = asked.prompt or PROMPT, asked.output or OUTPUT
    requests, notes = asked.requests, list(model.notes)
    if requests is None and asked.tokens is not None:
        requests = max(asked.tokens / (prompt + output), 1.0)
        notes.append(f"{asked.tokens:.3g} tokens are {requests:,.0f} requests")
    if requests is None:
        requests = REQUESTS
        notes.append(f"no amount given: {REQUESTS:,} requests")
    if asked.prompt is None or asked.output is None:
        notes.append(f"a request reads {prompt:,} tokens and writes {output:,}")
    concurrency = asked.concurrency or asked.batch or CONCURRENCY
    if asked.concurrency is None and asked.batch is None:
        notes.append(f"{concurrency} requests at a time")
    return Work(
        model=model,
        kind=kind,
        amount=Span(requests, requests, requests),
        seq=asked.seq or prompt + output,
        batch=concurrency,
        prompt=prompt,
        output=output,
        concurrency=concurrency,
        precision=asked.precision,
        weight_bits=_bits(asked, model, notes),
        assumptions=tuple(notes),
    )


BITS = {"bf16": 16.0, "fp16": 16.0, "fp32": 32.0, "fp8": 8.0, "int8": 8.0, "fp4": 4.5, "int4": 4.5}


def _bits(asked: Asked, model: Architecture, notes: list[str]) -> float:
    if model.weight_bits is not None and asked.precision == "bf16":
        notes.append(f"weights of {model.weight_bits:g} bits, as released")
        return model.weight_bits
    return BITS.get(asked.precision, 16.0)


def _vision(asked: Asked, model: VisionModel) -> Work | Problem:
    if asked.kind in (Kind.BATCH, Kind.SERVE) or asked.finetune not in (None, Finetune.FULL):
        words = f"{model.name} reads images: only its training is estimated"
        return Problem("not_supported", words, remedy="leave out --kind and --finetune")
    images, notes = asked.images, []
    if images is None and asked.samples is None and asked.epochs is None:
        notes.append("no images given: 90 epochs of ImageNet (1,281,167 images)")
    if images is None:
        images = (asked.samples or 1_281_167) * (asked.epochs or 90.0)
    elif asked.epochs is not None:
        images *= asked.epochs
    notes.append(f"images of {model.side} x {model.side}, {model.kind.upper()} from {model.source}")
    return Work(
        model=model,
        kind=Kind.VISION,
        amount=Span(images, images, images),
        seq=1,
        batch=asked.batch or 1_024,
        precision=asked.precision,
        assumptions=tuple(notes),
    )
