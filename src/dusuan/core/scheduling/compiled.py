"""Compiled functions whose cache notices when any rule changes.

numba keys a cached function on its own file. A function that calls one in another file would go
on with the old code of that one, so here the key is made of every file of compiled rules.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.errors import NumbaWarning

F = TypeVar("F", bound=Callable[..., Any])

_RULES = Path(__file__).parent
_BARE: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: F) -> F:
    """A rule that compiled code calls. It has no code of its own that Python could call."""
    return cast(F, numba.njit(**_BARE)(function))


def inlined(function: F) -> F:
    """A rule that is compiled into each of its callers: for the inner loop of a search."""
    return cast(F, numba.njit(forceinline=True, **_BARE)(function))


def entry(function: F) -> F:
    """A rule that Python calls: compiled with all it calls on its first call, then from the cache.

    The cache lies beside the source, or in the user's cache directory where that cannot be
    written; where neither can, every process compiles anew.
    """
    dispatcher = numba.njit(function)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # no place for a cache
        return cast(F, dispatcher)
    stored = dispatcher._cache._cache_file
    stored._source_stamp = (stored._source_stamp, _rules_stamp(Path(function.__code__.co_filename)))
    return cast(F, dispatcher)


@cache
def _digest(folder: Path) -> bytes:
    files = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).digest()


def _rules_stamp(file: Path) -> tuple[bytes, ...]:
    """All that `file` may call: its neighbours, the rules, and the layout of the arrays."""
    layout = [(_RULES / name).read_bytes() for name in ("arrays.py", "accounts.py")]
    hashed = hashlib.sha256(b"\0".join(layout)).digest()
    return _digest(file.parent), _digest(_RULES / "kernels"), hashed


def is_cached(function: Callable[..., Any]) -> bool:
    """Whether the cache on disk has code for `function`, of the present sources."""
    stored = getattr(getattr(function, "_cache", None), "_cache_file", None)
    return bool(stored is not None and stored._load_index())


warnings.filterwarnings("ignore", category=NumbaWarning, module="dusuan")
