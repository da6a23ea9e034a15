"""Classes of work measured for real, on one core of this machine."""

from __future__ import annotations

import pytest
from engine_harness import host_devices

from dusuan.engines.local.calibration import measure_class
from dusuan.engines.local.inventory import Found
from dusuan.engines.local.loads import CLASSES
from dusuan.service import ratings

DEVICE = host_devices()[0]


@pytest.mark.parametrize("class_", CLASSES)
def test_a_class_is_measured(class_: str) -> None:
    found = Found(DEVICE, visible=str(DEVICE.index))
    (load,) = measure_class([found], class_, windows=3, window_ms=30)
    assert load.reason == ""
    assert (load.device, load.class_, len(load.values)) == (DEVICE.device, class_, 3)
    assert all(value > 0 for value in load.values)
    assert load.unit == ("gbs" if class_ == "bandwidth" else "gflops")
    assert load.software.startswith("NumPy ")
    assert (len(load.detail) > 1) == (class_ == "gemm")  # a sweep over sizes


def test_the_names_of_classes_are_the_same_everywhere() -> None:
    assert ratings.CLASSES == CLASSES
