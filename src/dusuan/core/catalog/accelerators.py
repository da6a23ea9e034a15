"""Accelerators as published: what each computes, holds, moves and draws, with its sources.

Every figure carries where it is from and how far it is to be trusted; a figure that nobody
published is None and stays None. Tensor rates are dense (without sparsity), in TFLOPS or TOPS;
memory in GiB, bandwidth and link (both directions) in GB/s, power in W.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dusuan.core.catalog import naming
from dusuan.core.catalog.makes import is_domestic
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import nearest

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8")
COMPUTE_FIELDS = tuple(f"{p}_tops" if p == "int8" else f"{p}_tflops" for p in PRECISIONS)
FIELDS = (*COMPUTE_FIELDS, "memory_gb", "bandwidth_gbs", "tdp_w", "link_gbs")
TRUSTED = frozenset({"high", "medium", "operator"})
DEGREE_TFLOPS = 312


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a device: its value, who says so, and `high`, `medium`, `low` or `operator`."""

    value: float
    source: str
    confidence: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """What another source says of a figure."""

    field: str
    value: float
    source: str
    note: str


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's own figure for a device, and when it was set. The last one counts.

    `value` None takes an earlier one back: the shipped figure counts again. The first one of a
    card that is not shipped names its `make`.
    """

    device: str
    field: str
    value: float | None
    source: str
    by: str
    at: str
    make: str | None = None


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One make and model of accelerator. A field of `FIELDS` that is not published is absent."""

    name: str
    make: str
    form: str
    year: int | None
    memory_type: str
    aliases: tuple[str, ...]
    figures: Mapping[str, Figure]
    confidence: str
    source: str
    note: str = ""
    usual: int = 0  # 1: what the bare family name usually means; 2: the next; 0: neither
    conflicts: tuple[Conflict, ...] = ()
    overrides: tuple[Override, ...] = field(default=(), repr=False)

    @property
    def origin(self) -> str:
        """`domestic` for the Chinese makes, else `foreign`."""
        return "domestic" if is_domestic(self.make) else "foreign"

    def value(self, name: str) -> float | None:
        """The figure `name` of `FIELDS`, or None where it is not published."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value

    def tflops(self, precision: str) -> float | None:
        """Dense TFLOPS (TOPS for int8) at `precision`, or None where it is not published."""
        return self.value("int8_tops" if precision == "int8" else f"{precision}_tflops")

    @property
    def rated_precision(self) -> str | None:
        """The precision of the rating: BF16, else FP16, else none."""
        return next((p for p in ("bf16", "fp16") if self.tflops(p) is not None), None)

    @property
    def rating_gflops(self) -> int | None:
        """Nominal rating in GFLOPS, dense BF16 or else FP16."""
        precision = self.rated_precision
        tflops = None if precision is None else self.tflops(precision)
        return None if tflops is None else round(tflops * 1_000)

    @property
    def memory_gib(self) -> float | None:
        """Device memory in GiB. Stacks of HBM are sold in powers of two under the name GB."""
        return self.value("memory_gb")

    @property
    def bandwidth_gbs(self) -> float | None:
        """Memory bandwidth in GB/s."""
        return self.value("bandwidth_gbs")

    @property
    def tdp_w(self) -> float | None:
        """Rated power in W."""
        return self.value("tdp_w")

    @property
    def link_gbs(self) -> float | None:
        """Bandwidth to the other devices of the node in GB/s, both directions together."""
        return self.value("link_gbs")

    def unquotable(self) -> Problem | None:
        """Why this card cannot be quoted from the catalogue alone, or None where it can."""
        missing = [n for n in ("memory_gb", "bandwidth_gbs") if self.value(n) is None]
        figure = self.figures.get(f"{self.rated_precision}_tflops")
        command = f"dusuan catalog set {self.name!r} FIELD VALUE --source TEXT"
        remedy = f"calibrate it, or have the operator set it: {command}"
        if figure is None:
            words = f"{self.name}: dense BF16 or FP16 TFLOPS are not published"
            return Problem("unpublished", words, remedy=remedy)
        if missing:
            words = f"{self.name}: {' and '.join(missing)} not published"
            return Problem("unpublished", words, remedy=remedy)
        if figure.confidence not in TRUSTED:
            words = f"{self.name}: its TFLOPS are graded {figure.confidence} ({figure.source})"
            return Problem("unverified", words, remedy=remedy)
        return None


@dataclass(frozen=True, slots=True)
class Match:
    """A device found by name. `assumed` says what was assumed where the name fits several."""

    device: Accelerator
    assumed: str | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All known accelerators, in the order of the shipped table."""

    devices: tuple[Accelerator, ...]

    def find(self, name: str, variant: str = "") -> Accelerator | Problem:
        """The one device that `name` (and `variant`, such as `SXM4-80`) can mean.

        Tolerant of case, separators, makes and memory sizes: `H100-SXM5-80GB`, `h200_sxm`,
        `NVIDIA A100 80GB PCIe`. Returns a `Problem` that names the choices where several fit.
        """
        found = self.matches(name, variant)
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(d.name for d in found)
            words = f"{name[:60]!r} can be any of: {choices}"
            return Problem("ambiguous_device", words, remedy=f"name one, such as {found[0].name}")
        words = f"the catalogue has no accelerator {' '.join((name, variant)).strip()[:60]!r}"
        near = nearest(name, self._spellings())
        listed = "what there is: dusuan catalog"
        remedy = f"did you mean `{near}`? {listed}" if near else listed
        return Problem("unknown_device", words, remedy=remedy)

    def choose(self, name: str, variant: str = "") -> Match | Problem:
        """As `find`, but a name that fits several takes the usual variant and says so."""
        found = self.matches(name, variant)
        usual = sorted((d for d in found if d.usual), key=lambda d: d.usual)
        if len(found) < 2 or not usual:
            device = self.find(name, variant)
            return device if isinstance(device, Problem) else Match(device)
        others = ", ".join(d.name for d in found if d is not usual[0])
        return Match(usual[0], f"{name} is read as {usual[0].name} (not {others})")

    def matches(self, name: str, variant: str = "") -> tuple[Accelerator, ...]:
        """Every device that `name` and `variant` fit; an exact name fits only itself."""
        exact = [d for d in self.devices if naming.same(d.name, name)]
        if exact and not variant:
            return tuple(exact)
        asked = naming.words(f"{name} {variant}")
        return tuple(d for d in self.devices if naming.fits(asked, _labels(d), d.aliases))

    def with_overrides(self, overrides: Iterable[Override]) -> Catalogue:
        """The same catalogue with an operator's figures in place, in the order they were set.

        A card that is not shipped comes last.
        """
        by_device: dict[str, list[Override]] = {}
        for override in overrides:
            by_device.setdefault(override.device, []).append(override)
        shipped = {d.name for d in self.devices}
        added = [_added(name, o) for name, o in by_device.items() if name not in shipped]
        return Catalogue(
            tuple(
                _overridden(d, by_device[d.name]) if d.name in by_device else d
                for d in (*self.devices, *added)
            )
        )

    def _spellings(self) -> list[str]:
        return [*(d.name for d in self.devices), *(a for d in self.devices for a in d.aliases)]

    def rated(self, name: str) -> tuple[str, int] | Problem:
        """The name and rating in GFLOPS of what `name` means, for conversions.

        A family whose members are all rated alike, such as A100, is as good as one device.
        """
        found = self.matches(name)
        ratings = {device.rating_gflops for device in found}
        if len(found) > 1 and len(ratings) == 1 and None not in ratings:
            return name, found[0].rating_gflops or 0
        device = self.find(name)
        if isinstance(device, Problem):
            return device
        if device.rating_gflops is None:
            return device.unquotable() or Problem("unpublished", f"{device.name} has no rating")
        return device.name, device.rating_gflops


def parse(devices_csv: str, conflicts_csv: str = "") -> Catalogue:
    """The catalogue from the text of its two tables. Raises `ValueError` for a bad number."""
    conflicts: dict[str, list[Conflict]] = {}
    for row in csv.DictReader(io.StringIO(conflicts_csv)):
        said = Conflict(row["field"], float(row["value"]), row["source"], row["note"] or "")
        conflicts.setdefault(row["device"], []).append(said)
    rows = csv.DictReader(io.StringIO(devices_csv))
    return Catalogue(tuple(_device(row, conflicts.get(row["name"], ())) for row in rows))


def _device(row: Mapping[str, str], conflicts: Sequence[Conflict]) -> Accelerator:
    return Accelerator(
        name=row["name"],
        make=row["make"],
        form=row["form"],
        year=int(row["year"]) if row["year"] else None,
        memory_type=row["memory_type"],
        aliases=tuple(row["aliases"].split("|")),
        figures=_figures(row),
        confidence=row["confidence"],
        source=row["source"],
        note=row["note"],
        usual=int(row["default"] or 0),
        conflicts=tuple(conflicts),
    )


def _figures(row: Mapping[str, str]) -> dict[str, Figure]:
    compute = row["confidence_compute"] or row["confidence"]
    graded = {name: compute if name in COMPUTE_FIELDS else row["confidence"] for name in FIELDS}
    return {n: Figure(float(row[n]), row["source"], graded[n]) for n in FIELDS if row[n]}


def _labels(device: Accelerator) -> str:
    """Every word that may stand beside the family's name in a spelling of this device."""
    memory = device.memory_gib
    size = "" if memory is None else f"{memory:g} {memory:g}gb"
    return f"{device.name} {device.make} {device.form} {device.memory_type} {size}"


def new_card(name: str, make: str, source: str = "") -> Accelerator:
    """A card that only an operator knows, still without a figure. Its make may be left unsaid."""
    short = " ".join(word for word in name.split() if word.lower() not in make.lower().split())
    aliases = tuple(dict.fromkeys((name, short or name)))
    return Accelerator(name, make, "", None, "", aliases, {}, "operator", source)


def _added(name: str, overrides: Sequence[Override]) -> Accelerator:
    make = next((o.make for o in overrides if o.make), "")
    return new_card(name, make, f"added by {overrides[0].by} at {overrides[0].at}")


def _overridden(device: Accelerator, overrides: Sequence[Override]) -> Accelerator:
    figures = dict(device.figures)
    for override in overrides:
        figures.pop(override.field, None)
        if override.value is not None:
            source = f"{override.source} (set by {override.by} at {override.at})"
            figures[override.field] = Figure(override.value, source, "operator")
        elif override.field in device.figures:
            figures[override.field] = device.figures[override.field]
    return replace(device, figures=figures, overrides=(*device.overrides, *overrides))
