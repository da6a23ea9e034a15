"""Vision models: FLOP and parameters of convolutional networks and vision transformers, exactly.

A convolution of `k x k` from `c` to `d` channels over `n` positions is `2 k k c d n` FLOP. Sources:
ResNet, arXiv 1512.03385 Table 1 (v1.5: the stride sits on the 3x3 convolution); ViT, arXiv
2010.11929 Table 1; ViT-g and G, arXiv 2106.04560; ViT-22B, arXiv 2302.05442; DeiT, arXiv
2012.12877.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dusuan.core.workload import flops
from dusuan.core.workload.architecture import Architecture, Attention, Block, FeedForward
from dusuan.core.workload.jobspec import Problem

IMAGENET_IMAGES, IMAGENET_CLASSES, IMAGENET_SIDE = 1_281_167, 1_000, 224


@dataclass(frozen=True, slots=True)
class VisionModel:
    """A model that reads images: parameters, FLOP and kept numbers of one image forward."""

    name: str
    kind: str  # cnn or vit
    params: int
    forward_flop: int
    kept_values: int
    side: int
    source: str

    @property
    def params_total(self) -> int:
        """All parameters."""
        return self.params

    @property
    def params_active(self) -> int:
        """All of them are used."""
        return self.params

    def training_flop(self, images: int) -> int:
        """FLOP of training on `images`, counted with every repetition: three forward passes."""
        return 3 * self.forward_flop * images


_RESNETS: Mapping[int, tuple[bool, tuple[int, int, int, int]]] = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}
# name: hidden, layers, heads, feed-forward
_VITS: Mapping[str, tuple[int, int, int, int]] = {
    "ti": (192, 12, 3, 768),
    "s": (384, 12, 6, 1536),
    "b": (768, 12, 12, 3072),
    "l": (1024, 24, 16, 4096),
    "h": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
    "gg": (1664, 48, 16, 8192),
    "22b": (6144, 48, 48, 24576),
}
_WORDS = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "huge": "h", "giant": "g"}
_RESNET = re.compile(r"(?:microsoft/)?resnet[-_ ]?(\d+)(?:[-_ ]?v1\.5|[-_ ]?v1|[-_ ].*)?", re.I)
_VIT = re.compile(
    r"(?:[\w.-]+/)?(?:vit|deit|dinov2|clip-vit)[-_ ]?"
    r"(ti|tiny|s|small|b|base|l|large|h|huge|g|giant|22b)"
    r"(?:[-_ /]?(?:patch)?[-_]?(\d{1,2}))?(?:[-_ ]?(\d{3}))?(?:[-_].*)?",
    re.I,
)


def named(name: str, side: int | None = None) -> VisionModel | Problem | None:
    """The vision model that `name` means, such as `resnet-50` or `vit-l/16`; None for no such."""
    text = name.strip()
    resnet, vit = _RESNET.fullmatch(text), _VIT.fullmatch(text)
    if resnet is not None:
        depth = int(resnet[1])
        if depth not in _RESNETS:
            known = ", ".join(f"resnet-{n}" for n in _RESNETS)
            return Problem("unknown_model", f"there is no resnet-{depth}", remedy=f"known: {known}")
        return _resnet(depth, side or IMAGENET_SIDE)
    if vit is not None:
        size = "gg" if vit[1] == "G" else _WORDS.get(vit[1].lower(), vit[1].lower())
        patch = int(vit[2]) if vit[2] else 14 if size in ("h", "g", "gg", "22b") else 16
        return _vit(size, patch, side or int(vit[3] or IMAGENET_SIDE))
    return None


@dataclass(frozen=True, slots=True)
class _Conv:
    kernel: int
    inputs: int
    outputs: int
    side: int  # of its output

    @property
    def weights(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs

    @property
    def flop(self) -> int:
        return 2 * self.weights * self.side**2


def _resnet(depth: int, side: int) -> VisionModel:
    convolutions = list(_convolutions(depth, side))
    last = convolutions[-1].outputs
    head = last * IMAGENET_CLASSES
    norms = sum(2 * conv.outputs for conv in convolutions)
    return VisionModel(
        name=f"resnet-{depth}",
        kind="cnn",
        params=sum(c.weights for c in convolutions) + norms + head + IMAGENET_CLASSES,
        forward_flop=sum(c.flop for c in convolutions) + 2 * head,
        kept_values=sum(2 * c.outputs * c.side**2 for c in convolutions),
        side=side,
        source="arXiv 1512.03385 Table 1, v1.5",
    )


def _convolutions(depth: int, side: int) -> Iterator[_Conv]:
    bottleneck, counts = _RESNETS[depth]
    yield _Conv(7, 3, 64, -(-side // 2))
    inputs, at = 64, -(-side // 4)
    for stage, count in enumerate(counts):
        width = 64 * 2**stage
        for index in range(count):
            before = at
            at = -(-at // 2) if stage and not index else at
            outputs = width * (4 if bottleneck else 1)
            yield from _block(bottleneck, inputs, width, before, at)
            if inputs != outputs:
                yield _Conv(1, inputs, outputs, at)
            inputs = outputs


def _block(bottleneck: bool, inputs: int, width: int, before: int, at: int) -> Iterator[_Conv]:
    if bottleneck:
        yield _Conv(1, inputs, width, before)
        yield _Conv(3, width, width, at)
        yield _Conv(1, width, 4 * width, at)
    else:
        yield _Conv(3, inputs, width, at)
        yield _Conv(3, width, width, at)


def vit_architecture(size: str, patches: int) -> Architecture:
    """The encoder of a vision transformer over `patches` and one class token, without its ends."""
    hidden, layers, heads, width = _VITS[size]
    dim = hidden // heads
    attention = Attention(heads, heads, dim, dim, extra_weights=4 * hidden)
    block = Block(layers, attention, FeedForward(width, gated=False, bias=True), 4 * hidden)
    return Architecture(
        f"vit-{size}", hidden, 0, (block,), tied=True, positions=patches + 1, causal=False
    )


def _vit(size: str, patch: int, side: int) -> VisionModel | Problem:
    if not 1 <= patch <= side:
        words = f"a patch of {patch} does not fit an image of {side}"
        return Problem("contradiction", words, remedy="such as vit-l/16 at 224")
    patches = (side // patch) ** 2
    arch = vit_architecture(size, patches)
    embed, head = 3 * patch**2 * arch.hidden, arch.hidden * IMAGENET_CLASSES
    ends = embed + arch.hidden + arch.hidden + 2 * arch.hidden + head + IMAGENET_CLASSES
    once = flops.forward(arch, patches + 1)
    per_token = 14 * arch.hidden + 2 * arch.feed_width
    return VisionModel(
        name=f"vit-{'g' if size == 'gg' else size}/{patch}",
        kind="vit",
        params=arch.params_total + ends,
        forward_flop=once.total + 2 * embed * patches + 2 * head,
        kept_values=arch.layers * per_token * (patches + 1),
        side=side,
        source="arXiv 2010.11929 Table 1",
    )
