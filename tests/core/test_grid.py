"""Ways to run a described workload: memory decides, more work costs more, reasons are given."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dusuan.core.catalog.accelerators import Accelerator, Figure
from dusuan.core.planning import front, grid
from dusuan.core.planning.grid import Models, Option
from dusuan.core.planning.layouts import describe_layout
from dusuan.core.planning.menu import Menu, Plan, Price, Site, Terms, assemble
from dusuan.core.workload import estimate
from dusuan.core.workload.describe import Asked, Kind, Work, describe
from dusuan.core.workload.flops import Finetune
from dusuan.core.workload.memory import Layout
from dusuan.facts import catalogue, models
from dusuan.facts.library import library

COUNTS = (1, 2, 4, 8, 16, 32, 64)
FACTS = library()
FITTED = Models(estimate.Models(FACTS.runs, FACTS.serving, FACTS.power), FACTS.steps)
TERMS = Terms(Price(2_000, 20_000_000), "standard", Site("here", 1.2, 0.5))
ROUNDED = 1 + 1e-4  # ratings are whole GFLOPS, times whole milliseconds
quickly = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def option(name: str, **changes: object) -> Option:
    found = catalogue().find(name)
    assert isinstance(found, Accelerator), found
    plain = Option(
        found, "gpu", found.rating_gflops or 1, COUNTS, True, None, grid.unquotable(found)
    )
    return replace(plain, **changes)


def work(**said: object) -> Work:
    asked = Asked(**{"model": models().find("llama-3-8b"), "tokens": 1e9, **said})
    found = describe(asked)
    assert isinstance(found, Work), found
    return found


def menu(job: Work, *options: Option, terms: Terms = TERMS) -> Menu:
    ways, excluded = grid.ways(job, options, FITTED)
    return assemble(ways, terms, excluded)


A100, H100 = "A100-SXM4-80GB", "H100-SXM5-80GB"


def test_a_menu_of_two_cards() -> None:
    found = menu(work(), option(A100), option(H100))
    assert {p.device for p in found.plans} <= {A100, H100}
    for plan in found.plans:
        assert plan.basis == "estimated"
        assert plan.binding
        assert plan.layout is not None
        assert plan.layout["tp"] * plan.layout["pp"] * plan.layout["dp"] == plan.count
        assert plan.memory_gib is not None
        assert plan.memory_gib < 80
        assert plan.energy_kwh is not None
        assert plan.co2_kg == pytest.approx(plan.energy_kwh * 0.5, rel=1e-3)
        assert plan.finish_p90_s > plan.finish_p50_s > 0
        assert plan.price_fen_max >= plan.price_fen_p50 > 0
    # One card cannot hold 18 bytes a parameter of 8 B.
    assert min(p.count for p in found.plans) >= 2


def test_every_reason_a_device_falls_out_for() -> None:
    job = work(model=models().find("llama-3-70b"))
    cards = [
        option("T4", counts=(1, 2)),
        option("C550"),
        option(A100, counts=()),
        option("H20", excluded="origin: NVIDIA is no domestic make"),
    ]
    found = menu(job, *cards)
    reasons = {e.device: e.reason for e in found.excluded}
    assert found.plans == ()
    assert reasons["T4"].startswith("memory: ")
    assert "a device has 16" in reasons["T4"]
    assert reasons["C550"].startswith("unpublished: ")
    assert reasons[A100].startswith("quota: ")
    assert reasons["H20"].startswith("origin: ")


def test_lora_fits_where_full_training_does_not() -> None:
    one = option("RTX-4090", counts=(1,))
    full = work(kind=Kind.FINETUNE, finetune=Finetune.FULL)
    assert menu(full, one).plans == ()
    lora = work(kind=Kind.FINETUNE, finetune=Finetune.QLORA, seq=1_024)
    assert menu(lora, one).plans != ()


def test_a_batch_cannot_be_split_over_more_replicas_than_it_has_sequences() -> None:
    small = work(batch=4, kind=Kind.FINETUNE, finetune=Finetune.LORA)
    plans = grid.ways(small, [option(A100)], FITTED)[0]
    assert all(w.layout is not None and w.layout.data <= 4 for w in plans)


def test_splitting_matrices_over_a_node_costs_a_part_and_not_the_number_of_its_cards() -> None:
    job = work(model=models().find("llama-3-70b"), seq=8_192, batch=512)
    plain = grid._strain(job, option(H100).device, grid.PLAIN, FITTED)
    for at in (Layout(tensor=8, data=8), Layout(tensor=8, pipeline=4, data=2)):
        assert 1 < grid._strain(job, option(H100).device, at, FITTED) / plain < 2
    deep = Layout(tensor=8, pipeline=8, data=64)  # eight micro-batches: a bubble of 7/8
    assert grid._strain(job, option(H100).device, deep, FITTED) / plain > 2.5


def test_what_was_measured_here_replaces_what_others_reached() -> None:
    seen = option(A100, sustained_gflops=(90_000.0, 100_000.0, 125_000.0))
    job = work()
    (way,) = [w for w in grid.ways(job, [seen], FITTED)[0] if w.count == 8]
    seconds = job.flop(1e9) / 1e9 / 100_000 / 8
    assert way.finish_p50_s == pytest.approx(seconds, rel=0.35)
    assert way.finish_p50_s >= seconds * 0.999  # a layout only loses
    assert way.finish_p90_s / way.finish_p50_s == pytest.approx(100 / 90, rel=1e-6)


@pytest.mark.parametrize("kind", [Kind.BATCH, Kind.SERVE])
def test_inference_is_on_the_menu_too(kind: Kind) -> None:
    job = work(kind=kind, tokens=None, requests=10_000, prompt=500, output=200)
    found = menu(job, option(A100), option("L20"))
    assert found.plans
    assert all(p.finish_p50_s > 0 for p in found.plans)


@quickly
@given(st.floats(1e8, 1e13), st.floats(1.0, 100.0))
def test_more_tokens_never_cost_less(tokens: float, factor: float) -> None:
    few = {p.plan_id: p for p in _all(work(tokens=tokens), A100, H100)}
    many = {p.plan_id: p for p in _all(work(tokens=tokens * factor), A100, H100)}
    assert few.keys() == many.keys()
    for name, plan in few.items():
        more = many[name]
        assert more.price_fen_p50 >= plan.price_fen_p50
        assert more.price_fen_max >= plan.price_fen_max
        assert more.held_gflop_p50 >= plan.held_gflop_p50
        assert more.finish_p90_s >= plan.finish_p90_s
    best_few = min(p.price_fen_max for p in few.values())
    assert min(p.price_fen_max for p in many.values()) >= best_few


def _all(job: Work, *names: str) -> list[Plan]:
    """Every way as a plan, one menu each, so that none is beaten."""
    ways, _ = grid.ways(job, [option(n) for n in names], FITTED)
    return [replace(assemble([w], TERMS).plans[0], plan_id=f"{w.device}-{w.count}") for w in ways]


@quickly
@given(st.floats(1.0, 4.0), st.sampled_from([A100, "L20", "C500-PCIe", "Ascend 910B2"]))
def test_a_faster_card_at_the_same_price_a_degree_never_makes_the_menu_worse(
    factor: float, name: str
) -> None:
    """The faster card is the same one with all its rates higher, and rated higher by as much."""
    base = option(name)
    rates = ("bf16_tflops", "fp16_tflops", "bandwidth_gbs", "link_gbs")
    figures = {
        n: Figure(f.value * (factor if n in rates else 1.0), f.source, f.confidence)
        for n, f in base.device.figures.items()
    }
    quick = replace(base.device, name="faster", figures=figures)
    faster = option(name, device=quick, rating_gflops=round(base.rating_gflops * factor))
    job = work()
    before = menu(job, base, option(H100))
    after = menu(job, base, option(H100), faster)
    for plan in before.plans:  # each is still there, or something is nowhere worse
        assert any(
            p.held_gflop_p50 <= plan.held_gflop_p50 * ROUNDED
            and p.price_fen_max <= plan.price_fen_max * ROUNDED + 1
            and p.finish_p50_s <= plan.finish_p50_s * ROUNDED
            and p.finish_p90_s <= plan.finish_p90_s * ROUNDED
            for p in after.plans
        )


NAMES = st.lists(
    st.sampled_from([d.name for d in catalogue().devices]), min_size=1, max_size=6, unique=True
)


@quickly
@given(NAMES, st.sampled_from(["llama-3-8b", "llama-3-70b"]), st.integers(300, 3_000))
def test_no_plan_on_the_menu_is_beaten_and_every_other_device_says_why(
    names: list[str], model: str, spot: int
) -> None:
    tiers = {"standard": 1_000, "spot": spot, "reserved": 1_300}
    found = menu(
        work(model=models().find(model)), *map(option, names), terms=replace(TERMS, tiers=tiers)
    )
    for plan in found.plans:
        assert not any(_beats(other, plan) for other in found.plans)
    on_menu = {p.device for p in found.plans}
    told = {e.device: e.reason for e in found.excluded}
    assert on_menu | told.keys() == set(names)
    assert all(told.values())


def _beats(a: Plan, b: Plan) -> bool:
    """By what is shown, exactly."""
    rank = {"reserved": 0, "standard": 1, "spot": 2}

    def figures(p: Plan) -> tuple[float, ...]:
        energy = float("inf") if p.energy_kwh is None else p.energy_kwh
        return (
            *(p.held_gflop_p50, p.price_fen_max, p.finish_p50_s, p.finish_p90_s),
            *(energy, rank[p.tier]),
        )

    mine, its = figures(a), figures(b)
    return mine != its and all(x <= y for x, y in zip(mine, its, strict=True))


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=60))
def test_the_front_against_the_definition(rows: list[list[int]]) -> None:
    import numpy as np

    values = np.array(rows, dtype=np.float64).reshape(-1, 3)
    kept = front.front(values)
    for i, row in enumerate(rows):
        beaten = any(
            all(a <= b for a, b in zip(other, row, strict=True)) and other != row for other in rows
        )
        assert kept[i] == (not beaten)


def test_a_layout_in_words() -> None:
    assert describe_layout(None) == ""
    found = {"tp": 2, "pp": 1, "dp": 4, "ep": 1, "zero": 3, "recompute": "full"}
    assert describe_layout(found) == "tp 2 · dp 4 · zero 3 · recompute"
