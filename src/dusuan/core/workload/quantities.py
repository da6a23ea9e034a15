"""Quantities as people write them (durations, money, memory, devices, signals), read exactly.

Each reader takes text and returns a value or a `Problem` without a place; the caller adds the key
and the line. Numbers go through `Decimal`, never through a float that was rounded on the way.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from dusuan.core.workload.jobspec import Problem

DURATION_S_MAX = Decimal(10 * 365 * 86_400)
GRACE_S_MAX = Decimal(3_600)
BUDGET_YUAN_MAX = Decimal(10) ** 13
MEMORY_GIB_MAX = Decimal(2) ** 40
COUNT_MAX = 1_000_000

_DIGITS = r"[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18}"
_NUMBER = re.compile(rf"[+-]?(?:{_DIGITS})(?:[eE][+-]?[0-9]{{1,3}})?")
_NOT_FINITE = re.compile(r"[+-]?\.?(?:nan|inf|infinity)", re.IGNORECASE)
_DURATION = re.compile(rf"([+-]?)((?:(?:{_DIGITS}) ?[a-z]+ ?)+)", re.IGNORECASE)
_DURATION_PART = re.compile(rf"({_DIGITS}) ?([a-z]+)", re.IGNORECASE)
_MONEY = re.compile(
    rf"(?:[¥￥]|CNY|RMB)? ?([+-]?(?:{_DIGITS})) ?(?:yuan|元|CNY|RMB)?", re.IGNORECASE
)
_MEMORY = re.compile(rf"([+-]?(?:{_DIGITS})) ?(?:([KMGTP])i?B?)?\+?", re.IGNORECASE)
_COUNT = re.compile(r"([+-]?[0-9]{1,18})(?:\.0{1,18})?\+?")
_DEVICE = re.compile(r"[^\s:,{}\[\]]{1,64}")

_SECONDS = {
    **dict.fromkeys(("ms",), Decimal("0.001")),
    **dict.fromkeys(("s", "sec", "second", "seconds"), Decimal(1)),
    **dict.fromkeys(("m", "min", "minute", "minutes"), Decimal(60)),
    **dict.fromkeys(("h", "hour", "hours"), Decimal(3_600)),
    **dict.fromkeys(("d", "day", "days"), Decimal(86_400)),
    **dict.fromkeys(("w", "week", "weeks"), Decimal(7 * 86_400)),
}
_GIB = {"K": -2, "M": -1, "G": 0, "T": 1, "P": 2}

# Linux numbers of the signals that a program can catch to save its state.
SIGNALS = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGUSR1": 10,
    "SIGUSR2": 12,
    "SIGALRM": 14,
    "SIGTERM": 15,
    "SIGCONT": 18,
    "SIGURG": 23,
    "SIGXCPU": 24,
    "SIGXFSZ": 25,
    "SIGVTALRM": 26,
    "SIGPROF": 27,
    "SIGWINCH": 28,
    "SIGIO": 29,
    "SIGPWR": 30,
}


def nearest(word: str, known: Iterable[str], alike: float = 0.5) -> str:
    """The known word that `word` most likely stands for, or an empty string."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word[:100].lower(), lowered, n=1, cutoff=alike)
    return lowered[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy that names the nearest known word, or all of them when none is near."""
    names = sorted(known)
    near = nearest(word, names)
    return f"did you mean `{near}`?" if near else "known: " + ", ".join(names)


def choice(text: str, known: Iterable[str], what: str) -> str | Problem:
    """One of a closed set of words."""
    names = tuple(known)
    if text in names:
        return text
    return Problem("unknown_value", f"{text[:60]!r} is no {what}", remedy=did_you_mean(text, names))


def number(text: str) -> Decimal | Problem:
    """A finite decimal number of at most 18 digits before and after the point."""
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    if _NOT_FINITE.fullmatch(text):
        return Problem("not_finite", f"{text} is not a finite number", remedy="give a number")
    return Problem("wrong_value", f"{text[:60]!r} is not a number", remedy="give a number")


def positive(value: Decimal, most: Decimal, least: Decimal = Decimal("1e-6")) -> Decimal | Problem:
    """`value` when it lies within `[least, most]`; `least` is above zero."""
    if value <= 0:
        return Problem("out_of_range", f"{value} is not above zero", remedy="give more than 0")
    if not least <= value <= most:
        return Problem("out_of_range", f"{value:.6g} is outside {least:.6g} to {most:.6g}")
    return value


def duration_s(text: str, most: Decimal = DURATION_S_MAX) -> float | Problem:
    """Seconds from `90s`, `1h30m`, `1.5 days` or a bare number of seconds; 1 ms to `most`."""
    seconds = _seconds(text.strip())
    if isinstance(seconds, Problem):
        return seconds
    bounded = positive(seconds, most, Decimal("0.001"))
    return bounded if isinstance(bounded, Problem) else float(bounded)


def grace_s(text: str) -> float | Problem:
    """Seconds between a checkpoint signal and the kill: a duration of at most an hour."""
    return duration_s(text, GRACE_S_MAX)


def _seconds(text: str) -> Decimal | Problem:
    if _NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return number(text)
    match = _DURATION.fullmatch(text[:200])
    parts = _DURATION_PART.findall(match[2].lower()) if match else []
    if match is None or any(unit not in _SECONDS for _, unit in parts):
        remedy = "write it like 90s, 10m, 2h or 1d"
        return Problem("wrong_value", f"{text[:60]!r} is not a duration", remedy=remedy)
    total = sum((Decimal(count) * _SECONDS[unit] for count, unit in parts), Decimal(0))
    return -total if match[1] == "-" else total


def budget_fen(text: str) -> int | Problem:
    """Fen from an amount in yuan (`20`, `20.5 yuan`, `¥20`, `20元`); exact, above zero."""
    match = _MONEY.fullmatch(text.strip())
    if match is None:
        problem = number(text.strip())
        if isinstance(problem, Problem) and problem.code == "not_finite":
            return problem
        remedy = "write it like ¥20 or 20.5 yuan"
        return Problem("wrong_value", f"{text[:60]!r} is not an amount", remedy=remedy)
    yuan = positive(Decimal(match[1]), BUDGET_YUAN_MAX, Decimal("0.01"))
    if isinstance(yuan, Problem):
        return yuan
    fen = Fraction(yuan) * 100
    if fen.denominator != 1:
        return Problem("wrong_value", f"{yuan} yuan is finer than one fen", remedy="two decimals")
    return int(fen)


def memory_gib(text: str) -> float | Problem:
    """GiB from `4`, `4+`, `4GB`, `512MB`; units are powers of 1,024 and GB is the default.

    `4+` (at least 4) and `4` are the same here: memory is a floor for placement either way.
    Source of the syntax: SkyPilot YAML reference, `resources.memory`.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        remedy = "write it like 4, 4+, 16GB or 512MB"
        return Problem("wrong_value", f"{text[:60]!r} is not an amount of memory", remedy=remedy)
    gib = Decimal(match[1]) * Decimal(1024) ** _GIB[(match[2] or "G").upper()]
    bounded = positive(gib, MEMORY_GIB_MAX)
    return bounded if isinstance(bounded, Problem) else float(bounded)


def whole_count(text: str) -> int | Problem:
    """A whole count above zero: `4`, `4.0` or `4+`."""
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        return Problem(
            "wrong_value", f"{text[:60]!r} is not a whole count", remedy="give a whole number"
        )
    bounded = positive(Decimal(match[1]), Decimal(COUNT_MAX), Decimal(1))
    return bounded if isinstance(bounded, Problem) else int(bounded)


def device_count(text: str) -> tuple[str, int] | Problem:
    """Device and count from `A100:4`, `A100` (one) or `cpu:2`. Kinds are lower case."""
    name, colon, count_text = text.strip().partition(":")
    if not _DEVICE.fullmatch(name):
        remedy = "write it like A100:4, gpu:1 or cpu:2"
        return Problem("wrong_value", f"{text[:60]!r} names no device", remedy=remedy)
    count = whole_count(count_text) if colon else 1
    if isinstance(count, Problem):
        return count
    return (name.lower() if name.lower() in ("cpu", "gpu") else name), count


def signal_name(text: str) -> str | Problem:
    """`SIGUSR1` from `USR1`, `usr1`, `SIGUSR1`; only signals a job can catch."""
    upper = text.strip().upper()[:40]
    name = upper if upper.startswith("SIG") else "SIG" + upper
    if name in SIGNALS:
        return name
    if name in ("SIGKILL", "SIGSTOP"):
        words = f"{name} cannot be caught, so no job can save its state on it"
        return Problem("unknown_value", words, remedy="use SIGTERM or SIGUSR1")
    words = f"{text[:40]!r} is no signal that a job can save its state on"
    return Problem("unknown_value", words, remedy=did_you_mean(name, SIGNALS))
