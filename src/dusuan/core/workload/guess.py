"""A plausible shape for a bare parameter count, and parameter counts as names give them.

Where only a size is known, FLOP and memory follow mostly from it: 2N a token forward, and states
by the parameter. What depends on the shape (attention, activations, cache) follows a dense model
of the usual proportions of recent ones: heads of 128, grouped keys above 7 billion, a gated
feed-forward of about 3.5 times the hidden size, 128 times as wide as deep.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

from dusuan.core.workload.architecture import Architecture, Attention, Block, FeedForward
from dusuan.core.workload.hfconfig import PARAMS_MAX, too_many
from dusuan.core.workload.jobspec import Problem

PARAMS_MIN = 10_000
HEAD = 128
USED_EXPERTS = 2  # of those that a name such as `8x7B` counts
CLOSE = 0.004  # how far a mixture may be from its total
GROUPED_FROM = 6e9
_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_SIZE = re.compile(
    r"(?<![a-z0-9.])(?:(\d+)\s*x\s*)?(\d+(?:[._]\d+)?|\d+p\d+)\s*([mbt])(?![a-z0-9])", re.I
)
_ACTIVE = re.compile(r"(?<![a-z0-9])a(\d+(?:[._]\d+)?)\s*([mb])(?![a-z0-9])", re.I)


def from_params(
    total: float, active: float | None = None, name: str = ""
) -> Architecture | Problem:
    """An architecture of exactly about `total` parameters, of which a token uses `active`."""
    checked = _checked(total, active)
    if checked is not None:
        return checked
    shape = _dense(total if active is None else active)
    if active is not None and active < 0.98 * total:
        shape = _mixture(shape, total)
    words = name or f"{total / 1e9:g}B parameters"
    note = "its shape is not known: a usual one of this size is assumed"
    return replace(shape, name=words, basis="parameters", source="", notes=(note,))


def _checked(total: float, active: float | None) -> Problem | None:
    for what, value in (("parameters", total), ("active parameters", active)):
        if value is None:
            continue
        if not math.isfinite(value):
            return Problem("not_finite", f"{value} {what} is no number", remedy="such as 72e9")
        if value <= 0:
            words = f"{value:g} {what} is not above zero"
            return Problem("out_of_range", words, remedy="such as 72e9")
        if value > PARAMS_MAX:
            return too_many(value)
    if total < PARAMS_MIN:
        words = f"{total:g} parameters is less than any language model has"
        return Problem("out_of_range", words, remedy="write 72e9 or 72B for 72 billion")
    if active is not None and active > total:
        words = f"{active:g} active parameters is more than all {total:g}"
        return Problem("contradiction", words, remedy="check which is which")
    return None


def _dense(total: float) -> Architecture:
    """A dense model whose feed-forward is trimmed until the count is right."""
    hidden = 64
    while _usual_params(hidden + _step(hidden)) <= total and hidden < 2**17:
        hidden += _step(hidden)
    vocab, layers = _vocab(hidden), _layers(hidden)
    dim = min(HEAD, hidden)
    heads = max(1, hidden // dim)
    grouped = total >= GROUPED_FROM and heads % 8 == 0
    attention = Attention(heads, 8 if grouped else heads, dim, dim)
    left = total - 2 * vocab * hidden - layers * attention.matmul_weights(hidden)
    width = max(8, round(left / (3 * hidden * layers)))
    block = Block(layers, attention, FeedForward(width), 2 * hidden)
    return Architecture("", hidden, vocab, (block,), tied=False)


def _usual_params(hidden: int) -> float:
    """Parameters of the usual model of this width: 2.3 h^2 of attention, 10.5 h^2 beside it."""
    return 12.8 * hidden**2 * _layers(hidden) + 2 * _vocab(hidden) * hidden


def _step(hidden: int) -> int:
    """Widths come in steps that leave head counts which divide well."""
    return 1_024 if hidden >= 2_048 else 256 if hidden >= 1_024 else 64


def _layers(hidden: int) -> int:
    return max(2, 2 * round(hidden / HEAD / 2 + (4 if hidden >= 512 else 1)))


def _vocab(hidden: int) -> int:
    return 128_000 if hidden >= 2_048 else 32_000 if hidden >= 512 else 256


def _mixture(dense: Architecture, total: float) -> Architecture:
    """The same shape with its feed-forward cut into experts of which a token uses eight, or
    more where eight would not meet the total."""
    made = [_cut(dense, total, used) for used in (8, 16, 32, 64)]
    near = (arch for arch in made if abs(arch.params_total / total - 1) < CLOSE)
    return next(near, made[-1])


def _cut(dense: Architecture, total: float, used: int) -> Architecture:
    block = dense.blocks[0]
    width = block.feed.width if block.feed is not None else 0
    each = max(1, width // used)
    one = 3 * dense.hidden * each * block.count
    experts = used + max(1, round((total - dense.params_total) / one))
    feed = FeedForward(each, experts=experts, active=used)
    return replace(dense, blocks=(replace(block, feed=feed),))


def size_in(name: str) -> tuple[float, float | None] | None:
    """Total and active parameters that a name states, such as `Qwen3-235B-A22B` or `8x7B`.

    Of experts written as `8x7B` a token uses two, as in Mixtral and what was made after it.
    """
    last = re.sub(r"\([^)]*\)", "", name).rsplit("/", 1)[-1]
    active = _ACTIVE.search(last)
    sizes = [
        _size(m) for m in _SIZE.finditer(last) if active is None or m.start() != active.start(1)
    ]
    if not sizes:
        return None
    each, times = max(sizes, key=lambda size: size[0] * size[1])
    used = None if active is None else _number(active[1]) * _SCALES[active[2].lower()]
    if used is None and times > USED_EXPERTS:
        used = USED_EXPERTS * each
    return each * times, used


def _size(match: re.Match[str]) -> tuple[float, int]:
    """The size of one expert, and how many there are."""
    return _number(match[2]) * _SCALES[match[3].lower()], int(match[1]) if match[1] else 1


def _number(text: str) -> float:
    return float(text.replace("_", ".").replace("p", "."))
