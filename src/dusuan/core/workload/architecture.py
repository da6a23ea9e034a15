"""The shape of a model, exact enough to count its parameters, its FLOP and its memory.

A model is a stack of blocks; a block is a mixer (attention in one of its forms, or a recurrence)
and a feed-forward, either of which may be absent. Everything else is counted from these. Weights
that each token is multiplied with are kept apart from those that are only added or looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax attention over keys and values (MHA, GQA, MQA), optionally in a sliding window."""

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    window: int | None = None
    chunked: bool = False  # the window is a chunk that starts anew, and does not slide
    gated: bool = False  # an output gate as wide as the queries
    extra_weights: int = 0  # biases, norms of queries and keys, sinks

    @property
    def score_width(self) -> int:
        """Multiply-adds of one token with one key and its value, over all heads."""
        return self.heads * (self.head_dim + self.v_head_dim)

    @property
    def decode_score_width(self) -> int:
        """The same while decoding."""
        return self.score_width

    @property
    def kv_values(self) -> int:
        """Numbers kept for each token that can still be attended to."""
        return self.kv_heads * (self.head_dim + self.v_head_dim)

    @property
    def state_values(self) -> int:
        """Numbers kept for each sequence, whatever its length."""
        return 0

    @property
    def recurrent_flop(self) -> int:
        """FLOP of a recurrence for each token."""
        return 0

    def matmul_weights(self, hidden: int) -> int:
        """Weights that each token is multiplied with."""
        queries = self.heads * self.head_dim * (2 if self.gated else 1)
        return hidden * (queries + self.kv_values + self.heads * self.v_head_dim)

    def other_weights(self, hidden: int) -> int:  # noqa: ARG002 - the same for every mixer
        """Weights that are added or scaled with."""
        return self.extra_weights


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: keys and values from one small vector a token.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1; decoding attends in the latent space.
    `selected` and the indexer: DeepSeek-V3.2, each token attends to that many keys at most.
    """

    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_head_dim: int
    selected: int | None = None
    index_heads: int = 0
    index_dim: int = 0

    @property
    def window(self) -> int | None:
        """Attention itself is not windowed; what selection saves is counted in the FLOP."""
        return None

    @property
    def score_width(self) -> int:
        """Multiply-adds of one token with one key and its value, over all heads."""
        return self.heads * (self.nope_dim + self.rope_dim + self.v_head_dim)

    @property
    def decode_score_width(self) -> int:
        """The same while decoding, where the latent vector itself is key and value."""
        return self.heads * (2 * self.kv_rank + self.rope_dim)

    @property
    def kv_values(self) -> int:
        """Numbers kept for each token: the latent vector, the rotary key, the indexer's key."""
        return self.kv_rank + self.rope_dim + self.index_dim

    @property
    def state_values(self) -> int:
        """None beyond the keys."""
        return 0

    @property
    def recurrent_flop(self) -> int:
        """No recurrence."""
        return 0

    def matmul_weights(self, hidden: int) -> int:
        """Weights that each token is multiplied with, the indexer's included."""
        query_dim = self.heads * (self.nope_dim + self.rope_dim)
        queries = hidden * query_dim
        if self.q_rank is not None:
            queries = self.q_rank * (hidden + query_dim)
        down = hidden * (self.kv_rank + self.rope_dim)
        up = self.kv_rank * self.heads * (self.nope_dim + self.v_head_dim)
        return queries + down + up + self.heads * self.v_head_dim * hidden + self._index(hidden)

    def _index(self, hidden: int) -> int:
        if not self.index_heads:
            return 0
        queries = (self.q_rank or hidden) * self.index_heads * self.index_dim
        return queries + hidden * (self.index_dim + self.index_heads)

    def other_weights(self, hidden: int) -> int:  # noqa: ARG002 - the same for every mixer
        """Norms of the latent vectors."""
        return (self.q_rank or 0) + self.kv_rank + (2 * self.index_dim if self.index_heads else 0)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Linear attention or a state space: a state of fixed size instead of keys.

    `in_width` and `out_width` are the projections from and to the hidden size, `state` the numbers
    of one layer's state, `conv_weights` those of its short convolution. One token updates and reads
    its state with about 6 FLOP a number (decay and outer product, then the read-out).
    """

    in_width: int
    out_width: int
    state: int
    conv_weights: int = 0
    conv_state: int = 0
    extra_weights: int = 0

    @property
    def window(self) -> int | None:
        """No keys are kept."""
        return 0

    @property
    def score_width(self) -> int:
        """No scores."""
        return 0

    @property
    def decode_score_width(self) -> int:
        """No scores."""
        return 0

    @property
    def kv_values(self) -> int:
        """Nothing for each token."""
        return 0

    @property
    def state_values(self) -> int:
        """Numbers kept for each sequence."""
        return self.state + self.conv_state

    @property
    def recurrent_flop(self) -> int:
        """FLOP of the recurrence for each token."""
        return 6 * self.state + 2 * self.conv_weights

    def matmul_weights(self, hidden: int) -> int:
        """Weights that each token is multiplied with."""
        return hidden * (self.in_width + self.out_width)

    def other_weights(self, hidden: int) -> int:  # noqa: ARG002 - the same for every mixer
        """The convolution, decays, biases and norms."""
        return self.conv_weights + self.extra_weights


Mixer = Attention | Latent | Recurrence


@dataclass(frozen=True, slots=True)
class FeedForward:
    """A multi-layer perceptron, or a router with experts of which each token uses some."""

    width: int
    gated: bool = True
    bias: bool = False
    experts: int = 0
    active: int = 0
    shared_width: int = 0
    shared_gate: bool = False
    router_bias: bool = False
    latent: int = 0  # experts work in a space of this size instead of the hidden size

    def weights(self, hidden: int, *, active: bool) -> int:
        """Weights in matrices: those that one token uses, or all of them."""
        matrices = 3 if self.gated else 2
        if not self.experts:
            return matrices * hidden * self.width
        count = self.active if active else self.experts
        inner = self.latent or hidden
        routed = count * matrices * inner * self.width + 2 * hidden * self.latent
        shared = matrices * hidden * self.shared_width
        return routed + shared + hidden * (self.experts + (1 if self.shared_gate else 0))

    def other_weights(self, hidden: int, *, active: bool) -> int:
        """Biases."""
        each = (2 if self.gated else 1) * self.width + hidden if self.bias else 0
        count = (self.active if active else self.experts) if self.experts else 1
        return each * count + (self.experts if self.router_bias else 0)


@dataclass(frozen=True, slots=True)
class Block:
    """`count` equal layers: a mixer, a feed-forward, and what normalises them."""

    count: int
    mixer: Mixer | None
    feed: FeedForward | None
    norm_weights: int = 0

    def matmul_weights(self, hidden: int, *, active: bool) -> int:
        """Weights of one layer that a token is multiplied with; all experts or the active ones."""
        mixer = 0 if self.mixer is None else self.mixer.matmul_weights(hidden)
        return mixer + (0 if self.feed is None else self.feed.weights(hidden, active=active))

    def weights(self, hidden: int, *, active: bool) -> int:
        """All weights of one layer."""
        mixer = 0 if self.mixer is None else self.mixer.other_weights(hidden)
        feed = 0 if self.feed is None else self.feed.other_weights(hidden, active=active)
        return self.matmul_weights(hidden, active=active) + mixer + feed + self.norm_weights


@dataclass(frozen=True, slots=True)
class Architecture:
    """A transformer (or a relative of one) that reads tokens.

    `basis` says what it rests on: `config`, `named`, `header` or `parameters` (a plausible shape
    for a bare parameter count). `weight_bits` is what a weight of the release takes where it is
    quantised. `other_weights` are embeddings' norms, projections and whatever else is no layer.
    """

    name: str
    hidden: int
    vocab: int
    blocks: tuple[Block, ...]
    tied: bool = False
    positions: int = 0  # learned position vectors
    causal: bool = True
    other_weights: int = 0
    context: int | None = None
    source: str = ""
    basis: str = "config"
    weight_bits: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def params_total(self) -> int:
        """All parameters."""
        return self._ends + self._layers(active=False)

    @property
    def params_active(self) -> int:
        """The parameters that one token uses, embeddings included."""
        return self._ends + self._layers(active=True)

    @property
    def matmul_params_active(self) -> int:
        """The weights that one token is multiplied with, the output head included."""
        layers = sum(b.count * b.matmul_weights(self.hidden, active=True) for b in self.blocks)
        return layers + self.vocab * self.hidden

    @property
    def matmul_params_total(self) -> int:
        """The weights in matrices, all experts and the output head included."""
        layers = sum(b.count * b.matmul_weights(self.hidden, active=False) for b in self.blocks)
        return layers + self.vocab * self.hidden

    @property
    def expert_params(self) -> int:
        """Parameters of routed experts: what expert parallelism divides."""
        return self._layers(active=False) - self._layers_without_experts()

    @property
    def layers(self) -> int:
        """Layers; where mixers and feed-forwards alternate as layers of their own, all of them."""
        return sum(block.count for block in self.blocks)

    @property
    def is_moe(self) -> bool:
        """Whether tokens are routed to experts."""
        return self.experts > 0

    @property
    def experts(self) -> int:
        """Experts of a layer that has them, or 0."""
        return max((b.feed.experts for b in self.blocks if b.feed is not None), default=0)

    @property
    def active_experts(self) -> int:
        """Routed experts that one token uses in such a layer, or 0."""
        return max((b.feed.active for b in self.blocks if b.feed is not None), default=0)

    @property
    def heads(self) -> int:
        """Query heads, of the mixer that has most."""
        return max((m.heads for m in self.attentions), default=1)

    @property
    def kv_heads(self) -> int:
        """Key heads; latent attention shares one vector, so 1."""
        return max((m.kv_heads for m in self.attentions if isinstance(m, Attention)), default=1)

    @property
    def head_dim(self) -> int:
        """Width of a query head."""
        dims = [
            m.head_dim if isinstance(m, Attention) else m.nope_dim + m.rope_dim
            for m in self.attentions
        ]
        return max(dims, default=0)

    @property
    def feed_width(self) -> int:
        """The widest feed-forward of one token: dense, or its active experts together."""
        feeds = [b.feed for b in self.blocks if b.feed is not None]
        return max((f.width * (f.active or 1) + f.shared_width for f in feeds), default=0)

    @property
    def attentions(self) -> tuple[Attention | Latent, ...]:
        """The mixers that attend to keys, one for each kind of block."""
        return tuple(b.mixer for b in self.blocks if isinstance(b.mixer, Attention | Latent))

    def kv_values_per_token(self) -> int:
        """Numbers kept for one token over all layers, before any window takes effect."""
        return sum(b.count * b.mixer.kv_values for b in self.blocks if b.mixer is not None)

    def kv_bytes_per_token(self, bytes_each: float = 2.0) -> float:
        """Bytes of cache for one token over all layers, before any window takes effect."""
        return self.kv_values_per_token() * bytes_each

    def kv_bytes(self, tokens: int, bytes_each: float = 2.0) -> float:
        """Bytes of cache of one sequence of `tokens`: windows capped, recurrent states in FP32."""
        total = 0.0
        for block in self.blocks:
            if block.mixer is None:
                continue
            window = block.mixer.window
            kept = tokens if window is None else min(tokens, window)
            total += block.count * block.mixer.kv_values * kept * bytes_each
            total += block.count * block.mixer.state_values * 4
        return total

    @property
    def _ends(self) -> int:
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.positions * self.hidden + self.other_weights

    def _layers(self, *, active: bool) -> int:
        return sum(b.count * b.weights(self.hidden, active=active) for b in self.blocks)

    def _layers_without_experts(self) -> int:
        total = 0
        for block in self.blocks:
            feed = block.feed
            routed = 0
            if feed is not None and feed.experts:
                matrices = 3 if feed.gated else 2
                routed = feed.experts * matrices * (feed.latent or self.hidden) * feed.width
            total += block.count * (block.weights(self.hidden, active=False) - routed)
        return total


def stacked(layers: Sequence[tuple[Mixer | None, FeedForward | None, int]]) -> tuple[Block, ...]:
    """Blocks from one `(mixer, feed, norm weights)` a layer, equal layers counted together."""
    counts: dict[tuple[Mixer | None, FeedForward | None, int], int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(Block(n, mixer, feed, norms) for (mixer, feed, norms), n in counts.items())
