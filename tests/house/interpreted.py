"""The compiled rules as plain Python: `pytest -p tests.house.interpreted FILE`.

Slow, and without the minutes that compiling takes after a change: for a first try of one, for a
debugger, and for mutants of the rules (`rule_mutants.py`). Numba is replaced before the rules are
imported; what they read by address they read here by the same address.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Callable
from typing import Any

import hypothesis
import numba
import numba.extending
import numpy as np


class Record(np.void):
    """A record whose fields are attributes, as in compiled code."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    size = property(lambda self: self["size"])  # numpy has attributes of these names
    device = property(lambda self: self["device"])


_SEEN: dict[Any, Any] = {}


def records(dtype: Any) -> Any:
    """The same layout, of such records."""
    dtype = np.dtype(dtype)
    return np.dtype((Record, dtype)) if dtype.names else dtype


def carray(pointer: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """As numba's, for addresses that are integers. The array belongs to somebody else."""
    key = (pointer, shape, id(dtype))
    found = _SEEN.get(key)
    if found is None:
        layout, count = records(dtype), max(math.prod(map(int, shape)), 0)
        memory = (ctypes.c_char * (count * layout.itemsize)).from_address(int(pointer))
        found = _SEEN[key] = np.frombuffer(memory, layout).reshape(tuple(map(int, shape)))
    return found


def opened(value: Any) -> Any:
    """What compiled code would get, its records with their fields as attributes."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(opened, value))
    if isinstance(value, np.ndarray) and value.dtype.names:
        return value.view(records(value.dtype))
    if isinstance(value, np.void):
        return np.asarray(value).view(records(value.dtype))[()]
    return value


def njit(function: Callable[..., Any] | None = None, **_options: Any) -> Any:
    """Leaves a rule as it is; one that Python calls gets records that it can read."""
    if function is None:
        return lambda rule: rule

    @functools.wraps(function)
    def called(*arguments: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*map(opened, arguments))

    def enable_caching() -> None:
        raise RuntimeError("nothing is compiled")

    called.enable_caching = enable_caching  # type: ignore[attr-defined]  # as a dispatcher has
    return called


numba.njit, numba.carray = njit, carray
numba.extending.intrinsic = lambda _function: int


def few_examples() -> None:
    """Let no property be tried on more than EXAMPLES examples, where that is set."""
    most, begin = int(os.environ.get("EXAMPLES", "0")), hypothesis.settings.__init__

    def begun(self: Any, *given: Any, **named: Any) -> None:
        if most and named.get("max_examples"):
            named["max_examples"] = min(most, named["max_examples"])
        begin(self, *given, **named)

    hypothesis.settings.__init__ = begun  # type: ignore[method-assign]  # that is the aim


few_examples()
