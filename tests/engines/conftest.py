"""Engines for the conformance suite, and bubblewrap where a test needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_harness import Driver, LocalHarness, SimulatedHarness


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    """The path of a bwrap; installed from Debian only when that was asked for."""
    if shutil.which("bwrap") is None and os.geteuid() == 0 and os.environ.get("DUSUAN_TEST_APT"):
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-q", "-y", "bubblewrap"], check=True)
    path = shutil.which("bwrap")
    if path is None:
        pytest.skip("bwrap is not installed (as root, DUSUAN_TEST_APT=1 installs it)")
    return path


@pytest.fixture
def make_local(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., LocalHarness]]:
    """A maker of local engines, all of them cleared away after the test."""
    made: list[LocalHarness] = []

    def make(isolation: str, root: Path = tmp_path / "engine", **options: Any) -> LocalHarness:
        if isolation == "bubblewrap":
            request.getfixturevalue("bubblewrap")
        made.append(LocalHarness(root, isolation, **options))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture(params=["simulated", "process", "bubblewrap"])
def driver(request: pytest.FixtureRequest, make_local: Callable[..., LocalHarness]) -> Driver:
    """Every engine in turn."""
    if request.param == "simulated":
        return Driver(SimulatedHarness())
    return Driver(make_local(request.param))


@pytest.fixture(params=["process", "bubblewrap"])
def local(request: pytest.FixtureRequest, make_local: Callable[..., LocalHarness]) -> LocalHarness:
    """The local engine in each of its isolations."""
    return make_local(request.param)
