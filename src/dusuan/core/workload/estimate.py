"""What a described workload takes: FLOP, degrees, device-hours, memory, layout and energy.

The exact parts (FLOP, memory, layout) come from the model; time and power come from fitted models
that are passed in, so that they can be exchanged and their errors reported on their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dusuan.core.catalog.accelerators import Accelerator, Match
from dusuan.core.energy.power import PowerModel, energy_kwh
from dusuan.core.units import degrees_text
from dusuan.core.workload import flops, layout, serving, servingrows
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.describe import Kind, Work
from dusuan.core.workload.goodput import RunFeatures, RunModel, run_hours, utilisation
from dusuan.core.workload.goodput import Span as Hours
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.layout import Fitted, ServingNeed, TrainingNeed
from dusuan.core.workload.memory import GIB, RESERVE_BYTES, Layout, Memory
from dusuan.core.workload.serving import ServingModel
from dusuan.core.workload.vision import VisionModel

INFERENCE_SPREAD = 1.6  # factor of an 80 % interval beside the serving model's point
INFERENCE_UTILISATION = 0.3  # of the peak, for the power drawn while serving


@dataclass(frozen=True, slots=True)
class Models:
    """The fitted models: time of runs, times of serving, power."""

    runs: RunModel
    serving: ServingModel
    power: PowerModel


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a workload takes on `count` of `device`. None where nothing is known.

    Amounts of work in FLOP and GFLOP, time in device-hours, memory in GiB, energy in kWh.
    """

    work: Work
    device: Accelerator
    count: int
    flop_total: int
    flop_full_square: int
    hours: Hours | None
    fitted: Fitted | None
    fits: bool
    reason: str
    energy_kwh: float | None
    assumptions: tuple[str, ...]

    def held_gflop(self, hours: float) -> int | None:
        """What is held in so many device-hours, in GFLOP, at the nominal rating."""
        rating = self.device.rating_gflops
        return None if rating is None else round(rating * hours * 3_600)

    def noting(self, *notes: str) -> Estimate:
        """The same with more said of what was assumed."""
        return replace(self, assumptions=(*self.assumptions, *notes))

    def document(self) -> dict[str, Any]:
        """As `dusuan estimate --json` shows it."""
        model, memory = self.work.model, None if self.fitted is None else self.fitted.memory
        return {
            "model": model.name,
            "kind": str(self.work.kind),
            "params_total": model.params_total,
            "params_active": model.params_active,
            "device": self.device.name,
            "count": self.count,
            **_amount(self.work),
            "flop_total": self.flop_total,
            "flop_full_square": self.flop_full_square,
            "delivered_degrees": degrees_text(self.flop_total // 10**9),
            **self._spans(),
            "memory_gib_per_device": None if memory is None else round(memory.total_gib, 4),
            "memory": None if memory is None else memory.describe(),
            "fits": self.fits,
            "layout": None if self.fitted is None else self.fitted.layout.describe(),
            "reason": self.reason or None,
            "energy_kwh_p50": None if self.energy_kwh is None else round(self.energy_kwh, 3),
            "assumptions": list(self.assumptions),
        }

    def _spans(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("p10", "p50", "p90"):
            hours = None if self.hours is None else getattr(self.hours, name)
            held = None if hours is None else self.held_gflop(hours)
            found[f"held_degrees_{name}"] = None if held is None else degrees_text(held)
            found[f"device_hours_{name}"] = None if hours is None else round(hours, 4)
        return found


def _amount(work: Work) -> dict[str, Any]:
    if work.kind is Kind.VISION:
        return {"images": round(work.amount.middle)}
    if work.kind in (Kind.BATCH, Kind.SERVE):
        each = {"prompt": work.prompt, "output": work.output, "concurrency": work.concurrency}
        return {"requests": round(work.amount.middle), **each, "seq": work.seq}
    span = work.amount
    return {
        "tokens": round(span.middle),
        "tokens_low": round(span.low),
        "tokens_high": round(span.high),
        "seq": work.seq,
        "batch": work.batch,
        "finetune": str(work.method) if work.kind is Kind.FINETUNE else None,
    }


def estimate(
    work: Work,
    device: Accelerator,
    models: Models,
    count: int | None = None,
    given: Layout | None = None,
) -> Estimate | Problem:
    """What `work` takes on `count` devices, or on the fewest that it fits on.

    `given` is a layout to keep to. Returns a `Problem` for a count that makes no sense; a model
    that does not fit is an estimate with `fits` false and the reason.
    """
    if count is not None and not 1 <= count <= layout.COUNT_MAX:
        words = f"a count of {count} devices is outside 1 to {layout.COUNT_MAX:,}"
        return Problem("out_of_range", words, remedy="leave it out for the fewest that fit")
    fitted, fits, reason = fit(work, device, count, given)
    used = count or (fitted.layout.count if fitted is not None else 1)
    hours = time(work, device, used, fitted, models)
    notes = _told(work, device, used, hours, count is None and given is None)
    return Estimate(
        work=work,
        device=device,
        count=used,
        flop_total=work.flop(work.amount.middle),
        flop_full_square=full_square(work),
        hours=hours,
        fitted=fitted,
        fits=fits,
        reason=reason,
        energy_kwh=_energy_kwh(work, device, used, hours, models),
        assumptions=notes,
    )


def full_square(work: Work) -> int:
    """The same FLOP with the masked half of attention counted as well, as some conventions do."""
    if not isinstance(work.model, Architecture) or work.kind in (Kind.BATCH, Kind.SERVE):
        return work.flop(work.amount.middle)
    tokens, seq = round(work.amount.middle), work.seq
    return flops.training(work.model, tokens, seq, work.method, rank=work.rank, full_square=True)


def fit(
    work: Work, device: Accelerator, count: int | None, given: Layout | None
) -> tuple[Fitted | None, bool, str]:
    """The layout with its memory, whether it fits, and why not."""
    memory_gib = device.memory_gib
    if isinstance(work.model, VisionModel):
        return _fit_vision(work, work.model, memory_gib, count or 1)
    need = need_of(work)
    if given is not None:
        return _judged(need.at(given), memory_gib)
    if memory_gib is None:
        return None, False, f"the memory of {device.name} is not published"
    if count is None:
        found = layout.smallest(need, memory_gib)
        return (None, False, found.text) if isinstance(found, Problem) else (found, True, "")
    chosen = layout.choose(need, memory_gib, count)
    if isinstance(chosen, Problem):
        return layout.leanest(layout.candidates(need, count)), False, chosen.text
    return chosen, True, ""


def need_of(work: Work) -> TrainingNeed | ServingNeed:
    """What the memory of a language model's work depends on."""
    assert isinstance(work.model, Architecture)
    if work.kind in (Kind.BATCH, Kind.SERVE):
        return ServingNeed(work.model, work.seq, work.concurrency, work.weight_bits)
    return TrainingNeed(work.model, work.seq, work.method, work.batch, work.rank)


def _judged(fitted: Fitted, memory_gib: float | None) -> tuple[Fitted, bool, str]:
    if memory_gib is None:
        return fitted, False, "the memory of this device is not published"
    if fitted.fits(memory_gib):
        return fitted, True, ""
    needed = fitted.memory.needed_gib
    words = f"{needed:.1f} GiB are needed on each device that has {memory_gib:g} GiB"
    return fitted, False, words


def _fit_vision(
    work: Work, model: VisionModel, memory_gib: float | None, count: int
) -> tuple[Fitted, bool, str]:
    """Data parallel with the largest micro-batch that fits: weights at 18 bytes, maps at 2."""
    each = max(work.batch // count, 1)
    while True:
        kept = 2.0 * model.kept_values * each
        states = Memory(2.0 * model.params, 4.0 * model.params, 12.0 * model.params, kept)
        fitted = Fitted(Layout(data=count, zero=0, micro_batch=each), states)
        if each == 1 or memory_gib is None or fitted.fits(memory_gib):
            return _judged(fitted, memory_gib)
        each //= 2


def time(
    work: Work, device: Accelerator, count: int, fitted: Fitted | None, models: Models
) -> Hours | None:
    """Device-hours, or None where the device's peak is not published.

    A range of tokens widens the interval: P10 is that of its low end, P90 that of its high end.
    """
    peak = None if device.rated_precision is None else device.tflops(device.rated_precision)
    if peak is None:
        return None
    if work.kind in (Kind.BATCH, Kind.SERVE):
        return _inference_hours(work, device, fitted, models)
    found = [
        run_hours(models.runs, features(work, device, peak, count, amount))
        for amount in (work.amount.low, work.amount.middle, work.amount.high)
    ]
    if work.amount.known:
        return found[1]
    return Hours(found[0].p10, found[1].p50, found[2].p90)


def features(
    work: Work, device: Accelerator, peak_tflops: float, count: int, amount: float
) -> RunFeatures:
    """What the fitted model of run time wants to know."""
    kind = work.model.kind if isinstance(work.model, VisionModel) else "dense"
    if isinstance(work.model, Architecture) and work.model.is_moe:
        kind = "moe"
    return RunFeatures(
        flop=float(work.flop(amount)),
        params_active=float(work.model.params_active),
        peak_tflops=peak_tflops,
        bandwidth_gbs=device.bandwidth_gbs,
        kind=kind,
        devices=count,
        fp8=work.precision == "fp8",
    )


def _inference_hours(
    work: Work, device: Accelerator, fitted: Fitted | None, models: Models
) -> Hours | None:
    """Of a stream of requests, `concurrency` of which are always under way."""
    arch = work.model
    assert isinstance(arch, Architecture)
    at = Layout() if fitted is None else fitted.layout
    row = {
        "isl": str(work.prompt),
        "osl": str(work.output),
        "tp_size": str(at.model_parallel),
        "attention_dp_size": str(at.data),
        "batch_size": str(max(1, -(-work.concurrency // at.data))),
        "precision": {8.0: "fp8", 16.0: "bf16"}.get(work.weight_bits, "int4"),
    }
    read = servingrows.deployment(row, lambda _: Match(device), lambda _: arch)
    if isinstance(read, Problem):
        return None
    use = read[0]
    steps_s = serving.tpot_s(models.serving, use) * max(work.output - 1, 0)
    request_s = serving.ttft_s(models.serving, use) + steps_s
    p50 = work.amount.middle * request_s / use.requests * at.count / 3_600
    return Hours(p50 / INFERENCE_SPREAD, p50, p50 * INFERENCE_SPREAD)


def _energy_kwh(
    work: Work, device: Accelerator, count: int, hours: Hours | None, models: Models
) -> float | None:
    """Energy of the devices and their share of the nodes, without cooling (PUE)."""
    peak = None if device.rated_precision is None else device.tflops(device.rated_precision)
    if hours is None or device.tdp_w is None or peak is None:
        return None
    reached = INFERENCE_UTILISATION
    if work.kind not in (Kind.BATCH, Kind.SERVE):
        reached = utilisation(models.runs, features(work, device, peak, count, work.amount.middle))
    return energy_kwh(models.power, device.tdp_w, reached, hours.p50)


def _told(
    work: Work, device: Accelerator, count: int, hours: Hours | None, chosen: bool
) -> tuple[str, ...]:
    notes = list(work.assumptions)
    if chosen:
        notes.append(f"{count} devices: the fewest that it fits on")
    problem = device.unquotable()
    if problem is not None:
        notes.append(f"{problem.text}; {problem.remedy}")
    if hours is None:
        notes.append(f"no time is estimated on {device.name}: a figure it needs is not published")
    if isinstance(work.model, Architecture) and work.model.causal:
        notes.append("attention is counted under its causal mask (flop_full_square: without)")
    if work.kind in (Kind.BATCH, Kind.SERVE):
        notes.append("time as the serving model has it, with requests always waiting")
    reserve = RESERVE_BYTES / GIB
    notes.append(f"{reserve:.2f} GiB of every device are kept free beside what the job allocates")
    if device.tdp_w is not None:
        notes.append("energy: devices and their share of the nodes, cooling (PUE) not included")
    return tuple(notes)
