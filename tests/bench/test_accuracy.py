"""docs/accuracy.md says what `python -m bench.accuracy` finds, and the shipped fits are current."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from bench.accuracy import fit_energy, fit_mfu, fit_runs, fit_serving, measure, report
from bench.accuracy.errors import Errors
from threadpoolctl import threadpool_limits

NUMBER = re.compile(r"\d+(?:\.\d+)?")
TARGETS = {  # split -> median, and p90 where one is promised
    "one model size at a time": (0.07, None),
    "tensor and pipeline parallel (Megatron, A100), one model size at a time": (0.07, None),
    "one family at a time, strength of the ridge chosen without it": (0.18, 0.50),
    "one model at a time": (0.25, None),
    "one system at a time": (0.25, None),
    "a fifth of the engines' versions at a time": (0.25, None),
    "all rows: one system at a time, and those": (0.25, None),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="module")
def measured() -> list[Errors]:
    return measure.everything()


def test_the_page_is_what_the_command_prints(measured: list[Errors]) -> None:
    said, made = report.TARGET.read_text("utf-8"), report.document(measured)
    assert NUMBER.sub("#", said) == NUMBER.sub("#", made), f"stale: run {report.COMMAND}"
    pairs = zip(NUMBER.findall(said), NUMBER.findall(made), strict=True)
    # Another machine's linear algebra may move a last digit.
    moved = [(a, b) for a, b in pairs if abs(float(a) - float(b)) > max(0.3, 0.02 * float(a))]
    assert not moved, f"stale: run {report.COMMAND}"


def test_the_errors_are_within_what_is_promised(measured: list[Errors]) -> None:
    promised = [e for e in measured if e.split in TARGETS and "first token" not in e.target]
    assert len(promised) == len(TARGETS)
    for errors in promised:
        median, p90 = TARGETS[errors.split]
        assert errors.median <= median, errors.line()
        assert p90 is None or errors.p90 <= p90, errors.line()
    runs = next(e for e in promised if e.covered is not None)
    assert runs.within_two >= 0.95
    assert runs.covered is not None and 0.7 <= runs.covered <= 0.9


def test_exact_counts_are_exact(measured: list[Errors]) -> None:
    for errors in measured:
        if errors.target == "FLOP of training":
            assert max(errors.relative) < 0.01
        if errors.target == "activations":
            assert max(errors.relative) < 0.05


@pytest.mark.parametrize("fit", [fit_energy, fit_mfu, fit_runs, fit_serving])
def test_what_ships_is_what_the_fit_makes(fit: Any) -> None:
    shipped = json.loads(fit.TARGET.read_text("utf-8"))
    made = fit.document(fit.points(), shipped["provenance"]["date"])
    assert made["provenance"] == shipped["provenance"]
    assert _numbers(made) == pytest.approx(_numbers(shipped), rel=0.02, abs=0.005)


def test_an_interval_is_wider_where_new_families_err_more_than_known_ones() -> None:
    few, *rest = fit_runs.used(fit_runs.points(), fit_runs.FIT)
    known = [p for p in rest if p.family == "Pythia"]
    errors = [(p, 0.1) for p in known] + [(few, 0.5)]
    assert fit_runs.spread(errors) == 0.5  # one family of two, though a row of nine
    assert fit_runs.spread([(p, 0.1) for p in known]) == 0.1


def test_what_is_set_aside_moves_no_fit_that_is_judged_on_it() -> None:
    data = fit_runs.points()
    aside = {p.family for p in fit_runs.used(data, fit_runs.ASIDE)}
    assert len(aside) == 6
    assert not aside & {p.family for p in fit_runs.used(data, fit_runs.FIT)}


def _numbers(document: dict[str, object]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in document.items():
        if isinstance(value, dict) and name != "provenance":
            found |= {f"{name}.{inner}": number for inner, number in _numbers(value).items()}
        elif isinstance(value, int | float):
            found[name] = float(value)
    return found
