"""Rows of a table of training steps, read into steps. The columns are llm-foundry's.

Three more may be there: `tp`, `pp` (tensor and pipeline parallel devices) and `interleave`. With
`tp` or `pp` above one a step is taken to move its gradients once, as Megatron does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dusuan.core.catalog.accelerators import Match
from dusuan.core.workload import guess
from dusuan.core.workload.cells import number, word
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.stepmfu import LINK_BYTES_S, Step

FindDevice = Callable[[str], Match | Problem]
VOCAB = 50_368  # MPT's tokenizer, padded
# Hidden size by parameters (with embeddings, for 2,048 positions) of the MPT family:
# mosaicml/llm-foundry scripts/train/yamls/pretrain (Apache-2.0).
MPT_HIDDEN = (
    *((125e6, 768), (356e6, 1_024), (760e6, 1_536), (1.316e9, 2_048), (2.65e9, 2_560)),
    *((6.659e9, 4_096), (12.85e9, 5_120), (29.98e9, 7_168), (64.86e9, 8_192)),
)
SEQ, DEVICES, TOKENS_PER_BATCH = 2_048, 8, 16_384
SPLITS = ("tp", "pp", "interleave")
DEFAULTS = {
    **{"SeqLen (T)": SEQ, "# GPUs": DEVICES, "MicroBatchSize": 0, "GlobalBatchSize": 0},
    **dict.fromkeys(SPLITS, 1),
}


def step(
    row: Mapping[str, str | None], find_device: FindDevice
) -> tuple[Step, list[str]] | Problem:
    """The step that a row describes and what was assumed, or what is missing."""
    match = find_device(word(row, "GPU"))
    if isinstance(match, Problem):
        return match
    peak = match.device.tflops("bf16") or match.device.tflops("fp16")
    bandwidth = match.device.bandwidth_gbs
    if peak is None or bandwidth is None:
        words = f"{match.device.name}: its peak or bandwidth is not published"
        return Problem("unpublished", words, remedy="calibrate it")
    params = _params(row)
    if isinstance(params, Problem):
        return params
    notes = [] if match.assumed is None else [match.assumed]
    link = match.device.link_gbs
    rates = (peak * 1e12, bandwidth * 1e9, LINK_BYTES_S if link is None else link * 1e9)
    return _step(row, params, rates, notes)


def _step(
    row: Mapping[str, str | None],
    params: float,
    rates: tuple[float, float, float],
    notes: list[str],
) -> tuple[Step, list[str]] | Problem:
    values = _numbers(row)
    if isinstance(values, Problem):
        return values
    seq, devices = (max(1, round(values[n] or d)) for n, d in list(DEFAULTS.items())[:2])
    tensor, pipeline, interleave = (max(1, round(values[n])) for n in SPLITS)
    split = tensor * pipeline
    if split > devices:
        words = f"tp x pp is {split}, and there are {devices} devices"
        return Problem("out_of_range", words, remedy="correct tp, pp or # GPUs")
    micro = values["MicroBatchSize"]
    if not micro:
        micro = float(max(1, TOKENS_PER_BATCH // seq))
        notes.append(f"a micro-batch of {micro:g} is assumed")
    hidden = hidden_size(params)
    made = Step(
        params=params,
        hidden=hidden,
        layers=max(1, round((params - (VOCAB + seq) * hidden) / (12 * hidden**2))),
        vocab=VOCAB,
        seq=seq,
        devices=devices,
        micro_batch=micro,
        global_batch=values["GlobalBatchSize"] or micro * devices,
        sharded=split == 1,
        tensor=tensor,
        pipeline=pipeline,
        interleave=interleave,
        peak=rates[0],
        bandwidth=rates[1],
        link=rates[2],
        recompute=word(row, "Activation Checkpointing").lower() in ("true", "1", "yes"),
        gathers_weights=split == 1 and word(row, "Sharding Strategy").upper() != "SHARD_GRAD_OP",
        fp8="fp8" in word(row, "Precision").lower(),
    )
    return made, notes


def _numbers(row: Mapping[str, str | None]) -> dict[str, float] | Problem:
    """The sizes that a row gives, or their defaults."""
    values: dict[str, float] = {}
    for name, default in DEFAULTS.items():
        value = number(row, name, float(default))
        if isinstance(value, Problem):
            return value
        values[name] = value
    return values


def _params(row: Mapping[str, str | None]) -> float | Problem:
    given = number(row, "NumParams", 0.0)
    if isinstance(given, Problem) or given > 0:
        return given
    named = guess.size_in(word(row, "Model"))
    if named is None:
        words = "neither NumParams nor a size in the model's name is given"
        return Problem("unknown_model", words, remedy="fill NumParams")
    return named[0]


def hidden_size(params: float) -> int:
    """The hidden size of a dense model of so many parameters, between those of the MPT family.

    Beyond the family the proportions of its last member are kept.
    """
    beyond = [i for i, (size, _) in enumerate(MPT_HIDDEN) if params < size]
    upper = beyond[0] if beyond else len(MPT_HIDDEN)
    if 0 < upper < len(MPT_HIDDEN):
        start, end = MPT_HIDDEN[upper - 1], MPT_HIDDEN[upper]
        slope = math.log(end[1] / start[1]) / math.log(end[0] / start[0])
    else:
        start, slope = MPT_HIDDEN[min(upper, len(MPT_HIDDEN) - 1)], 1 / 3
    return max(64, round(start[1] * math.pow(params / start[0], slope) / 64) * 64)
