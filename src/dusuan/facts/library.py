"""All shipped facts in one place, with what was found once remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from typing import Any

from dusuan.core.catalog.accelerators import Match
from dusuan.core.energy import power as watts
from dusuan.core.workload import goodput, serving, stepmfu
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.jobspec import Problem
from dusuan.facts import catalogue, models, run_model, text

REMEMBERED = 10_000


class RememberedModels:
    """The table of named architectures, with what was found once remembered."""

    def __init__(self) -> None:
        self.find: Callable[[str], Architecture | Problem] = lru_cache(REMEMBERED)(models().find)
        self._known = lru_cache(REMEMBERED)(models().known)

    def known(self, name: str) -> Architecture | Problem | None:
        """See `ModelTable.known`."""
        return self._known(name)


class Library:
    """Look-ups by name, and the fitted models. One of it serves all; see `library`."""

    @cached_property
    def runs(self) -> goodput.RunModel:
        """Device-hours of a training run."""
        return run_model()

    @cached_property
    def steps(self) -> stepmfu.StepModel:
        """Utilisation of a training step."""
        return stepmfu.step_model(_document("step_model.json"))

    @cached_property
    def serving(self) -> serving.ServingModel:
        """Times of serving."""
        return serving.serving_model(_document("serving_model.json"))

    @cached_property
    def power(self) -> watts.PowerModel:
        """Power of a device with its share of the node."""
        return watts.power_model(_document("power_model.json"))

    @cached_property
    def grids(self) -> dict[str, watts.GridFactor]:
        """Grid factors by region."""
        return watts.grid_factors(text("grid_factors_cn.csv"))

    @cached_property
    def device(self) -> Callable[..., Match | Problem]:
        """The accelerator that a name (and variant) means; see `Catalogue.choose`."""
        return lru_cache(REMEMBERED)(catalogue().choose)

    @cached_property
    def models(self) -> RememberedModels:
        """The architectures by name."""
        return RememberedModels()


@cache
def library() -> Library:
    """The shipped facts."""
    return Library()


def _document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text(name))
    return found
