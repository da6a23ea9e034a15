"""Power of a device with its share of the node: idle plus slope times what it computes.

Both are shares of the device's rated power. A model of this form errs by about 11 % where one that
takes the rated power errs by 27 to 37 % (arXiv 2506.14551). The node's share holds processors,
memory, fans and network; the cooling of the hall is not in it: that is the PUE.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Air-cooled halls reach 1.2 to 1.4, liquid-cooled 1.05 to 1.15; OLMo 2 states 1.2.
PUE = 1.2
NATIONAL = "全国"


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Power of a busy device and its share of the node, in shares of the rated power."""

    idle: float  # busy, but computing nothing that counts
    slope: float  # for each unit of FLOP utilisation
    provenance: Mapping[str, Any]

    def watts(self, tdp_w: float, utilisation: float) -> float:
        """Average power in W of one device with its share of the node."""
        return tdp_w * (self.idle + self.slope * utilisation)


def power_model(document: Mapping[str, Any]) -> PowerModel:
    """The model from the document that `bench/accuracy/fit_energy.py` writes."""
    return PowerModel(document["idle"], document["slope"], document["provenance"])


def energy_kwh(model: PowerModel, tdp_w: float, utilisation: float, device_hours: float) -> float:
    """kWh at the nodes of a run of `device_hours` at an average FLOP `utilisation` (0 to 1)."""
    return model.watts(tdp_w, utilisation) * device_hours / 1e3


@dataclass(frozen=True, slots=True)
class GridFactor:
    """What a grid emits: kgCO2 for each kWh, the year it is of, and who says so."""

    region: str
    kg_per_kwh: float
    year: int
    source: str


def grid_factors(table: str) -> dict[str, GridFactor]:
    """The latest average factor of each region, from the text of the shipped table."""
    found: dict[str, GridFactor] = {}
    for row in csv.DictReader(io.StringIO(table)):
        year, region = int(row["year"]), row["region"]
        if row["kind"] != "average" or (region in found and found[region].year >= year):
            continue
        found[region] = GridFactor(region, float(row["kg_co2_per_kwh"]), year, row["source"])
    return found


def carbon_kg(kwh: float, factor: GridFactor, pue: float = PUE) -> float:
    """kgCO2 of `kwh` at the nodes: what the hall draws for them, times the grid's factor."""
    return kwh * pue * factor.kg_per_kwh
