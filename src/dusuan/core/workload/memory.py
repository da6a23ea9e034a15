"""Memory of training and serving on one device, over a parallel layout.

Weights, gradients and optimizer follow mixed-precision Adam at 18 bytes a parameter: 2 for the
16-bit weight, 4 for its gradient, 12 for master weight and moments (Korthikanti et al., arXiv
2205.05198, and its Figure 1). Activations follow equations 1 to 6 of that paper, written out by
what each matrix keeps, so that grouped heads, gated feed-forwards and experts come out as well;
for a GPT block they are `sbh(10 + 24/t + 5as/ht)` exactly. Bytes throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dusuan.core.workload.architecture import (
    Architecture,
    Attention,
    Block,
    FeedForward,
    Latent,
    Recurrence,
)
from dusuan.core.workload.flops import LORA_RANK, Finetune, Recompute, adapter_params

GIB = 2**30
RESERVE_BYTES = 3.5e9  # context, communication buffers, fragmentation of one device
PARTS = (
    *("weights", "gradients", "optimizer", "embeddings", "activations", "logits"),
    *("cache", "reserve"),
)
WEIGHT, GRADIENT, OPTIMIZER = 2, 4, 12
FROZEN_BYTES = {Finetune.LORA: 2.0, Finetune.QLORA: 0.5625}  # NF4 with doubly quantised scales


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model lies on devices: `tensor * pipeline * data` of them.

    `expert` parallelism splits experts within the data-parallel group. `zero` is the stage of
    ZeRO (FSDP is 3). `interleave` is the number of model chunks a pipeline stage holds.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1
    zero: int = 1
    sequence_parallel: bool = True
    recompute: Recompute = Recompute.NONE
    micro_batch: int = 1
    interleave: int = 1

    @property
    def count(self) -> int:
        """Devices."""
        return self.tensor * self.pipeline * self.data

    @property
    def model_parallel(self) -> int:
        """Devices that hold one copy of the model."""
        return self.tensor * self.pipeline

    def describe(self) -> dict[str, int | str | bool]:
        """As JSON shows it."""
        return {
            "tp": self.tensor,
            "pp": self.pipeline,
            "dp": self.data,
            "ep": self.expert,
            "zero": self.zero,
            "recompute": str(self.recompute),
            "sequence_parallel": self.sequence_parallel and self.tensor > 1,
            "micro_batch": self.micro_batch,
            "interleave": self.interleave,
        }


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device that needs most. `embeddings` are those of embeddings and head, whole."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    embeddings: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    reserve: float = RESERVE_BYTES

    @property
    def states(self) -> float:
        """Weights, gradients and optimizer of everything."""
        return self.weights + self.gradients + self.optimizer + self.embeddings

    @property
    def total(self) -> float:
        """What the job itself allocates."""
        return self.states + self.activations + self.logits + self.cache

    @property
    def total_gib(self) -> float:
        """What the job itself allocates, in GiB."""
        return self.total / GIB

    @property
    def needed_gib(self) -> float:
        """What a device must have for it, in GiB: the reserve included."""
        return (self.total + self.reserve) / GIB

    def describe(self) -> dict[str, float]:
        """In GiB, as JSON shows it."""
        return {f"{name}_gib": round(getattr(self, name) / GIB, 4) for name in PARTS}


def training(
    arch: Architecture,
    seq: int,
    layout: Layout,
    method: Finetune = Finetune.FULL,
    *,
    rank: int = LORA_RANK,
    flash: bool = True,
) -> Memory:
    """Memory of the busiest device of a training step with sequences of `seq` tokens.

    With `flash` attention the scores are never kept, as with selective recompute. The first
    pipeline stage has most activations in flight, the last one the logits: the larger counts.
    """
    states = _states(arch, layout, method, rank)
    kept = pipeline_activations(arch, seq, layout, flash=flash and arch.causal)
    logits = _logits(arch, seq, layout)
    if layout.pipeline == 1:
        return replace(states, activations=kept, logits=logits)
    last = kept / layout.pipeline  # one micro-batch in flight on the last stage
    if last + logits > kept:
        return replace(states, activations=last, logits=logits)
    return replace(states, activations=kept)


def stage_params(arch: Architecture, layout: Layout) -> float:
    """Parameters of layers on one device: experts are split once more by expert parallelism."""
    experts = arch.expert_params
    split = (layer_params(arch) - experts) / layout.model_parallel
    return split + experts / (layout.model_parallel * layout.expert)


def end_params(arch: Architecture, layout: Layout) -> float:
    """Parameters of embeddings (and, without a pipeline, of an untied head) on one device."""
    embeddings = arch.vocab * arch.hidden * (1 if arch.tied or layout.pipeline > 1 else 2)
    return (embeddings + arch.positions * arch.hidden) / layout.tensor


def layer_params(arch: Architecture) -> int:
    """Parameters of all layers, without embeddings and head."""
    return sum(b.count * b.weights(arch.hidden, active=False) for b in arch.blocks)


def _states(arch: Architecture, layout: Layout, method: Finetune, rank: int) -> Memory:
    data, params, ends = layout.data, stage_params(arch, layout), end_params(arch, layout)
    over = [data if layout.zero >= stage else 1 for stage in (3, 2, 1)]
    if method is Finetune.FULL:
        gathered = 2 * 2 * _largest_layer(arch, layout) if layout.zero >= 3 and data > 1 else 0.0
        each = (WEIGHT / over[0], GRADIENT / over[1], OPTIMIZER / over[2])
        weights, gradients, optimizer = (size * params for size in each)
        return Memory(weights + gathered, gradients, optimizer, 0.0, sum(each) * ends)
    learned = adapter_params(arch, rank) / layout.model_parallel
    return Memory(
        weights=(FROZEN_BYTES[method] * params + WEIGHT * learned) / over[0],
        gradients=GRADIENT * learned / over[1],
        optimizer=OPTIMIZER * learned / over[2],
        activations=0.0,
        embeddings=WEIGHT * ends / over[0],  # they stay in 16 bits, QLoRA's too
    )


def _largest_layer(arch: Architecture, layout: Layout) -> float:
    """ZeRO-3 gathers a layer while it is used, and the next one beforehand."""
    layers = max(b.weights(arch.hidden, active=False) for b in arch.blocks)
    return max(layers, arch.vocab * arch.hidden) / layout.tensor


def pipeline_activations(arch: Architecture, seq: int, layout: Layout, *, flash: bool) -> float:
    """Activations of the first stage, which has a micro-batch of every stage in flight.

    With interleaving the factor is 1 + (p - 1)/(p m) (Korthikanti et al., section 4.2.3).
    """
    total = sum(b.count * layer_activations(arch, b, seq, layout, flash=flash) for b in arch.blocks)
    p, m = layout.pipeline, layout.interleave
    return total * (1 + (p - 1) / (p * m) if m > 1 else 1)


def layer_activations(
    arch: Architecture, block: Block, seq: int, layout: Layout, *, flash: bool
) -> float:
    """Bytes that one layer keeps for the backward pass of one micro-batch."""
    tokens = seq * layout.micro_batch
    t = layout.tensor
    whole_t = t if layout.sequence_parallel else 1
    if layout.recompute is Recompute.FULL:
        return 2 * tokens * arch.hidden / whole_t
    whole, split = _mixer_kept(arch, block), _mixer_inner(block)
    whole += _feed_kept(arch, block.feed)
    split += _feed_inner(block.feed)
    kept = tokens * (whole / whole_t + split / t)
    if flash or layout.recompute is Recompute.SELECTIVE or not isinstance(block.mixer, Attention):
        return kept
    return kept + 5 * block.mixer.heads * tokens * seq / t


def _dropped(block_or_feed: FeedForward | None) -> bool:
    """GPT's plain blocks have dropout, whose mask of one byte is kept; gated ones have none."""
    return block_or_feed is not None and not block_or_feed.gated


def _mixer_kept(arch: Architecture, block: Block) -> int:
    """Bytes a token that only sequence parallelism splits: the norm's input, the projection's."""
    if block.mixer is None:
        return 0
    return arch.hidden * (4 + (1 if _dropped(block.feed) else 0))


def _mixer_inner(block: Block) -> int:
    """Bytes a token that tensor parallelism splits: queries, keys, values and the output."""
    mixer = block.mixer
    if isinstance(mixer, Attention):
        queries = mixer.heads * mixer.head_dim * (2 if mixer.gated else 1)
        return 2 * (queries + mixer.kv_values + mixer.heads * mixer.v_head_dim)
    if isinstance(mixer, Latent):
        latents = (mixer.q_rank or 0) + mixer.kv_rank + mixer.rope_dim
        return 2 * (latents + 2 * mixer.score_width)
    if isinstance(mixer, Recurrence):
        return 2 * (2 * mixer.in_width + mixer.out_width)
    return 0


def _feed_kept(arch: Architecture, feed: FeedForward | None) -> int:
    if feed is None:
        return 0
    copies = 2 * feed.active + (1 if feed.shared_width else 0) if feed.experts else 1
    return arch.hidden * (2 + 2 * copies + (1 if _dropped(feed) else 0))


def _feed_inner(feed: FeedForward | None) -> int:
    if feed is None:
        return 0
    width = feed.width * feed.active + feed.shared_width if feed.experts else feed.width
    return 2 * (3 if feed.gated else 2) * width


def _logits(arch: Architecture, seq: int, layout: Layout) -> float:
    """Logits and their gradient in FP32, the last norm's input and the head's."""
    tokens = seq * layout.micro_batch
    return tokens * (4 * arch.vocab * 2 + 4 * arch.hidden) / layout.tensor


def serving(
    arch: Architecture,
    context: int,
    batch: int,
    layout: Layout,
    *,
    weight_bits: float = 16.0,
    kv_bits: float = 16.0,
) -> Memory:
    """Memory of one device that serves `batch` sequences of up to `context` tokens.

    Keys and values are split over at most as many devices as there are key heads; a latent cache
    is the same on every one. Data parallelism splits the batch, expert parallelism the experts.
    Embeddings and head stay in 16 bits.
    """
    weights = stage_params(arch, layout) * weight_bits / 8
    embeddings = WEIGHT * end_params(arch, layout)
    each = -(-batch // layout.data)
    cache = each * _cache(arch, context, layout, kv_bits / 8)
    passed = min(context, 8_192)  # tokens of one chunk of a prefill
    activations = passed * (8 * arch.hidden + 4 * arch.feed_width / layout.tensor)
    logits = 4.0 * arch.vocab * each / layout.tensor
    return Memory(weights, 0.0, 0.0, activations, embeddings, logits, cache)


def _cache(arch: Architecture, context: int, layout: Layout, bytes_each: float) -> float:
    """Cache of one sequence on one device."""
    total = 0.0
    for block in arch.blocks:
        one = replace(arch, blocks=(block,)).kv_bytes(context, bytes_each)
        mixer = block.mixer
        split = min(layout.tensor, mixer.kv_heads) if isinstance(mixer, Attention) else 1
        total += one / (layout.tensor if isinstance(mixer, Recurrence) else split)
    return total / layout.pipeline
