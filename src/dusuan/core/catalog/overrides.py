"""An operator's own figures for devices of the catalogue: what may be said, and in which words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dusuan.core.catalog.accelerators import FIELDS, Accelerator, Catalogue, new_card
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import did_you_mean

FIGURE_MAX = 1e7
SOURCE_CHARACTERS_MAX = 1_000
NAME_CHARACTERS_MAX = 60
SHIPPED = "shipped"
_SHORT: Mapping[str, str] = {
    **{name.rpartition("_")[0]: name for name in FIELDS},
    "memory_gib": "memory_gb",
    "power": "tdp_w",
}


def field_of(text: str) -> str | Problem:
    """The field of `FIELDS` that `text` names: `bf16_tflops`, or short `bf16`, `memory`, `tdp`."""
    name = text.strip().lower().replace("-", "_")
    name = _SHORT.get(name, name)
    if name in FIELDS:
        return name
    words = f"{text[:40]!r} is no figure of a device"
    return Problem("unknown_field", words, remedy=did_you_mean(text, (*FIELDS, *_SHORT)))


def value_of(text: str) -> float | Problem | None:
    """A figure as people write it; None for `shipped`, which takes an override back."""
    if text.strip().lower() == SHIPPED:
        return None
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        words = f"{text[:40]!r} is not a number"
        remedy = f"write it like 280, or `{SHIPPED}` to take an earlier override back"
        return Problem("wrong_value", words, remedy=remedy)
    return _sound(value)


def checked(
    catalogue: Catalogue,
    device: str,
    field: str,
    value: float | None,
    source: str,
    make: str | None = None,
) -> tuple[Accelerator, str] | Problem:
    """The device and the field that an override is about, or why it cannot be taken.

    With a `make`, a device that the catalogue does not have is a new one, by the name given.
    """
    found, name = _meant(catalogue, device, make), field_of(field)
    if isinstance(found, Problem):
        return found
    if isinstance(name, Problem):
        return name
    sound = None if value is None else _sound(value)
    if isinstance(sound, Problem):
        return sound
    if not source.strip():
        words = f"{name} of {found.name}: nobody is named who says so"
        return Problem("no_source", words, remedy="name a datasheet, a letter or a measurement")
    if len(source) > SOURCE_CHARACTERS_MAX:
        words = f"the source has {len(source):,} characters, more than {SOURCE_CHARACTERS_MAX:,}"
        return Problem("too_long", words, remedy="name it shortly, and where it can be read")
    return found, name


def _meant(catalogue: Catalogue, device: str, make: str | None) -> Accelerator | Problem:
    found = catalogue.find(device)
    if isinstance(found, Accelerator):
        if make is None or make.strip().lower() == found.make.lower():
            return found
        words = f"{device[:60]!r} is {found.name}, which is of {found.make}"
        return Problem("known_device", words, remedy="leave the make out, or name the card in full")
    if found.code != "unknown_device":
        return found
    if make is None:
        remedy = f"{found.remedy}; to add a card, name its make as well"
        return Problem(found.code, found.text, remedy=remedy)
    return _new_card(" ".join(device.split()), " ".join(make.split()))


def _new_card(name: str, make: str) -> Accelerator | Problem:
    for what, text in (("name", name), ("make", make)):
        if not any(c.isalnum() for c in text) or len(text) > NAME_CHARACTERS_MAX:
            words = f"{text[:40]!r} is no {what} of a card"
            remedy = f"letters and digits, at most {NAME_CHARACTERS_MAX} characters"
            return Problem("wrong_name", words, remedy=remedy)
    return new_card(name, make)


def _sound(value: float) -> float | Problem:
    if not math.isfinite(value):
        return Problem("not_finite", f"{value} is no figure", remedy="write it like 280")
    if not 0 < value <= FIGURE_MAX:
        words = f"{value:g} is not above zero and at most {FIGURE_MAX:g}"
        return Problem("out_of_range", words, remedy="TFLOPS, GB, GB/s and W are meant")
    return value
