"""Conversion between the units of compute that people use, exact by fractions.

Work is counted in FLOP, a rate in FLOP per second. A bare `P` or `E` names a rate in one paper and
work in the next, so it is refused. 1 degree = 312 TFLOPS x 1 h (see `core.units`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import StrEnum
from fractions import Fraction

from dusuan.core.units import GFLOP_PER_DEGREE
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import did_you_mean

HOUR_S = 3_600
DAY_S = 86_400
FLOP_PER_DEGREE = GFLOP_PER_DEGREE * 10**9
DIGITS_INEXACT = 12  # of a result that has no finite decimal expansion
DIGITS_EXACT_MAX = 60  # a finite expansion longer than this is rounded as well

# The card that defines the degree: dense BF16 in GFLOPS. Source: NVIDIA A100 datasheet.
REFERENCE_CARD, REFERENCE_GFLOPS = "A100", 312_000

_VALUE = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")
_SCALE = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12, "p": 15, "e": 18, "z": 21}
_WORDS = {"peta": "p", "exa": "e", "tera": "t", "giga": "g", "zetta": "z", "mega": "m"}
_CARD = re.compile(r"cards?([-_ ]?(?:hours?|h))?:(.+)", re.IGNORECASE)
_FLOP = re.compile(r"([kmgtpez]?)flops?(/s|ps)?(?:[-*x·](s|sec|seconds?|h|hours?|d|days?))?")
_BARE_TIME = re.compile(r"([pe])[-*x·](h|hours?|d|days?)")
_SECONDS = {"s": 1, "h": HOUR_S, "d": DAY_S}


# A card's own name and its rating in GFLOPS, from a name as people write it.
Cards = Callable[[str], "tuple[str, int] | Problem"]


class Dimension(StrEnum):
    """What a unit measures."""

    WORK = "work"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: its canonical name, and how many FLOP (or FLOP per second) one of it is."""

    name: str
    dimension: Dimension
    flop: Fraction


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted value: a plain decimal string, its unit, and whether the string is exact."""

    value: str
    unit: str
    exact: bool


_FIXED = {
    **dict.fromkeys(
        ("degree", "degrees", "deg", "度", "度算力"),
        Unit("degree", Dimension.WORK, Fraction(FLOP_PER_DEGREE)),
    ),
    **dict.fromkeys(
        ("degree/hour", "degrees/hour", "degree/h", "degrees/h", "度/小时", "度/时", "度/h"),
        Unit("degrees/hour", Dimension.RATE, Fraction(FLOP_PER_DEGREE, HOUR_S)),
    ),
}
_KNOWN = (
    *("degree", "degrees/hour", "FLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "PFLOP/s-day"),
    *("PFLOPS-hour", "GFLOPS", "TFLOPS", "PFLOPS", "EFLOPS", "card-hours:A100"),
    *("cards:A100",),
)


def reference_card(name: str) -> tuple[str, int] | Problem:
    """The one card that is known without a catalogue."""
    if name.lower() == REFERENCE_CARD.lower():
        return REFERENCE_CARD, REFERENCE_GFLOPS
    words = f"no rating is known for the card {name[:40]!r}"
    return Problem("unknown_card", words, remedy=did_you_mean(name, (REFERENCE_CARD,)))


def convert(
    value: str, source: str, target: str, *, cards: Cards = reference_card
) -> Converted | Problem:
    """`value` of unit `source` in unit `target`.

    `cards` finds a card and its dense rating in GFLOPS, for `card-hours:NAME` (work) and
    `cards:NAME` (a rate: so many of them). Returns a `Problem` for a number or unit that is not
    known, a bare `P` or `E`, and work against a rate.
    """
    amount = _amount(value)
    if isinstance(amount, Problem):
        return amount
    here, there = unit(source, cards), unit(target, cards)
    if isinstance(here, Problem):
        return here
    if isinstance(there, Problem):
        return there
    if here.dimension is not there.dimension:
        return _needs_time(here, there)
    text, exact = decimal_text(amount * here.flop / there.flop)
    return Converted(text, there.name, exact)


def unit(text: str, cards: Cards = reference_card) -> Unit | Problem:
    """The unit that `text` names, in any of its spellings."""
    card = _CARD.fullmatch(text.strip())
    if card is not None:
        return _card_unit(card[2].strip(), hours=card[1] is not None, cards=cards)
    spelled = _normal(text)
    if spelled in ("p", "e"):
        return _ambiguous(spelled.upper())
    if text.strip().endswith("FLOPs"):
        words = f"{text.strip()[:60]!r} can be work (plural of FLOP) or a rate (FLOP per second)"
        return Problem("ambiguous_unit", words, remedy="write FLOP for work, FLOPS for a rate")
    if spelled in _FIXED:
        return _FIXED[spelled]
    found = _flop_unit(spelled)
    if found is not None:
        return found
    words = f"{text[:60]!r} is no unit of compute"
    return Problem("unknown_unit", words, remedy=did_you_mean(text, _KNOWN))


def decimal_text(value: Fraction) -> tuple[str, bool]:
    """`value` as a plain decimal string, and whether it is exact.

    Exact when the expansion is finite and of sensible length, else 12 significant digits.
    """
    wide = Context(prec=DIGITS_EXACT_MAX)
    quotient = wide.divide(Decimal(value.numerator), Decimal(value.denominator))
    exact = Fraction(quotient) == value
    if not exact:
        narrow = Context(prec=DIGITS_INEXACT)
        quotient = narrow.divide(Decimal(value.numerator), Decimal(value.denominator))
    text = format(quotient, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return ("0" if text in ("-0", "") else text), exact


def _amount(value: str) -> Fraction | Problem:
    text = value.strip().replace(",", "")
    if _VALUE.fullmatch(text):
        return Fraction(Decimal(text))
    return Problem("wrong_value", f"{value[:60]!r} is not a number", remedy="write it like 1.5")


def _normal(text: str) -> str:
    """One spelling for all: lower case, no blanks, `petaflop/s-day` and `pflops-day` alike."""
    spelled = "".join(text.lower().split()).replace("每", "/").replace("perhour", "/hour")
    for word, letter in _WORDS.items():
        if spelled.startswith(word):
            return letter + spelled.removeprefix(word)
    return spelled


def _card_unit(name: str, *, hours: bool, cards: Cards) -> Unit | Problem:
    found = cards(name)
    if isinstance(found, Problem):
        return found
    known, flop_s = found[0], Fraction(found[1] * 10**9)
    if hours:
        return Unit(f"card-hours:{known}", Dimension.WORK, flop_s * HOUR_S)
    return Unit(f"cards:{known}", Dimension.RATE, flop_s)


def _flop_unit(spelled: str) -> Unit | None:
    """`pflop` is work, `pflops` a rate, and either of them times a time is work."""
    bare = _BARE_TIME.fullmatch(spelled)
    if bare is not None:  # with a time beside it, P can only be a rate
        spelled = f"{bare[1]}flops-{bare[2]}"
    match = _FLOP.fullmatch(spelled)
    if match is None:
        return None
    prefix, per_second, time = match.groups()
    is_rate = per_second is not None or re.match(r"[kmgtpez]?flops", spelled) is not None
    letter, flop = prefix.upper().replace("K", "k"), Fraction(10 ** _SCALE[prefix])
    if time is not None:
        name = {"s": "second", "h": "hour", "d": "day"}[time[0]]
        return Unit(f"{letter}FLOP/s-{name}", Dimension.WORK, flop * _SECONDS[time[0]])
    if is_rate:
        return Unit(f"{letter}FLOPS", Dimension.RATE, flop)
    return Unit(f"{letter}FLOP", Dimension.WORK, flop)


def _ambiguous(letter: str) -> Problem:
    words = {
        "P": "`P` can be a rate (1 PFLOPS = 3.2051 degrees an hour) or work (1 PFLOP/s-day = "
        "76.9231 degrees)",
        "E": "`E` can be a rate (1 EFLOPS = 3,205.13 degrees an hour) or work (1,000 PFLOP/s-days "
        "= 76,923.08 degrees)",
    }
    remedy = "write PFLOPS or PFLOP/s-day" if letter == "P" else "write EFLOPS or EFLOP/s-day"
    return Problem("ambiguous_unit", words[letter], remedy=remedy)


def _needs_time(here: Unit, there: Unit) -> Problem:
    words = f"{here.name} is {here.dimension} and {there.name} is {there.dimension}"
    rate = here.name if here.dimension is Dimension.RATE else there.name
    hours = rate.replace("degrees/hour", "degrees").replace("FLOPS", "FLOPS-hours")
    remedy = f"multiply the rate by hours: {rate} x hours is work, such as {hours}"
    return Problem("needs_time", words, remedy=remedy)
