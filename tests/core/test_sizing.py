"""FLOP, memory, layouts and estimates against published points, and what must always hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.catalog.accelerators import Accelerator
from dusuan.core.units import GFLOP_PER_DEGREE
from dusuan.core.workload import describe, flops, layout, memory, vision
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.describe import Asked, Kind, Work, amount
from dusuan.core.workload.estimate import Estimate, Models, estimate
from dusuan.core.workload.flops import Finetune, Recompute
from dusuan.core.workload.hfconfig import from_config
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.layout import Fitted, ServingNeed, TrainingNeed, parse_layout
from dusuan.core.workload.memory import GIB, Layout
from dusuan.facts import catalogue, models
from dusuan.facts.library import library

FITTED = Models(library().runs, library().serving, library().power)
# Korthikanti et al., arXiv 2205.05198 Table 3: hidden, layers, heads, tensor, pipeline, batch.
KORTHIKANTI = {
    "22B": (6144, 48, 64, 8, 1, 4, 1),
    "175B": (12288, 96, 96, 8, 8, 1, 3),
    "530B": (20480, 105, 128, 8, 35, 1, 3),
    "1T": (25600, 128, 160, 8, 64, 1, 1),
}


def gpt(hidden: int, layers: int, heads: int) -> Architecture:
    found = from_config(
        {
            "model_type": "gpt2",
            "n_embd": hidden,
            "n_layer": layers,
            "n_head": heads,
            "n_positions": 2048,
            "vocab_size": 51200,
        }
    )
    assert isinstance(found, Architecture)
    return found


def model(name: str) -> Architecture:
    found = models().find(name)
    assert isinstance(found, Architecture), found
    return found


def device(name: str) -> Accelerator:
    found = catalogue().find(name)
    assert isinstance(found, Accelerator), found
    return found


def work(**asked: Any) -> Work:
    found = describe.describe(Asked(**asked))
    assert isinstance(found, Work), found
    return found


def estimated(described: Work, on: str = "A100-SXM4-80GB", count: int | None = 8) -> Estimate:
    found = estimate(described, device(on), FITTED, count)
    assert isinstance(found, Estimate), found
    return found


@pytest.mark.parametrize("size", KORTHIKANTI)
def test_megatrons_formula(size: str) -> None:
    """72 B L s h^2 (1 + s/6h + V/12Lh), arXiv 2104.04473 section 5, which counts the square."""
    h, layers, heads, *_ = KORTHIKANTI[size]
    s, v, arch = 2048, 51200, gpt(h, layers, heads)
    formula = 72 * layers * s * h**2 * (1 + s / (6 * h) + v / (12 * layers * h))
    assert flops.training(arch, s, s, full_square=True) == pytest.approx(formula, rel=1e-9)
    assert 0.94 < 6 * arch.params_total * s / flops.training(arch, s, s, full_square=True) < 0.99


@pytest.mark.parametrize(("name", "ratio"), [("Llama-3-8B", 1.07), ("Llama-3-70B", 1.06)])
def test_llama_3_at_8k_against_six_n(name: str, ratio: float) -> None:
    arch = model(name)
    exact = flops.training(arch, 8192, 8192)
    assert exact / (6 * arch.params_total * 8192) == pytest.approx(ratio, abs=0.005)


def test_resnet_50_on_imagenet() -> None:
    resnet = vision.named("resnet-50")
    assert isinstance(resnet, vision.VisionModel)
    assert resnet.params == 25_557_032
    flop = resnet.training_flop(90 * 1_281_167)
    assert flop == pytest.approx(2.84e18, rel=0.01)
    assert flop / 1e9 / GFLOP_PER_DEGREE == pytest.approx(2.53, rel=0.01)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("resnet-18", 11_689_512, 1.814e9),
        ("resnet-152", 60_192_808, 11.51e9),
        ("vit-b/16", 86_567_656, 17.56e9),
        ("google/vit-large-patch16-224", 304_326_632, 61.55e9),
        ("ViT-B-32", 88_224_232, 4.409e9),
    ],
)
def test_vision_models(name: str, params: int, macs: float) -> None:
    """Parameters as in torchvision; its multiply-adds, with attention scores, within 0.1 %."""
    found = vision.named(name)
    assert isinstance(found, vision.VisionModel)
    assert found.params == params
    assert found.forward_flop / 2 == pytest.approx(macs, rel=1e-3)


def test_lora_takes_about_four_n_a_token() -> None:
    arch, tokens = model("Llama-3-8B"), 2048
    lora = flops.training(arch, tokens, 2048, Finetune.LORA)
    assert lora / tokens / arch.params_total == pytest.approx(4.0, rel=0.06)
    layers = arch.params_total - 2 * arch.vocab * arch.hidden
    again = flops.recomputed(arch, 2048, Recompute.FULL) / tokens
    assert again == pytest.approx(2 * layers, rel=0.06)


def test_a_mixture_computes_with_its_active_experts() -> None:
    arch = model("Qwen3-235B-A22B")
    assert flops.prefill(arch, 100) / 100 == pytest.approx(2 * arch.params_active, rel=0.08)
    few, many = (flops.weight_bytes_read(arch, batch, 1.0) for batch in (1, 10_000))
    assert few == pytest.approx(arch.params_active, rel=0.05)
    assert many == pytest.approx(arch.params_total, rel=0.01)


def brute_pairs(seq: int, window: int | None, chunked: bool) -> int:
    count = 0
    for at in range(seq):
        for key in range(at + 1):
            near = window is None or (
                key // window == at // window if chunked else at - key < window
            )
            count += near
    return count


@given(st.integers(1, 40), st.none() | st.integers(1, 50), st.booleans())
def test_pairs_by_counting_them(seq: int, window: int | None, chunked: bool) -> None:
    expected = brute_pairs(seq, window, chunked and window is not None)
    assert flops.pairs(seq, window, full=False, chunked=chunked and window is not None) == expected


# GiB of weights, gradients and optimizer (Figure 1), and of activations, as published.
STATES = {"22B": 45.56, "175B": 45.56, "530B": 31.64, "1T": 32.96}
TENSOR_ONLY = {"22B": 59.25, "175B": 66.84, "530B": 114.02}


def korthikanti(size: str, recompute: Recompute, sequence_parallel: bool) -> tuple[Any, Layout]:
    h, layers, heads, t, p, b, m = KORTHIKANTI[size]
    at = Layout(t, p, 1, 1, 0, sequence_parallel, recompute, b, m)
    return memory.training(gpt(h, layers, heads), 2048, at, flash=False), at


@pytest.mark.parametrize("size", STATES)
def test_states_of_figure_1(size: str) -> None:
    need, _ = korthikanti(size, Recompute.NONE, False)
    layers = need.weights + need.gradients + need.optimizer
    assert layers / GIB == pytest.approx(STATES[size], rel=1e-3)


@pytest.mark.parametrize("size", TENSOR_ONLY)
def test_activations_with_tensor_parallelism_only(size: str) -> None:
    need, _ = korthikanti(size, Recompute.NONE, False)
    assert need.activations / GIB == pytest.approx(TENSOR_ONLY[size], rel=1e-4)
    assert need.needed_gib > 80  # none of them fits an A100, as the paper says


def test_activations_with_sequence_parallelism_and_selective_recompute() -> None:
    need, _ = korthikanti("22B", Recompute.SELECTIVE, True)
    assert need.activations / GIB == 9.5625
    assert need.needed_gib < 80


@pytest.mark.parametrize("size", KORTHIKANTI)
def test_whole_of_a_device_within_5_percent(size: str) -> None:
    """Figure 1 and selective recompute: what the job allocates, embeddings included."""
    need, _ = korthikanti(size, Recompute.SELECTIVE, True)
    published = STATES[size] + need.activations / GIB
    assert need.total_gib == pytest.approx(published, rel=0.05)


def test_zero_divides_what_it_says() -> None:
    arch, bytes_each = model("Llama-3-8B"), [18.0, 6 + 12 / 64, 2 + 16 / 64, 18 / 64]
    for zero, each in enumerate(bytes_each):
        need = memory.training(arch, 2048, Layout(data=64, zero=zero, recompute=Recompute.FULL))
        gathered = 4 * arch.vocab * arch.hidden if zero == 3 else 0
        assert need.states - gathered == pytest.approx(each * arch.params_total, rel=0.01)


@pytest.mark.parametrize(
    ("method", "gb_each_b"), [(Finetune.FULL, 18), (Finetune.LORA, 2), (Finetune.QLORA, 0.5)]
)
def test_fine_tuning_states_a_billion_parameters(method: Finetune, gb_each_b: float) -> None:
    """LLaMA-Factory's table: 18, 2 and 0.5 GB; adapters and embeddings come on top."""
    arch = model("Llama-2-70B")
    need = memory.training(arch, 2048, Layout(), method)
    assert need.states / arch.params_total == pytest.approx(gb_each_b, rel=0.3)


@pytest.mark.parametrize(
    ("name", "count", "fits"),
    [
        ("Llama-3.1-70B", 1, False),
        ("Llama-3.1-70B", 4, True),
        ("Llama-3.1-405B", 8, False),
        ("DeepSeek-V3", 8, False),  # 671 GB of FP8 weights on 8 x 80 GB
        ("DeepSeek-V3", 16, True),
        ("Llama-3.1-8B", 1, True),
    ],
)
def test_serving_fits_where_it_is_known_to(name: str, count: int, fits: bool) -> None:
    arch = model(name)
    need = ServingNeed(arch, 4096, 8, arch.weight_bits or 16.0)
    assert isinstance(layout.choose(need, 80, count), Fitted) is fits


@pytest.mark.parametrize(
    ("name", "memory_gib", "count", "fits"),
    [
        ("Llama-2-7B", 80, 1, False),  # 18 bytes a parameter are 121 GB
        ("Llama-2-7B", 80, 8, True),
        ("Llama-2-70B", 80, 8, False),
        ("Llama-2-70B", 80, 2048, True),
        ("GPT-3-175B", 80, 8, False),
        ("GPT-3-175B", 80, 1024, True),
    ],
)
def test_training_fits_where_it_is_known_to(
    name: str, memory_gib: float, count: int, fits: bool
) -> None:
    found = layout.choose(TrainingNeed(model(name), 4096), memory_gib, count)
    assert isinstance(found, Fitted) is fits
    if isinstance(found, Problem):
        assert "GiB are needed" in found.text
        assert found.remedy


def test_the_fewest_devices_fit_and_one_step_fewer_do_not() -> None:
    need = TrainingNeed(model("Llama-2-70B"), 4096)
    found = layout.smallest(need, 80)
    assert isinstance(found, Fitted)
    fewer = [count for count in layout.counts() if count < found.layout.count]
    assert all(isinstance(layout.choose(need, 80, count), Problem) for count in fewer)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("tp=x", "wrong_layout"),
        ("nonsense", "wrong_layout"),
        ("tp=0", "wrong_layout"),
        ("zero=4", "wrong_layout"),
        ("tp=8,pp=2,dp=3", "contradiction"),
        ("tp=3", "contradiction"),
        ("dp=16,ep=3", "contradiction"),
    ],
)
def test_layouts_that_make_no_sense(text: str, code: str) -> None:
    problem = parse_layout(text, 16)
    assert isinstance(problem, Problem), problem
    assert problem.code == code


def test_a_layout_as_people_write_it() -> None:
    found = parse_layout("tp=4, pp=2, zero=1, recompute=full, mb=2, sp=off", 16)
    assert found == Layout(4, 2, 2, 1, 1, False, Recompute.FULL, 2)


def test_a_size_alone_is_an_estimate_that_states_its_range_of_tokens() -> None:
    document = estimated(work(params=72e9), count=None).document()
    assert document["tokens_low"] == pytest.approx(20 * 72e9, rel=0.01)
    assert document["tokens_high"] == pytest.approx(15e12)
    assert any("Chinchilla" in said for said in document["assumptions"])
    assert document["fits"]
    spans = [document[f"device_hours_{p}"] for p in ("p10", "p50", "p90")]
    assert spans == sorted(spans)
    assert document["flop_total"] == pytest.approx(6 * 72e9 * document["tokens"], rel=0.06)


def test_the_fields_of_an_estimate() -> None:
    found = estimated(work(model=model("Llama-3.1-8B"), tokens=1e9, finetune=Finetune.LORA))
    document = found.document()
    assert type(document["flop_total"]) is int
    delivered = float(document["delivered_degrees"])
    assert delivered == pytest.approx(document["flop_total"] / 1.1232e18)
    hours = document["device_hours_p50"]
    assert float(document["held_degrees_p50"]) == pytest.approx(hours, rel=1e-4)  # an A100 is 1
    assert delivered < float(document["held_degrees_p10"])
    assert document["energy_kwh_p50"] > 0
    assert document["memory_gib_per_device"] < 80


def test_an_unpublished_device_gives_flop_and_memory_but_no_time() -> None:
    document = estimated(work(model=model("Llama-3.1-8B"), tokens=1e9), on="S60").document()
    assert document["flop_total"] > 0
    assert document["memory_gib_per_device"] > 0
    assert document["device_hours_p50"] is document["held_degrees_p50"] is None
    assert any("calibrate" in said for said in document["assumptions"])


def test_what_does_not_fit_says_why() -> None:
    document = estimated(work(model=model("Llama-3.1-405B"), tokens=1e9), count=8).document()
    assert document["fits"] is False
    assert "GiB are needed" in document["reason"]
    assert document["memory_gib_per_device"] > 80


def test_inference_and_vision_are_estimated() -> None:
    served = estimated(work(model=model("Llama-3.1-70B"), kind=Kind.SERVE), "H100-SXM5-80GB", None)
    assert served.document()["device_hours_p50"] > 0
    batch = estimated(work(model=model("Llama-3.1-8B"), kind=Kind.BATCH, requests=1000))
    assert batch.document()["requests"] == 1000
    resnet = vision.named("resnet-50")
    assert isinstance(resnet, vision.VisionModel)
    seen = estimated(work(model=resnet, epochs=90, samples=1_281_167)).document()
    assert 5 < seen["device_hours_p50"] < 40  # 15.4 measured on 8 x A100


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "missing_value"),
    ({"params": 7e9, "tokens": 0}, "out_of_range"),
    ({"params": 7e9, "tokens": -1e9}, "out_of_range"),
    ({"params": 7e9, "tokens": float("nan")}, "not_finite"),
    ({"params": 7e9, "tokens": 1e18}, "out_of_range"),
    ({"params": 7e9, "seq": 0}, "out_of_range"),
    ({"params": 1e15}, "out_of_range"),
    ({"params": float("nan")}, "not_finite"),
    ({"params": 7e9, "kind": Kind.VISION}, "contradiction"),
    ({"params": 7e9, "images": 1e6}, "contradiction"),
    ({"model": vision.named("resnet-50"), "tokens": 1e9}, "contradiction"),
    ({"model": vision.named("vit-b/16"), "seq": 4096}, "contradiction"),
]


@pytest.mark.parametrize(("asked", "code"), BAD)
def test_bad_descriptions(asked: dict[str, Any], code: str) -> None:
    problem = describe.describe(Asked(**asked))
    assert isinstance(problem, Problem)
    assert problem.code == code
    assert problem.text


@pytest.mark.parametrize(
    ("text", "value"),
    [("72e9", 72e9), ("72B", 72e9), ("1.5T", 1.5e12), ("1,281,167", 1_281_167), ("7 b", 7e9)],
)
def test_amounts_as_people_write_them(text: str, value: float) -> None:
    assert amount(text, "--params") == value


@pytest.mark.parametrize("text", ["nan", "-inf", "", "x", "1..2", "7Q", "1e999"])
def test_bad_amounts(text: str) -> None:
    assert isinstance(amount(text, "--params"), Problem)


NAMES = st.sampled_from(["Llama-3.1-8B", "Mixtral-8x7B", "DeepSeek-V2-Lite", "gemma-3-4b"])
TOKENS = st.integers(1_000, 10**12)


@settings(max_examples=40, deadline=None)
@given(NAMES, TOKENS, TOKENS, st.integers(16, 8192), st.sampled_from(tuple(Finetune)))
def test_more_tokens_never_cost_less(
    name: str, one: int, other: int, seq: int, method: Finetune
) -> None:
    small, large = (
        estimated(work(model=model(name), tokens=n, seq=seq, finetune=method))
        for n in sorted((one, other))
    )
    assert small.flop_total <= large.flop_total <= large.flop_full_square
    assert small.hours is not None
    assert large.hours is not None
    assert small.hours.p50 <= large.hours.p50
    assert small.hours.p10 <= small.hours.p50 <= small.hours.p90


@settings(max_examples=60, deadline=None)
@given(NAMES, st.sampled_from([1, 2, 4, 8, 64]), st.integers(256, 16384))
def test_memory_never_shrinks_with_a_longer_sequence_or_grows_with_recompute(
    name: str, tensor: int, seq: int
) -> None:
    at = Layout(tensor=tensor)
    need = TrainingNeed(model(name), seq)
    longer = replace(need, seq=seq + 1).at(at).memory.total
    recomputed = need.at(replace(at, recompute=Recompute.FULL)).memory.total
    assert recomputed <= need.at(at).memory.total <= longer


@settings(max_examples=30, deadline=None)
@given(NAMES, st.integers(100, 30_000), st.integers(1, 256))
def test_serving_more_or_longer_requests_never_needs_less(
    name: str, context: int, batch: int
) -> None:
    def needed(context: int, batch: int) -> float:
        return ServingNeed(model(name), context, batch).at(Layout()).memory.total

    assert needed(context, batch) <= needed(context + 1, batch) <= needed(context + 1, batch + 1)
