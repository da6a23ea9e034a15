"""Facts shipped with the project, each with its source: accelerators and model architectures.

The only reader of these files; the core gets what it needs as arguments.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from dusuan.core.catalog import accelerators
from dusuan.core.workload import goodput, named


def text(name: str) -> str:
    """The text of one shipped file."""
    return files(__name__).joinpath(name).read_text("utf-8")


@cache
def catalogue() -> accelerators.Catalogue:
    """The shipped catalogue of accelerators."""
    return accelerators.parse(text("accelerators.csv"), text("accelerator_conflicts.csv"))


@cache
def run_model() -> goodput.RunModel:
    """The fitted model of a run's device-hours."""
    return goodput.run_model(json.loads(text("run_model.json")))


@cache
def models() -> named.ModelTable:
    """The shipped table of named architectures."""
    return named.parse(text("models.csv"))
