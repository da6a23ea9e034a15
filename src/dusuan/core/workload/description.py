"""Is a workload described, how much of it is there, and what is missing where it is not.

A description is a model and an amount of work. Half of one is an error that names the other half;
none of it means that the job has to be measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal

from dusuan.core.workload import quantities
from dusuan.core.workload.jobspec import Problem, Workload

KINDS = ("command", "train", "finetune", "batch", "serve", "vision")
METHODS = ("full", "lora", "qlora")
PRECISIONS = ("bf16", "fp16", "tf32", "fp32", "fp8", "fp4", "int8", "int4")
AMOUNT_MAX = Decimal(10) ** 18
PARAMS_MAX = Decimal(10) ** 14
DISAGREE = 0.05  # relative: what two ways to say one amount may differ by

_SUFFIX = {"K": 3, "M": 6, "B": 9, "G": 9, "T": 12, "P": 15}
_AMOUNT = re.compile(r"([0-9.eE+-]+?) ?([KMBGTP])", re.IGNORECASE)
# Which keys say something about which kinds; a key that says nothing there is an error.
_ALWAYS = ("kind", "steps", "model", "params", "active_params", "precision", "batch")
_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "train": ("tokens", "samples", "epochs", "seq_len"),
    "finetune": ("tokens", "samples", "epochs", "seq_len", "method", "rank"),
    "batch": ("samples", "prompt_tokens", "output_tokens", "epochs"),
    "serve": ("samples", "prompt_tokens", "output_tokens"),
    "vision": ("images", "epochs", "image_size", "seq_len"),
}


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is computed: `units` of `unit` (tokens, images or requests), in `steps` if known."""

    units: float
    unit: str
    steps: float | None


def amount_of(text: str) -> float | Problem:
    """A count as people write it: `7e9`, `7B`, `1.4T`, `300M`, `25000`; finite and above zero."""
    match = _AMOUNT.fullmatch(text.strip())
    number = quantities.number(match[1] if match else text.strip())
    if isinstance(number, Problem):
        if number.code == "wrong_value":
            remedy = "write it like 7e9, 7B or 300M"
            return Problem("wrong_value", f"{text[:60]!r} is not an amount", remedy=remedy)
        return number
    value = number * Decimal(10) ** (_SUFFIX[match[2].upper()] if match else 0)
    bounded = quantities.positive(value, AMOUNT_MAX)
    return bounded if isinstance(bounded, Problem) else float(bounded)


def params_of(text: str) -> float | Problem:
    """A parameter count: an amount of at most 1e14, which is more than any model has."""
    value = amount_of(text)
    if isinstance(value, Problem) or 1 <= value <= PARAMS_MAX:
        return value
    words = f"{value:.3g} parameters are outside 1 to {PARAMS_MAX:.0e}"
    return Problem("out_of_range", words, remedy="write it like 7e9 or 7B")


def whole_of(text: str) -> int | Problem:
    """A whole amount, such as a length in tokens: `4096`, `8K`."""
    value = amount_of(text)
    if isinstance(value, Problem):
        return value
    if value != int(value):
        return Problem("wrong_value", f"{text[:60]!r} is not a whole number")
    return int(value)


def problem_of(work: Workload) -> Problem | None:
    """Why `work` cannot be used as it stands; None when it can, described or not."""
    return _out_of_place(work) or (_unfinished(work) if mentions_model(work) else _modelless(work))


def mentions_model(work: Workload) -> bool:
    """Whether the workload says what model it is about."""
    return work.model is not None or work.params is not None


def is_described(work: Workload) -> bool:
    """Whether it says enough to be sized before anything runs."""
    return mentions_model(work) and amount(work) is not None


def amount(work: Workload) -> Amount | None:
    """How much is computed, or None where the description does not say."""
    epochs = 1.0 if work.epochs is None else work.epochs
    if work.kind == "vision":
        images = work.images or _product(work.steps, work.batch)
        return None if images is None else _counted(work, images * epochs, "images", work.batch)
    if work.kind in ("batch", "serve"):
        if work.samples is None or work.output_tokens is None:
            return None
        return Amount(work.samples * epochs, "requests", work.steps)
    tokens = work.tokens
    if tokens is None and work.seq_len is not None:
        sequences = work.samples or _product(work.steps, work.batch)
        tokens = None if sequences is None else sequences * work.seq_len
        epochs = epochs if work.samples is not None else 1.0
    if tokens is None:
        return None
    return _counted(work, tokens * epochs, "tokens", _product(work.batch, work.seq_len))


def _counted(work: Workload, units: float, unit: str, in_a_step: float | None) -> Amount:
    steps = work.steps
    if steps is None and in_a_step:
        steps = units / in_a_step
    return Amount(units, unit, steps)


def _product(*factors: float | None) -> float | None:
    total = 1.0
    for factor in factors:
        if factor is None:
            return None
        total *= factor
    return total


def _out_of_place(work: Workload) -> Problem | None:
    allowed = (*_ALWAYS, *_OF_KIND.get(work.kind, ()))
    default = Workload()
    for field in fields(Workload):
        given = getattr(work, field.name) != getattr(default, field.name)
        if given and field.name not in allowed and work.kind != "command":
            homes = ", ".join(kind for kind, keys in _OF_KIND.items() if field.name in keys)
            words = f"`{field.name}` says nothing about a workload of kind {work.kind}"
            return Problem("out_of_place", words, remedy=f"it belongs to: {homes}")
        if given and field.name not in ("kind", "steps") and work.kind == "command":
            words = f"`{field.name}` describes a model, but the kind of workload is not named"
            remedy = f"add `kind:`, one of {', '.join(KINDS[1:])}"
            return Problem("kind_missing", words, remedy=remedy)
    return None


def _modelless(work: Workload) -> Problem | None:
    """An amount without a model; an amount in steps alone is measured, and needs none."""
    about = ("tokens", "samples", "images", "method", "prompt_tokens", "output_tokens")
    named = next((name for name in about if getattr(work, name) is not None), None)
    if named is None:
        return None
    words = f"`{named}` is given, but no model"
    remedy = "add `model:` (a name, or a config.json in the workdir) or `params:` such as 7e9"
    return Problem("model_missing", words, remedy=remedy)


def _unfinished(work: Workload) -> Problem | None:
    if amount(work) is None:
        return _amount_missing(work)
    if work.method == "full" and work.rank is not None:
        return Problem("contradiction", "`rank` is for lora and qlora, and `method` is full")
    if work.params and work.active_params and work.active_params > work.params:
        words = f"{work.active_params:.3g} active of {work.params:.3g} parameters"
        return Problem("contradiction", words, remedy="active_params are a part of params")
    return _two_amounts(work)


def _amount_missing(work: Workload) -> Problem:
    needs = {
        "train": "`tokens`, or `samples` with `seq_len`, or `steps` with `batch` and `seq_len`",
        "finetune": "`tokens`, or `samples` (and `epochs`) with `seq_len`",
        "batch": "`samples` and `output_tokens` (and `prompt_tokens`)",
        "serve": "`samples` (requests) and `output_tokens` (and `prompt_tokens`)",
        "vision": "`images` (and `epochs`), or `steps` with `batch`",
    }
    words = "the model is given, but not how much is computed"
    return Problem("amount_missing", words, remedy=f"add {needs[work.kind]}")


def _two_amounts(work: Workload) -> Problem | None:
    """Tokens said twice, once by steps, must agree."""
    by_steps = _product(work.steps, work.batch, work.seq_len)
    said = amount(work)
    if by_steps is None or said is None or said.unit != "tokens":
        return None
    if abs(by_steps / said.units - 1) <= DISAGREE:
        return None
    words = (
        f"steps x batch x seq_len are {by_steps:.4g} tokens, "
        f"but the description says {said.units:.4g}"
    )
    return Problem("contradiction", words, remedy="leave out one of them, or correct it")
