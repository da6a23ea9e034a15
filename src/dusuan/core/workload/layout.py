"""The parallel layout that a model fits with on so many devices, or why none does.

Candidates are tried from what costs least to what costs most: less recompute, fewer stages, less
splitting of matrices. The costs are rules of thumb for ordering only, never a time estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from dusuan.core.workload import memory
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.flops import LORA_RANK, Finetune, Recompute
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.memory import GIB, Layout, Memory
from dusuan.core.workload.quantities import did_you_mean

NODE_DEVICES = 8
TENSOR_SIZES = (1, 2, 4, 8)
MICRO_BATCHES = (8, 4, 2, 1)
COUNT_MAX = 131_072


@dataclass(frozen=True, slots=True)
class Fitted:
    """A layout and the memory it needs on the device that needs most."""

    layout: Layout
    memory: Memory

    def fits(self, memory_gib: float) -> bool:
        """Whether a device of `memory_gib` can hold it, the reserve included."""
        return self.memory.needed_gib <= memory_gib


@dataclass(frozen=True, slots=True)
class TrainingNeed:
    """What the memory of a training step depends on, besides layout and device."""

    arch: Architecture
    seq: int
    method: Finetune = Finetune.FULL
    global_batch: int = 1_024  # sequences of a step, over all devices
    rank: int = LORA_RANK

    def at(self, layout: Layout) -> Fitted:
        """The memory of one layout."""
        need = memory.training(self.arch, self.seq, layout, self.method, rank=self.rank)
        return Fitted(layout, need)


@dataclass(frozen=True, slots=True)
class ServingNeed:
    """What the memory of serving depends on, besides layout and device."""

    arch: Architecture
    context: int
    batch: int = 1
    weight_bits: float = 16.0
    kv_bits: float = 16.0

    def at(self, layout: Layout) -> Fitted:
        """The memory of one layout."""
        need = memory.serving(
            self.arch,
            self.context,
            self.batch,
            layout,
            weight_bits=self.weight_bits,
            kv_bits=self.kv_bits,
        )
        return Fitted(layout, need)


Need = TrainingNeed | ServingNeed


def choose(need: Need, memory_gib: float, count: int) -> Fitted | Problem:
    """The layout with the least overhead that fits on `count` devices of `memory_gib` each."""
    every = candidates(need, count)
    found = next((fitted for fitted in every if fitted.fits(memory_gib)), None)
    return _too_small(leanest(every), memory_gib, count) if found is None else found


class Candidates:
    """Layouts in order, each with its memory: counted when it is first asked for, and kept."""

    def __init__(self, need: Need, layouts: Sequence[Layout]) -> None:
        self._need = need
        self._layouts = layouts
        self._counted: list[Fitted] = []

    def __iter__(self) -> Iterator[Fitted]:
        for i, layout in enumerate(self._layouts):
            if i == len(self._counted):
                self._counted.append(self._need.at(layout))
            yield self._counted[i]


@lru_cache(maxsize=1_024)
def candidates(need: Need, count: int) -> Candidates:
    """Every layout worth trying on `count` devices with its memory, least overhead first."""
    return Candidates(need, layouts(need, count))


@lru_cache(maxsize=1_024)
def layouts(need: Need, count: int) -> tuple[Layout, ...]:
    """Every layout worth trying on `count` devices, least overhead first, without its memory."""
    return tuple(_serving(need, count) if isinstance(need, ServingNeed) else _training(need, count))


def leanest(every: Iterable[Fitted]) -> Fitted | None:
    """The layout that needs least memory, or None where there is none."""
    return min(every, key=lambda fitted: fitted.memory.needed_gib, default=None)


def smallest(need: Need, memory_gib: float, most: int = COUNT_MAX) -> Fitted | Problem:
    """The layout on the fewest devices that fits: 1, 2, 4, 8, then whole nodes of 8, doubling."""
    refused: Fitted | Problem = _too_small(None, memory_gib, most)
    for count in counts(most):
        refused = choose(need, memory_gib, count)
        if isinstance(refused, Fitted):
            return refused
    return refused


def counts(most: int = COUNT_MAX) -> Iterator[int]:
    """Counts worth trying, in order: powers of two, and from 8 also half-way between them."""
    count = 1
    while count <= most:
        yield count
        if count >= NODE_DEVICES and count * 3 // 2 <= most:
            yield count * 3 // 2
        count *= 2


def _too_small(least: Fitted | None, memory_gib: float, count: int) -> Problem:
    if least is None:
        words = f"no parallel layout divides this model over {count} devices"
        return Problem("no_layout", words, remedy="take a count that its layers or heads divide")
    parts = {n: getattr(least.memory, n) for n in memory.PARTS if n != "reserve"}
    largest = max(parts, key=lambda name: parts[name])
    words = (
        f"at least {least.memory.needed_gib:.1f} GiB are needed on each of {count} devices that "
        f"have {memory_gib:g} GiB; most of it is {largest} ({parts[largest] / GIB:.1f} GiB)"
    )
    remedy = "use more devices, or devices with more memory"
    return Problem("out_of_memory", words, remedy=remedy)


def _training(need: TrainingNeed, count: int) -> list[Layout]:
    found = [layout for layout in _splits(need, count) if need.global_batch % layout.data == 0]
    if not found:  # a batch that no data-parallel size divides is padded
        found = list(_splits(need, count))
    variants = [v for layout in found for v in _variants(need, layout)]
    return sorted(variants, key=lambda layout: overhead(need, layout))


def _splits(need: TrainingNeed, count: int) -> Iterator[Layout]:
    arch = need.arch
    for tensor in TENSOR_SIZES:
        if count % tensor or arch.heads % tensor:
            continue
        for pipeline in _stages(arch, count // tensor):
            data = count // (tensor * pipeline)
            for expert in _experts(arch, data):
                yield Layout(tensor, pipeline, data, expert)


def _stages(arch: Architecture, most: int) -> list[int]:
    """Pipeline stages: those that divide the devices and leave every stage a layer."""
    small = [p for p in range(1, 129) if most % p == 0 and p <= arch.layers]
    even = [p for p in small if arch.layers % p == 0]
    return sorted({*even, *(p for p in small if p & (p - 1) == 0)})


def _experts(arch: Architecture, data: int) -> list[int]:
    """Expert-parallel sizes: one, or what divides both the experts and the data group."""
    if not arch.is_moe:
        return [1]
    return [e for e in (1, 2, 4, 8, 16, 32, 64) if data % e == 0 and arch.experts % e == 0]


def _variants(need: TrainingNeed, layout: Layout) -> Iterator[Layout]:
    zeros = (1,) if layout.pipeline > 1 else (1, 2, 3)
    each = max(need.global_batch // layout.data, 1)
    for zero in zeros if layout.data > 1 else (0,):
        for recompute in (Recompute.NONE, Recompute.FULL):
            for micro in MICRO_BATCHES:
                if micro <= each and each % micro == 0:
                    yield Layout(  # not `replace`, which takes four times as long
                        *(layout.tensor, layout.pipeline, layout.data, layout.expert),
                        zero=zero,
                        recompute=recompute,
                        micro_batch=micro,
                    )


def overhead(need: TrainingNeed, layout: Layout) -> float:
    """Relative time beside the arithmetic: for ordering candidates."""
    micro_batches = max(need.global_batch // (layout.data * layout.micro_batch), 1)
    bubble = (layout.pipeline - 1) / micro_batches
    tensor = {1: 0.0, 2: 0.04, 4: 0.07, 8: 0.12}[layout.tensor]
    zero = {0: 0.0, 1: 0.01, 2: 0.02, 3: 0.05}[layout.zero]
    recompute = 0.0 if layout.recompute is Recompute.NONE else 0.30
    expert = 0.02 * (layout.expert.bit_length() - 1)
    micro = 0.02 / layout.micro_batch
    return bubble + tensor + zero + recompute + expert + micro + 0.001 * layout.pipeline


def _serving(need: ServingNeed, count: int) -> list[Layout]:
    """Matrices split within a node first; beyond it, replicas or pipeline stages."""
    arch, found = need.arch, []
    for tensor in (*TENSOR_SIZES, 16, 32, 64):
        if count % tensor or arch.heads % tensor:
            continue
        rest = count // tensor
        stages = [p for p in _stages(arch, rest) if p == 1 or tensor >= NODE_DEVICES]
        for pipeline in stages:
            data = rest // pipeline
            experts = max(_experts(arch, data))
            found.append(Layout(tensor, pipeline, data, experts, zero=0))
    return sorted(found, key=lambda x: (x.tensor > NODE_DEVICES, x.pipeline, x.tensor))


_KEYS = {
    **dict.fromkeys(("tp", "tensor"), "tensor"),
    **dict.fromkeys(("pp", "pipeline"), "pipeline"),
    **dict.fromkeys(("dp", "data"), "data"),
    **dict.fromkeys(("ep", "expert"), "expert"),
    **dict.fromkeys(("mb", "micro_batch", "micro"), "micro_batch"),
    **dict.fromkeys(("vp", "interleave"), "interleave"),
    "zero": "zero",
}
_LAYOUT_WORDS = (*_KEYS, "recompute", "sp")


def parse_layout(text: str, count: int | None = None) -> Layout | Problem:
    """A layout from `tp=8,pp=4,zero=1,recompute=full,mb=1,sp=off`; `dp` follows from `count`."""
    sizes: dict[str, int] = {}
    recompute, sequence_parallel = Recompute.NONE, True
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, _, value = (piece.strip().lower() for piece in part.partition("="))
        if key == "recompute" and value in tuple(Recompute):
            recompute = Recompute(value)
        elif key in ("sp", "sequence_parallel") and value in ("on", "off", "1", "0"):
            sequence_parallel = value in ("on", "1")
        elif key in _KEYS and value.isdigit() and 0 < int(value) + (key == "zero") <= COUNT_MAX:
            sizes[_KEYS[key]] = int(value)
        else:
            return _no_part(part, key)
    plain = replace(Layout(), recompute=recompute, sequence_parallel=sequence_parallel)
    layout = replace(plain, **sizes)  # type: ignore[arg-type] # the keys are those of sizes
    return _counted(layout, sizes, count)


def _no_part(part: str, key: str) -> Problem:
    usual = "such as tp=8,pp=4,dp=2,zero=1,recompute=full,mb=1"
    if key in _KEYS or key in _LAYOUT_WORDS:
        words = f"{part[:40]!r}: {key} cannot be that"
        return Problem("wrong_layout", words, remedy=usual)
    words = f"{part[:40]!r} is no part of a layout"
    return Problem("wrong_layout", words, remedy=f"{usual}; {did_you_mean(key, _LAYOUT_WORDS)}")


def _counted(layout: Layout, sizes: dict[str, int], count: int | None) -> Layout | Problem:
    if layout.zero > 3:
        words = f"ZeRO has stages 0 to 3, not {layout.zero}"
        return Problem("wrong_layout", words, remedy="zero=1")
    if "data" not in sizes and count is not None and count % layout.model_parallel == 0:
        layout = replace(layout, data=count // layout.model_parallel)
    if count is not None and layout.count != count:
        words = f"tp x pp x dp is {layout.count}, and the count is {count}"
        return Problem("contradiction", words, remedy="leave out dp, or the count")
    if layout.expert > 1 and layout.data % layout.expert:
        words = f"ep={layout.expert} does not divide dp={layout.data}"
        return Problem("contradiction", words, remedy="expert parallelism splits the data group")
    return layout
