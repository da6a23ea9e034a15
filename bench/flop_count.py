"""Our FLOP counts against torch's counter, on real models without their weights.

The models are built on the meta device from the configurations that `transformers` ships, so that
their shapes are real and nothing is computed. Torch counts the whole square of attention whatever
the mask (with eager attention; its fused kernels are not counted on a CPU at all), so that
`full_square` is compared; experts are counted in their batched form, since which expert a token
takes cannot be known without numbers. Torch is large and no dependency of ours:

    python -m venv exact && exact/bin/pip install torch transformers . && \\
        exact/bin/python bench/flop_count.py
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from dusuan.core.workload import flops, vision
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.hfconfig import from_config

SEQ = 512


@dataclass(frozen=True)
class Case:
    """One model: a `transformers` configuration class and what differs from its defaults."""

    name: str
    config: str
    changes: dict[str, Any]
    seq: int = SEQ


CASES = (
    Case("gpt2", "GPT2Config", {}),
    Case("gpt2-xl", "GPT2Config", {"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1024),
    Case("pythia-160m", "GPTNeoXConfig", {"hidden_size": 768, "intermediate_size": 3072,
         "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 50304}),
    Case("opt-125m", "OPTConfig", {}),
    Case("bloom-560m", "BloomConfig", {"hidden_size": 1024, "n_layer": 24, "n_head": 16,
         "vocab_size": 250880}),
    Case("Llama-2-7B", "LlamaConfig", {}, 4096),
    Case("Llama-3.2-1B", "LlamaConfig", {"hidden_size": 2048, "intermediate_size": 8192,
         "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True}, 2048),
    Case("Mistral-7B", "MistralConfig", {"sliding_window": None}, 2048),
    Case("Qwen2.5-0.5B", "Qwen2Config", {"hidden_size": 896, "intermediate_size": 4864,
         "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
         "vocab_size": 151936, "tie_word_embeddings": True}),
    Case("Qwen3-0.6B", "Qwen3Config", {"hidden_size": 1024, "intermediate_size": 3072,
         "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
         "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}),
    Case("gemma-2b", "GemmaConfig", {"hidden_size": 2048, "intermediate_size": 16384,
         "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1,
         "head_dim": 256, "vocab_size": 256000}),
    Case("phi-2", "PhiConfig", {"hidden_size": 2560, "intermediate_size": 10240,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
         "vocab_size": 51200}),
    Case("OLMo-2-1124-7B", "Olmo2Config", {"hidden_size": 4096, "intermediate_size": 11008,
         "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 100352}),
    Case("Mixtral-8x7B", "MixtralConfig", {"sliding_window": None}),
    Case("Qwen3-30B-A3B", "Qwen3MoeConfig", {"hidden_size": 2048, "intermediate_size": 6144,
         "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32,
         "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
         "vocab_size": 151936}),
    Case("OLMoE-1B-7B", "OlmoeConfig", {"num_experts_per_tok": 8}),
    Case("DeepSeek-V2-Lite", "DeepseekV2Config", {"hidden_size": 2048, "intermediate_size": 10944,
         "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16,
         "num_key_value_heads": 16, "n_shared_experts": 2, "n_routed_experts": 64,
         "num_experts_per_tok": 6, "kv_lora_rank": 512, "q_lora_rank": None,
         "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
         "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "vocab_size": 102400}),
    Case("DeepSeek-V3", "DeepseekV3Config", {}),
)  # fmt: skip


def ours(case: Case, config: Any) -> int:
    """Our count of a training step on one sequence, from the very same configuration."""
    document = config.to_dict()
    arch = from_config(document, case.name)
    assert isinstance(arch, Architecture), arch
    return flops.training(arch, case.seq, case.seq, full_square=True)


def torchs(case: Case, config: Any) -> tuple[int, int]:
    """Torch's count of the same step, and the parameters of the model."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", experts_implementation="batched_mm"
        )
        tokens = torch.zeros((1, case.seq), dtype=torch.long)
        mask = torch.zeros((1, 1, case.seq, case.seq))  # given, as it cannot be made of nothing
        places = torch.zeros((1, case.seq), dtype=torch.long)
    given = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
    if case.config != "BloomConfig":  # its biases of attention stand for positions
        given["position_ids"] = places
    else:
        given["attention_mask"] = torch.ones((1, case.seq), device="meta")
    with FlopCounterMode(display=False) as counter:
        model(**given).logits.sum().backward()
    return counter.get_total_flops(), sum(p.numel() for p in model.parameters())


def vision_torchs(name: str) -> int:
    """Torch's count of a forward pass of a vision model of `transformers`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    with torch.device("meta"):
        if name == "resnet-50":
            model: Any = ResNetForImageClassification(ResNetConfig(num_labels=1000))
        else:
            config = ViTConfig(num_labels=1000)
            config._attn_implementation = "eager"
            model = ViTForImageClassification(config)
        image = torch.zeros((1, 3, 224, 224))
    with FlopCounterMode(display=False) as counter:
        model(pixel_values=image)
    return counter.get_total_flops()


def main() -> int:
    """Print a row a model; 1 when any differs by more than 1 %."""
    if (
        importlib.util.find_spec("torch") is None
        or importlib.util.find_spec("transformers") is None
    ):
        print("flop_count: skipped, torch and transformers are not installed")
        return 0
    import transformers

    warnings.simplefilter("ignore")
    worst = 0.0
    print(f"{'model':18}{'seq':>6}{'ours':>14}{'torch':>14}{'difference':>12}{'parameters':>16}")
    for case in CASES:
        config = getattr(transformers, case.config)(**case.changes)
        mine, (theirs, params) = ours(case, config), torchs(case, config)
        arch = from_config(config.to_dict(), case.name)
        size = arch.params_total if isinstance(arch, Architecture) else 0
        worst = max(worst, abs(mine / theirs - 1), abs(size / params - 1))
        print(f"{case.name:18}{case.seq:6}{mine:14.4e}{theirs:14.4e}{mine / theirs - 1:+12.3%}"
              f"{size / params - 1:+16.4%}")  # fmt: skip
    for name in ("resnet-50", "vit-b/16"):
        found = vision.named(name)
        assert isinstance(found, vision.VisionModel)
        theirs = vision_torchs(name)
        worst = max(worst, abs(found.forward_flop / theirs - 1))
        print(f"{name:18}{'':6}{found.forward_flop:14.4e}{theirs:14.4e}"
              f"{found.forward_flop / theirs - 1:+12.3%}")  # fmt: skip
    print(f"largest difference {worst:.3%}")
    return 1 if worst > 0.01 else 0


if __name__ == "__main__":
    sys.exit(main())
