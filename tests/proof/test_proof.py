"""Ten thousand random steps against the auditor."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import create_database, drop_database
from tests.proof.run import server
from tests.proof.world import World, operations

logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # connections are killed on purpose
SEED = int(os.environ.get("DUSUAN_PROOF_SEED") or time.time_ns() % 2**32)
HISTORIES, STEPS = 60, 240  # some histories end early


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server of its own, since it is asked for many connections, and a database to copy."""
    with server(tmp_path_factory.mktemp("proof")) as both:
        yield both


class Histories(RuleBasedStateMachine):
    """One random history, every operation a rule; the parts of an operation follow from a seed."""

    server: tuple[str, str]
    folder: Path
    done = 0

    def __init__(self) -> None:
        super().__init__()
        url, template = self.server
        self.database = create_database(url, template)
        self.world = World(self.database, self.folder)

    def teardown(self) -> None:
        """Everything once more, then the database goes."""
        try:
            self.world.check_everything()
        finally:
            self.world.close()
            drop_database(self.server[0], self.database)


def _rule(name: str) -> Any:
    def step(self: Histories, parts: int) -> None:
        self.world.step(random.Random(parts), name)
        Histories.done += 1

    step.__name__ = name
    return rule(parts=st.integers(0, 2**32 - 1))(step)


# About as often as the long run does each; `rush` starts 64 threads and is done once in a history.
for _name, _weight in operations().items():
    for _n in range(max(1, round(_weight / 4))):
        _step = _rule(_name)
        if _name == "rush":
            _step = precondition(lambda self: not self.world.counts["rush"])(_step)
        setattr(Histories, f"{_name}_{_n}", _step)


@pytest.mark.timeout(600)
def test_ten_thousand_steps_agree_with_the_auditor(
    platform: tuple[str, str], tmp_path: Path
) -> None:
    print(f"DUSUAN_PROOF_SEED={SEED} repeats this")
    Histories.server, Histories.folder, Histories.done = platform, tmp_path, 0
    run_state_machine_as_test(
        seed(SEED)(Histories),
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Histories.done >= 10_000
