"""The catalogue: names as people write them, what is unpublished, overrides."""

from __future__ import annotations

import pytest

from dusuan.core.catalog.accelerators import FIELDS, Accelerator, Match, Override
from dusuan.core.catalog.makes import DOMESTIC_MAKES, is_domestic
from dusuan.core.workload.jobspec import Problem
from dusuan.facts import catalogue

EXACT = [
    ("H100-SXM5-80GB", "", "H100-SXM5-80GB"),
    ("h200_sxm", "", "H200-SXM-141GB"),
    ("A100", "SXM4-80", "A100-SXM4-80GB"),
    ("A100", "SXM4-40", "A100-SXM4-40GB"),
    ("V100", "SXM2-16", "V100-SXM2-16GB"),
    ("TPUv4", "v4", "TPU v4"),
    ("H800", "SXM5", "H800-SXM5-80GB"),
    ("NVIDIA H100 80GB HBM3", "", "H100-SXM5-80GB"),
    ("NVIDIA A100-SXM4-80GB", "", "A100-SXM4-80GB"),
    ("NVIDIA A100 80GB PCIe", "", "A100-PCIE-80GB"),
    ("AMD Instinct MI250X", "", "MI250X"),
    ("Ascend 910B1", "", "Ascend 910B1"),
    ("K100_AI", "", "DCU K100_AI"),
    ("K100", "", "DCU K100"),
    ("NVIDIA GeForce RTX 4090", "", "RTX-4090"),
    ("L4", "", "L4"),
    ("gb300", "", "GB300"),
]
USUAL = [
    ("H100", "H100-SXM5-80GB"),
    ("h100_80gb", "H100-SXM5-80GB"),
    ("a100_40gb", "A100-SXM4-40GB"),
    ("A100", "A100-SXM4-80GB"),
    ("Asc910B", "Ascend 910B3"),
]


@pytest.mark.parametrize(("name", "variant", "found"), EXACT)
def test_names_as_people_write_them(name: str, variant: str, found: str) -> None:
    device = catalogue().find(name, variant)
    assert isinstance(device, Accelerator), device
    assert device.name == found


@pytest.mark.parametrize(("name", "usual"), USUAL)
def test_an_ambiguous_name_lists_its_choices_or_takes_the_usual_and_says_so(
    name: str, usual: str
) -> None:
    refused, match = catalogue().find(name), catalogue().choose(name)
    assert isinstance(refused, Problem)
    assert refused.code == "ambiguous_device"
    assert usual in refused.text
    assert isinstance(match, Match)
    assert match.device.name == usual
    assert match.assumed is not None
    assert usual in match.assumed


@pytest.mark.parametrize("device", catalogue().devices, ids=lambda d: d.name)
def test_every_device_is_found_by_its_own_name_and_is_sourced(device: Accelerator) -> None:
    assert catalogue().find(device.name) is device
    assert device.source
    assert device.confidence in ("high", "medium", "low", "unverified")
    assert all(figure.source for figure in device.figures.values())
    assert all(figure.value > 0 for figure in device.figures.values())
    assert {c.field for c in device.conflicts} <= set(FIELDS)


def test_an_unknown_device_is_refused_with_the_nearest_name() -> None:
    refused = catalogue().find("H1000")
    assert isinstance(refused, Problem)
    assert refused.code == "unknown_device"
    assert "H100" in refused.remedy.upper()


@pytest.mark.parametrize("name", ["S60", "L600", "MTT S5000", "DCU K100", "BR106", "C550"])
def test_what_is_unpublished_stays_missing_and_is_not_quoted(name: str) -> None:
    device = catalogue().find(name)
    assert isinstance(device, Accelerator)
    assert device.rating_gflops is None
    problem = device.unquotable()
    assert problem is not None
    assert "not published" in problem.text
    assert "calibrate" in problem.remedy


def test_a_low_grade_is_not_quoted_either() -> None:
    device = catalogue().find("MLU590")
    assert isinstance(device, Accelerator)
    problem = device.unquotable()
    assert problem is not None
    assert problem.code == "unverified"


def test_origins() -> None:
    by_make = {d.make: d.origin for d in catalogue().devices}
    not_shipped = ("Denglin", "Iluvatar", "Lisuan", "Sophgo", "Vastai")
    assert {m for m, origin in by_make.items() if origin == "domestic"} == {
        make for make in DOMESTIC_MAKES if make not in not_shipped
    }
    assert is_domestic("lisuan") and not is_domestic("Nvidia")
    assert by_make["NVIDIA"] == by_make["AMD"] == "foreign"


def test_an_override_counts_and_keeps_what_was_before() -> None:
    at = "2026-01-02T00:00:00Z"
    set_first = Override("S60", "bf16_tflops", 120.0, "letter of the vendor", "ops", at)
    set_last = Override("S60", "bf16_tflops", 128.0, "GEMM sweep", "ops", at)
    device = catalogue().with_overrides([set_first, set_last]).find("S60")
    assert isinstance(device, Accelerator)
    assert device.rating_gflops == 128_000
    assert device.figures["bf16_tflops"].confidence == "operator"
    assert device.overrides == (set_first, set_last)
    assert device.unquotable() is None
    assert catalogue().find("S60") is not device


def test_the_degree_is_one_a100() -> None:
    device = catalogue().find("A100-SXM4-80GB")
    assert isinstance(device, Accelerator)
    assert device.rating_gflops == 312_000
