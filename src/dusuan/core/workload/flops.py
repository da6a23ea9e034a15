"""FLOP of training and inference, counted exactly from an architecture.

A multiply-add is two FLOP. Counted are matrix products, attention scores and recurrences; norms,
activations and look-ups are not, as in the literature and in torch's counter. Under a causal mask
a token attends to itself and what came before it, and only that is counted (`full_square` counts
the masked half as well, as Megatron's formula, arXiv 2104.04473, and kernels without a causal path
do). The backward pass costs twice the forward pass: gradients of inputs and of weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dusuan.core.workload.architecture import Architecture, Attention, Block, Latent


class Finetune(StrEnum):
    """Which weights learn: all of them, or low-rank adapters beside frozen ones."""

    FULL = "full"
    LORA = "lora"
    QLORA = "qlora"


class Recompute(StrEnum):
    """What the backward pass computes anew instead of keeping it."""

    NONE = "none"
    SELECTIVE = "selective"  # attention scores
    FULL = "full"  # every layer


LORA_RANK = 16


@dataclass(frozen=True, slots=True)
class ForwardFlop:
    """FLOP of one forward pass, by what they are spent on."""

    layers: int
    scores: int
    recurrent: int
    head: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.layers + self.scores + self.recurrent + self.head


def forward(arch: Architecture, seq: int, *, full_square: bool = False) -> ForwardFlop:
    """FLOP of a forward pass over one sequence of `seq` tokens, with logits for every token."""
    weights = sum(b.count * b.matmul_weights(arch.hidden, active=True) for b in arch.blocks)
    full = full_square or not arch.causal
    return ForwardFlop(
        layers=2 * weights * seq,
        scores=sum(b.count * _scores(b, seq, full) for b in arch.blocks),
        recurrent=seq * sum(b.count * b.mixer.recurrent_flop for b in arch.blocks if b.mixer),
        head=2 * arch.vocab * arch.hidden * seq,
    )


def _scores(block: Block, seq: int, full: bool) -> int:
    mixer = block.mixer
    if not isinstance(mixer, Attention | Latent):
        return 0
    if isinstance(mixer, Latent) and mixer.selected is not None:
        chosen = pairs(seq, mixer.selected, full=False)
        indexer = 2 * mixer.index_heads * mixer.index_dim * pairs(seq, None, full=full)
        return 2 * mixer.score_width * chosen + indexer
    chunked = isinstance(mixer, Attention) and mixer.chunked
    return 2 * mixer.score_width * pairs(seq, mixer.window, full=full, chunked=chunked)


def pairs(seq: int, window: int | None, *, full: bool, chunked: bool = False) -> int:
    """How many (query, key) pairs one sequence has: all, the causal half, or within a window."""
    reach = seq if window is None else min(window, seq)
    if full:
        return seq * reach
    if chunked:
        whole, rest = divmod(seq, reach)
        return whole * _triangle(reach) + _triangle(rest)
    return _triangle(reach) + (seq - reach) * reach


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


def training(
    arch: Architecture,
    tokens: int,
    seq: int,
    method: Finetune = Finetune.FULL,
    *,
    rank: int = LORA_RANK,
    full_square: bool = False,
) -> int:
    """FLOP of training on `tokens` in sequences of `seq`; a last shorter sequence is counted so.

    Full training is three forward passes. With adapters (LoRA, arXiv 2106.09685) the frozen
    weights take a forward pass and the gradients of inputs, so two, and the adapters three.
    """
    whole, rest = divmod(tokens, seq)
    total = whole * _training_sequence(arch, seq, method, rank, full_square)
    return total + (_training_sequence(arch, rest, method, rank, full_square) if rest else 0)


def _training_sequence(
    arch: Architecture, seq: int, method: Finetune, rank: int, full_square: bool
) -> int:
    once = forward(arch, seq, full_square=full_square)
    if method is Finetune.FULL:
        return 3 * once.total
    frozen = 2 * (once.layers + once.head) + 3 * (once.scores + once.recurrent)
    return frozen + 3 * 2 * adapter_params(arch, rank) * seq


def recomputed(arch: Architecture, seq: int, recompute: Recompute) -> int:
    """FLOP that the backward pass of one sequence computes anew: hardware work, not the model's."""
    once = forward(arch, seq)
    if recompute is Recompute.FULL:
        return once.total - once.head
    return once.scores if recompute is Recompute.SELECTIVE else 0


def adapter_params(arch: Architecture, rank: int = LORA_RANK) -> int:
    """Parameters of low-rank adapters of `rank` on every matrix of attention and feed-forward.

    Experts have none of their own: adapters of a mixture sit on its attention and shared parts.
    """
    return sum(b.count * rank * _adapter_edges(arch, b) for b in arch.blocks)


def _adapter_edges(arch: Architecture, block: Block) -> int:
    """Sum of inputs and outputs of the matrices that get an adapter."""
    edges, hidden, mixer, feed = 0, arch.hidden, block.mixer, block.feed
    if isinstance(mixer, Attention):
        queries, outs = mixer.heads * mixer.head_dim, mixer.heads * mixer.v_head_dim
        edges += 4 * hidden + queries + mixer.kv_values + outs
    elif isinstance(mixer, Latent):
        queries = mixer.heads * (mixer.nope_dim + mixer.rope_dim)
        ups = mixer.heads * (mixer.nope_dim + 2 * mixer.v_head_dim)
        edges += 3 * hidden + 2 * (mixer.q_rank or 0) + 2 * mixer.kv_rank + queries + ups
    elif mixer is not None:
        edges += 2 * hidden + mixer.in_width + mixer.out_width
    if feed is not None:
        width = feed.shared_width if feed.experts else feed.width
        edges += (3 if feed.gated else 2) * (hidden + width) if width else 0
    return edges


def prefill(arch: Architecture, prompt: int) -> int:
    """FLOP of reading a prompt of `prompt` tokens; logits are needed for the last one only."""
    once = forward(arch, prompt)
    return once.total - once.head + 2 * arch.vocab * arch.hidden


def decode(arch: Architecture, context: int) -> int:
    """FLOP of one generated token with `context` tokens before it."""
    weights = 2 * arch.matmul_params_active
    recurrent = sum(b.count * b.mixer.recurrent_flop for b in arch.blocks if b.mixer)
    return weights + recurrent + sum(b.count * _decode_scores(b, context) for b in arch.blocks)


def _decode_scores(block: Block, context: int) -> int:
    mixer = block.mixer
    if not isinstance(mixer, Attention | Latent):
        return 0
    reach = context if mixer.window is None else min(mixer.window, context)
    if isinstance(mixer, Latent) and mixer.selected is not None:
        indexer = 2 * mixer.index_heads * mixer.index_dim * context
        return 2 * mixer.decode_score_width * min(mixer.selected, context) + indexer
    return 2 * mixer.decode_score_width * reach


def generation(arch: Architecture, prompt: int, output: int) -> int:
    """FLOP of one request: its prompt, then `output` tokens one by one."""
    total = prefill(arch, prompt)
    steps = max(output - 1, 0)  # the prefill gives the first token
    first, last = decode(arch, prompt + 1), decode(arch, prompt + max(steps, 1))
    return total + steps * (first + last) // 2  # the count grows evenly with the context


def weight_bytes_read(arch: Architecture, batch: int, bytes_each: float) -> float:
    """Bytes of weights that one decoding step of `batch` sequences reads.

    Of `E` experts of which a token uses `k`, a batch touches E(1 - (1 - k/E)^batch) on average
    when tokens choose evenly and independently.
    """
    total = float(arch.vocab * arch.hidden)
    for block in arch.blocks:
        every = block.matmul_weights(arch.hidden, active=False)
        feed = block.feed
        if feed is None or not feed.experts:
            total += block.count * every
            continue
        one = block.matmul_weights(arch.hidden, active=True)
        routed = (every - one) / (feed.experts - feed.active) if feed.experts > feed.active else 0
        touched = feed.experts * (1 - (1 - feed.active / feed.experts) ** batch)
        total += block.count * (one + routed * (touched - feed.active))
    return total * bytes_each


def decode_bytes(
    arch: Architecture, context: int, batch: int, *, weight_bytes: float, kv_bytes: float
) -> float:
    """Bytes that one decoding step moves: weights once, and each sequence's keys and values.

    `weight_bytes` and `kv_bytes` are bytes of one number.
    """
    cache = batch * arch.kv_bytes(context, kv_bytes)
    return weight_bytes_read(arch, batch, weight_bytes) + cache
