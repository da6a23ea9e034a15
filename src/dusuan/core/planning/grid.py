"""Ways to run a described workload, over device types and counts, each on its best layout.

Memory decides which layouts fit; the first that does, in the order of their overhead, is taken.
Time is that of published runs (`RunModel`); a layout loses what the model of a step says that it
loses against a plain one. What a device was seen to sustain replaces the former.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from dusuan.core.catalog.accelerators import Accelerator
from dusuan.core.energy.power import energy_kwh
from dusuan.core.planning.menu import Excluded, Way
from dusuan.core.workload import estimate, goodput, layout, stepmfu
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.describe import Kind, Work
from dusuan.core.workload.flops import Recompute
from dusuan.core.workload.goodput import RunFeatures, Span
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.layout import Fitted, Need, TrainingNeed
from dusuan.core.workload.memory import Layout
from dusuan.core.workload.stepmfu import StepModel

LINK_GBS_USUAL = 64.0  # PCIe 4.0, both directions, where a card's link is not published
UTILISATION_OF_INFERENCE = 0.3  # for its power only
PLAIN = Layout(data=8, zero=3)  # what most published runs come close to: sharded within a node


@dataclass(frozen=True, slots=True)
class Models:
    """The fitted models that times and energy rest on; `steps` tells what a layout loses."""

    fitted: estimate.Models
    steps: StepModel


@dataclass(frozen=True, slots=True)
class Option:
    """A device type that a workload may run on, and the counts to try.

    `rating_gflops` is what it is billed at. `sustained_gflops`: what a device of this type was seen
    to sustain on such work, with its low and high ends (GFLOPS), None where nothing was measured.
    `excluded`: why it is out before anything is computed.
    """

    device: Accelerator
    kind: str
    rating_gflops: int
    counts: tuple[int, ...]
    in_pool: bool = True
    sustained_gflops: tuple[float, float, float] | None = None
    excluded: str = ""


def ways(work: Work, options: Sequence[Option], models: Models) -> tuple[list[Way], list[Excluded]]:
    """Every way that fits, and for every device without one the reason."""
    found: list[Way] = []
    out: list[Excluded] = []
    fits, flop = _Fits(work, options), work.flop(work.amount.middle)
    for option in options:
        mine = [] if option.excluded else list(_of(work, option, models, fits, flop))
        found += mine
        if not mine:
            out.append(Excluded(option.device.name, None, _why(option, fits)))
    return found, out


class _Fits:
    """Which layout fits on which memory, by count: each layout's memory is worked out once."""

    def __init__(self, work: Work, options: Iterable[Option]) -> None:
        self._work = work
        self._need: Need | None = None
        if isinstance(work.model, Architecture):
            self._need = estimate.need_of(work)
        usable = [o for o in options if not o.excluded]
        sizes = {o.device.memory_gib for o in usable if o.device.memory_gib is not None}
        self._sizes = tuple(sorted(sizes, reverse=True))

    def at(self, option: Option, count: int) -> Fitted | None:
        """The layout on `count` devices, or None where none fits."""
        memory_gib = option.device.memory_gib
        if memory_gib is None:
            return None
        if self._need is None:
            fitted, fits, _ = estimate.fit(self._work, option.device, count, None)
            return fitted if fits else None
        return fitting(self._need, count, self._sizes)[0].get(memory_gib)

    def why(self, option: Option) -> str:
        """Why no count of `option` holds the workload."""
        device = option.device
        if device.memory_gib is None:
            return f"memory: that of {device.name} is not published"
        if self._need is None:
            return f"memory: {estimate.fit(self._work, device, option.counts[-1], None)[2]}"
        tried = [fitting(self._need, count, self._sizes)[1] for count in option.counts]
        leanest = [fitted for fitted in tried if fitted is not None]
        if not leanest:
            return "layout: its layers, heads and batch divide over none of the counts"
        least = min(leanest, key=lambda fitted: fitted.memory.needed_gib)
        needs, has = least.memory.needed_gib, device.memory_gib
        at = least.layout.count
        return f"memory: {needs:.1f} GiB are needed on each of {at}, and a device has {has:g}"


@lru_cache(maxsize=512)
def fitting(
    need: Need, count: int, sizes: tuple[float, ...]
) -> tuple[dict[float, Fitted], Fitted | None]:
    """The first layout that fits on each size of memory (largest first), and the leanest tried."""
    found: dict[float, Fitted] = {}
    least: Fitted | None = None
    waiting = list(sizes)
    for each in layout.layouts(need, count):
        if isinstance(need, TrainingNeed) and each.data > need.global_batch:
            continue  # more replicas than sequences in a step: some would idle
        fitted = need.at(each)
        needed = fitted.memory.needed_gib
        if least is None or needed < least.memory.needed_gib:
            least = fitted
        while waiting and needed <= waiting[0]:
            found[waiting.pop(0)] = fitted
        if not waiting:
            break
    return found, least


def _of(work: Work, option: Option, models: Models, fits: _Fits, flop: int) -> Iterable[Way]:
    """The ways on one device type. A layout costs what it loses against the plainest there is."""
    fitting = [(count, fits.at(option, count)) for count in option.counts]
    if all(fitted is None for _, fitted in fitting):
        return
    # A measurement was taken on one device alone; published runs were sharded.
    alone = Layout() if option.sustained_gflops is not None else PLAIN
    plain = _strain(work, option.device, alone, models)
    features = _features(work, option.device, flop)
    inference = work.kind in (Kind.BATCH, Kind.SERVE)
    whole = None if inference else _hours(work, option, features, PLAIN, models)
    for count, fitted in fitting:
        if fitted is None:
            continue
        hours = whole
        if inference:
            hours = _hours(work, option, replace(features, devices=count), fitted, models)
        if hours is not None:
            lost = max(_strain(work, option.device, fitted.layout, models) / plain, 1.0)
            factor = lost / goodput.availability(count)
            yield _way(option, count, fitted, _times(hours, factor), models, flop)


def _features(work: Work, device: Accelerator, flop: int) -> RunFeatures:
    peak = None if device.rated_precision is None else device.tflops(device.rated_precision)
    features = estimate.features(work, device, peak or 0.0, 0, 1.0)
    return replace(features, flop=float(flop), devices=None)


def _hours(
    work: Work, option: Option, features: RunFeatures, fitted: Fitted | Layout, models: Models
) -> Span | None:
    """Device-hours before failures, from what was measured on this type where there is that."""
    if option.sustained_gflops is not None:
        low, middle, high = option.sustained_gflops
        gflop = features.flop / 1e9 / 3_600
        return Span(gflop / high, gflop / middle, gflop / low)
    if features.peak_tflops <= 0:
        return None
    if isinstance(fitted, Fitted) and work.kind in (Kind.BATCH, Kind.SERVE):
        return estimate.time(work, option.device, features.devices or 1, fitted, models.fitted)
    hours = goodput.run_hours(models.fitted.runs, features)
    span = work.amount
    if span.known:
        return hours
    return Span(hours.p10 * span.low / span.middle, hours.p50, hours.p90 * span.high / span.middle)


def _times(hours: Span, factor: float) -> Span:
    return Span(hours.p10 * factor, hours.p50 * factor, hours.p90 * factor)


def _need(work: Work) -> TrainingNeed:
    need = estimate.need_of(work)
    assert isinstance(need, TrainingNeed)
    return need


def _strain(work: Work, device: Accelerator, at: Layout, models: Models) -> float:
    """Relative device-seconds for each token on this layout: only ratios of it mean anything."""
    arch = work.model
    if not isinstance(arch, Architecture) or work.kind in (Kind.BATCH, Kind.SERVE):
        return 1.0
    peak = (device.tflops(device.rated_precision) if device.rated_precision else None) or 1.0
    step = stepmfu.Step(
        params=arch.params_active,
        hidden=arch.hidden,
        layers=max(arch.layers, 1),
        vocab=arch.vocab,
        seq=work.seq,
        devices=at.count,
        micro_batch=at.micro_batch,
        global_batch=max(work.batch, at.data),
        peak=peak * 1e12,
        bandwidth=(device.bandwidth_gbs or 1.0) * 1e9,
        link=(device.link_gbs or LINK_GBS_USUAL) * 1e9,
        recompute=at.recompute is Recompute.FULL,
        gathers_weights=at.zero >= 3,
        sharded=at.zero >= 2,
        tensor=at.tensor,
        pipeline=at.pipeline,
        interleave=at.interleave,
    )
    return 1.0 / stepmfu.utilisation(models.steps, step)


def _way(option: Option, count: int, fitted: Fitted, hours: Span, models: Models, flop: int) -> Way:
    device = option.device
    reached = _reached(device, hours, flop)
    energy = None
    if device.tdp_w is not None:
        energy = energy_kwh(models.fitted.power, device.tdp_w, reached, hours.p50)
    return Way(
        device=device.name,
        kind=option.kind,
        count=count,
        rating_gflops=option.rating_gflops,
        finish_p50_s=hours.p50 * 3_600 / count,
        finish_p90_s=hours.p90 * 3_600 / count,
        basis="estimated",
        layout=fitted.layout,
        energy_kwh=energy,
        memory_gib=round(fitted.memory.total_gib, 4),
        in_pool=option.in_pool,
    )


def _reached(device: Accelerator, hours: Span, flop: int) -> float:
    """The share of the nominal peak that the work reaches, for its power."""
    peak = None if device.rated_precision is None else device.tflops(device.rated_precision)
    if not peak or hours.p50 <= 0:
        return UTILISATION_OF_INFERENCE
    return min(flop / (hours.p50 * 3_600 * peak * 1e12), 1.0)


def _why(option: Option, fits: _Fits) -> str:
    if option.excluded:
        return option.excluded
    if not option.counts:
        return "quota: none of it may be used"
    fitted = [c for c in option.counts if fits.at(option, c) is not None]
    if not fitted:
        return fits.why(option)
    missing = "bandwidth" if option.device.bandwidth_gbs is None else "TFLOPS"
    return f"unpublished: the {missing} of {option.device.name}, without which it has no time"


def unquotable(device: Accelerator) -> str:
    """Why a card of the catalogue cannot be sized, as a reason on a menu; empty where it can."""
    problem: Problem | None = device.unquotable()
    if problem is None:
        return ""
    return f"{problem.code}: {problem.text.partition(': ')[2]}; {problem.remedy}"
