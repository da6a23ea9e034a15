"""Makes of accelerators by origin, for `resources.origin: domestic`."""

from __future__ import annotations

DOMESTIC_MAKES = frozenset(
    {
        "Biren",
        "Cambricon",
        "Enflame",
        "Huawei",
        "Hygon",
        "Iluvatar",
        "Iluvatar CoreX",
        "Kunlunxin",
        "MetaX",
        "Moore Threads",
        "T-Head",
    }
)


def is_domestic(make: str) -> bool:
    """Whether `make` is one of the Chinese makes this catalogue knows."""
    return make in DOMESTIC_MAKES
