"""Names of accelerators as people, drivers and papers write them, compared word by word."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PIECES = re.compile(r"[a-z0-9.+]+")
_GLUED = re.compile(r"([a-z]*\d+[a-z]{0,2}?)(sxm\d?|pcie|nvl|oam)")
_PREFIXED = re.compile(r"(tpu|asc(?:end)?|rtx|mi)(v?\d[a-z0-9]*)")
_SIZE = re.compile(r"(\d+)(?:gb?|gib|g)")
_NOISE = frozenset(
    (
        *("nvidia", "amd", "huawei", "google", "intel", "instinct", "tesla", "geforce", "gpu"),
        *("npu", "tpu", "dcu", "accelerator", "card", "rtx", "hgx", "dgx", "graphics", "ge", "pod"),
        *("metax", "cambricon", "enflame", "kunlunxin", "hygon", "moore", "threads", "mtt"),
        *("iluvatar", "asc", "mi", "corex", "biren", "t", "head", "cloudblazer", "per", "ascend"),
        *("atlas", "gen5", "superchip", "hbm"),
    )
)
_FORMS = {"sxm": ("sxm2", "sxm4", "sxm5", "sxm6"), "pci": ("pcie",)}


def words(text: str) -> tuple[str, ...]:
    """The words of a name in lower case: `A100 SXM4-80GB` is `a100 sxm4 80`."""
    found: list[str] = []
    for piece in _PIECES.findall(text.lower().replace("-e ", "e ")):
        found += ["asc"] if piece == "ascend" else _unglued(piece)
    return tuple(found)


def same(one: str, other: str) -> bool:
    """Whether two spellings differ in case, separators and makes only."""
    return _plain(one) == _plain(other)


def fits(asked: tuple[str, ...], labels: str, aliases: Iterable[str]) -> bool:
    """Whether the words `asked` name a device of one of `aliases`, described by `labels`."""
    known = set(words(labels)) | _NOISE
    known |= {short for short, forms in _FORMS.items() if known & set(forms)}
    for alias in aliases:
        family = words(alias)
        rest = [word for word in asked if word not in family]
        if set(family) - _NOISE <= set(asked) and all(w in known or w == alias for w in rest):
            return True
    return False


def _plain(text: str) -> tuple[str, ...]:
    return tuple(word for word in words(text) if word not in _NOISE)


def _unglued(piece: str) -> list[str]:
    size, prefixed, glued = (p.fullmatch(piece) for p in (_SIZE, _PREFIXED, _GLUED))
    if size is not None:
        return [size[1]]
    if prefixed is not None:  # `TPUv4`, `Asc910B`, `RTX4090`
        return [prefixed[1].replace("ascend", "asc"), prefixed[2]]
    return list(glued.groups()) if glued is not None else [piece]
