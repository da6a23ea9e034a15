"""Rows of tables: what is blank or wrong in them, and how the estimates move."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.app import estimates
from dusuan.core.energy import power
from dusuan.core.workload import runs, serving, servingrows, stepmfu, steprows
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.runs import Run
from dusuan.core.workload.serving import Deployment
from dusuan.core.workload.stepmfu import Step
from dusuan.facts.library import library

RUN = {
    **{"model": "Llama-2-7B", "kind": "dense", "params_total_b": "6.74", "tokens_b": "2000"},
    **{"params_active_b": "", "seq_len": "4096", "hardware": "A100", "hw_variant": ""},
    **{"n_devices": ""},
}
STEP = {
    **{"Model": "7b", "SeqLen (T)": "2048", "# GPUs": "8", "GPU": "h100_80gb"},
    **{"MicroBatchSize": "6", "GlobalBatchSize": "48", "Precision": "amp_bf16"},
    **{"Sharding Strategy": "FULL_SHARD", "Activation Checkpointing": "False"},
    **{"NumParams": "6658859008"},
}
SERVING = {
    **{"model_path": "Qwen/Qwen3-32B", "system": "h100_sxm", "backend": "vllm", "mode": "agg"},
    **{"isl": "1024", "osl": "1024", "precision": "fp8", "batch_size": "16", "tp_size": "2"},
}

SITE = estimates.Site(library().grids[power.NATIONAL])


def read_run(**changes: str) -> Run | Problem:
    return runs.read({**RUN, **changes}, library().device, library().models)


def run(**changes: str) -> Run:
    read = read_run(**changes)
    assert isinstance(read, Run), read
    return read


def step(**changes: str) -> Step:
    read = steprows.step({**STEP, **changes}, library().device)
    assert not isinstance(read, Problem), read
    return read[0]


def deployment(**changes: str) -> Deployment:
    read = servingrows.deployment({**SERVING, **changes}, library().device, library().models.find)
    assert not isinstance(read, Problem), read
    return read[0]


def tpot_ms(**changes: str) -> float:
    return serving.tpot_s(library().serving, deployment(**changes)) * 1e3


def test_what_a_run_leaves_blank_is_assumed_and_said() -> None:
    read = run()
    assert read.features.params_active == pytest.approx(6.74e9, rel=0.01)
    assert read.work.model.name == "Llama-2-7B"
    assert any("A100-SXM4-80GB" in note for note in read.notes)
    assert any("devices are assumed" in note for note in read.notes)
    assert read.features.flop == pytest.approx(6 * 6.74e9 * 2e12, rel=0.1)


def test_a_row_that_contradicts_a_known_name_is_taken_by_its_own_counts() -> None:
    read = run(params_total_b="13")
    assert read.features.params_active == pytest.approx(13e9, rel=0.05)
    assert any("not known" in note for note in read.notes)


def test_an_unknown_mixture_is_told_by_its_active_parameters() -> None:
    read = run(model="Nobody-60", kind="", params_total_b="60", params_active_b="6")
    assert read.features.kind == "moe"
    assert read.features.params_active == pytest.approx(6e9, rel=0.1)


def test_a_model_trained_in_fp8_is_so_on_cards_that_can() -> None:
    v3 = {"model": "DeepSeek-V3", "kind": "moe", "params_total_b": "671", "params_active_b": "37"}
    assert run(**v3, hardware="H800").features.fp8
    assert not run(**v3, hardware="A100").features.fp8


def test_images_of_a_convolutional_network_follow_from_its_epochs() -> None:
    read = run(model="ResNet-50 v1.5 AMP 90 epochs", kind="cnn", tokens_b="", n_devices="1")
    assert read.features.flop == pytest.approx(2.84e18, rel=0.01)  # 2.53 degrees


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"hardware": ""}, "no_hardware"),
        ({"hardware": "Zeppelin 9000"}, "unknown_device"),
        ({"hardware": "Enflame S60"}, "unpublished"),
        ({"model": "Nobody", "params_total_b": ""}, "unknown_model"),
        ({"tokens_b": "minus three"}, "not_a_number"),
        ({"tokens_b": "-3"}, "not_a_number"),
        ({"tokens_b": "1e18"}, "out_of_range"),
        ({"seq_len": "1e30"}, "out_of_range"),
        ({"model": "ResNet-50", "kind": "cnn", "tokens_b": "1e13"}, "out_of_range"),
        ({"params_total_b": "1e12", "model": "x"}, "out_of_range"),
        ({"params_total_b": "5", "params_active_b": "50", "model": "x"}, "contradiction"),
        ({"model": "AlexNet", "kind": "cnn"}, "unknown_model"),
    ],
)
def test_a_run_that_cannot_be_read_says_what_is_missing(changes: dict[str, str], code: str) -> None:
    read = read_run(**changes)
    assert isinstance(read, Problem), read
    assert read.code == code
    assert read.remedy


@settings(max_examples=60)
@given(st.floats(1, 50_000), st.floats(1.01, 10))
def test_more_tokens_are_never_less_work(tokens_b: float, more: float) -> None:
    less = run(tokens_b=f"{tokens_b:.3f}").features.flop
    assert run(tokens_b=f"{tokens_b * more:.3f}").features.flop >= less


@pytest.mark.parametrize("text", ["", "NaN", "-", "None"])
def test_blank_cells_take_defaults(text: str) -> None:
    read = step(MicroBatchSize=text, GlobalBatchSize=text, **{"SeqLen (T)": text})
    assert read.seq == 2_048
    assert read.micro_batch > 0
    assert 0.1 < stepmfu.utilisation(library().steps, read) < 0.8


def test_a_step_is_told_by_its_parameters_and_by_its_name() -> None:
    assert (step().hidden, step().layers) == (4_096, 32)
    assert step(NumParams="").params == 7e9
    assert isinstance(steprows.step({"GPU": "h100", "Model": "?"}, library().device), Problem)


HOSTILE = st.sampled_from(
    ("", "0", "-1", "NaN", "inf", "1e400", "1e14", "1e-9", "abc", "\0", "x" * 5_000, "8x7b", "64")
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(RUN)), HOSTILE, min_size=1))
def test_no_row_of_runs_breaks_the_estimate(changes: dict[str, str]) -> None:
    found = estimates.run({**RUN, **changes}, SITE)
    assert isinstance(found, Problem) or 0 < found["device_hours_p10"] < math.inf


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*sorted(STEP), "tp", "pp"]), HOSTILE, min_size=1))
def test_no_row_of_steps_breaks_the_estimate(changes: dict[str, str]) -> None:
    found = estimates.step({**STEP, **changes})
    assert isinstance(found, Problem) or 0 < found["mfu_p50"] < math.inf


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SERVING)), HOSTILE, min_size=1))
def test_no_row_of_serving_breaks_the_estimate(changes: dict[str, str]) -> None:
    found = estimates.serving({**SERVING, **changes})
    assert isinstance(found, Problem) or 0 < found["tpot_ms"] < math.inf


def test_recomputation_sharding_and_distance_cost_utilisation() -> None:
    def reached(**changes: str) -> float:
        return stepmfu.utilisation(library().steps, step(**changes))

    assert reached(**{"Activation Checkpointing": "True"}) < reached()
    assert reached(**{"Sharding Strategy": "SHARD_GRAD_OP"}) > reached()
    far = {"# GPUs": "512", "GlobalBatchSize": "3072"}
    assert reached(**far) < reached()
    assert reached(GPU="a100_80gb") > reached()
    for params in (1e7, 1e9, 1e11, 2e12):
        assert 0.01 < reached(NumParams=str(params)) < 0.9


def test_decoding_follows_the_hardware() -> None:
    assert tpot_ms(batch_size="64") > tpot_ms()
    assert tpot_ms(isl="8192") > tpot_ms()
    assert tpot_ms(precision="bf16") > 1.3 * tpot_ms()
    assert tpot_ms(tp_size="1") > tpot_ms()
    assert tpot_ms(system="h200_sxm") < tpot_ms()
    assert tpot_ms(mode="disagg", decode_batch_size="16", decode_tp_size="2") < tpot_ms()


def test_a_batch_touches_more_experts_than_a_request_and_at_most_all() -> None:
    moe = deployment(model_path="deepseek-ai/DeepSeek-R1", tp_size="8", batch_size="1")
    one = serving.decode_terms(moe)["experts"]
    many = serving.decode_terms(replace(moe, requests=1e6))["experts"]
    assert many / one == pytest.approx(256 / 8, rel=1e-3)


def test_ranks_that_a_table_counts_twice_count_once() -> None:
    doubled = {"tp_size": "64", "moe_tp_size": "8", "moe_ep_size": "8"}
    r1 = {"model_path": "deepseek-ai/DeepSeek-R1"}
    once = {"tp_size": "8", "moe_tp_size": "1", "moe_ep_size": "8"}
    assert tpot_ms(**r1, **doubled) == tpot_ms(**r1, **once)
    ranks = {"tp_size": "1", "attention_dp_size": "64", "moe_tp_size": "8", "moe_ep_size": "8"}
    read = deployment(**r1, **ranks, batch_size="2")
    assert (read.devices, read.requests) == (8, 128)


def test_a_serving_row_without_a_load_says_what_it_assumes() -> None:
    blank = {**SERVING, "mode": "disagg", "decode_tp_size": "8"}
    read = servingrows.deployment(blank, library().device, library().models.find)
    assert not isinstance(read, Problem)
    assert any("assumed" in note for note in read[1])
    assert read[0].requests == 8


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_path": "nobody/knows"}, "unknown_model"),
        ({"system": "abacus"}, "unknown_device"),
        ({"system": "K100"}, "unpublished"),
        ({"isl": "many"}, "not_a_number"),
    ],
)
def test_a_serving_row_that_cannot_be_read(changes: dict[str, str], code: str) -> None:
    read = servingrows.deployment({**SERVING, **changes}, library().device, library().models.find)
    assert isinstance(read, Problem)
    assert read.code == code


def test_a_model_of_unknown_shape_is_served_by_its_size() -> None:
    known, guessed = tpot_ms(), tpot_ms(model_path="nobody/Something-32B")
    assert abs(math.log(guessed / known)) < 0.3


def test_power_and_what_it_emits() -> None:
    model, grids = library().power, library().grids
    assert 700 < model.watts(700, 0.3) < 1_050  # an H100 with its share of the node
    kwh = power.energy_kwh(model, 700, 0.3, 1_000)
    assert kwh == pytest.approx(model.watts(700, 0.3))
    assert grids[power.NATIONAL].year == 2023
    assert power.carbon_kg(kwh, grids["青海"]) < power.carbon_kg(kwh, grids["天津"])
    assert power.carbon_kg(100, grids[power.NATIONAL], 1.1) == pytest.approx(110 * 0.5306)


def test_a_step_of_a_large_model_split_over_devices_is_told_by_its_layout() -> None:
    large = {"GPU": "a100_80gb", "NumParams": "175e9", "# GPUs": "64", "MicroBatchSize": "1"}

    def reached(**changes: str) -> float:
        made = step(**{**large, "GlobalBatchSize": "64", **changes})
        return stepmfu.utilisation(library().steps, made)

    split = reached(tp="8", pp="8", interleave="3")
    assert 0.45 < split < 0.58  # Megatron: 0.51, arXiv 2205.05198
    assert split > reached()  # gathering weights for every micro-batch of one sequence
    assert reached(tp="8", pp="8") < split  # a longer bubble
    too_many = steprows.step({**STEP, "tp": "8", "pp": "2"}, library().device)
    assert isinstance(too_many, Problem) and "16" in too_many.text


def test_a_distilled_model_costs_the_passes_of_its_teacher() -> None:
    size = {"model": "Llama-3.2-1B", "params_total_b": "1.24", "tokens_b": "9000"}
    distilled = run(**size)
    plain = run(**{**size, "model": "unheard of"})
    assert 2.5 < distilled.features.flop / plain.features.flop < 4  # (6 x 1.24 + 2 x 8) / 7.4
    assert any("distilled" in note for note in distilled.notes)
