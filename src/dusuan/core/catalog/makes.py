"""Makes of accelerators by origin, for `resources.origin: domestic`."""

from __future__ import annotations

DOMESTIC_MAKES = frozenset(
    {
        "Biren",
        "Cambricon",
        "Denglin",
        "Enflame",
        "Huawei",
        "Hygon",
        "Iluvatar",
        "Iluvatar CoreX",
        "Kunlunxin",
        "Lisuan",
        "MetaX",
        "Moore Threads",
        "Sophgo",
        "T-Head",
        "Vastai",
    }
)
_SPELT = frozenset(make.lower() for make in DOMESTIC_MAKES)


def is_domestic(make: str) -> bool:
    """Whether `make` is one of the Chinese makes this catalogue knows."""
    return make.lower() in _SPELT
