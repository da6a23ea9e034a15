"""`sim pack` and `sim fill`: how well and how fast requests are placed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dusuan.cli import render
from dusuan.cli.failures import FAILED, Failure, usage
from dusuan.cli.session import Json, Session, command
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import did_you_mean

T = TypeVar("T")

Placement = Annotated[str, typer.Option("--policy", help="How requests are placed.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same run.")]
_LOAD_MAX = 100.0
_NAMED = 3  # names in a note


def register(group: typer.Typer) -> None:
    """Add these commands to the group `sim`."""
    group.command()(pack)
    group.command()(fill)


def pack(
    ctx: typer.Context,
    nodes: Annotated[Path, typer.Option(help="Node list in the format `openb`.")],
    pods: Annotated[Path, typer.Option(help="Pod list in the format `openb`.")],
    policy: Placement = "dusuan",
    load: Annotated[
        float, typer.Option(help="What pods ask of devices, in parts of what there is.")
    ] = 1.3,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Let pods arrive until they ask for more devices than there are: how much is allocated?"""
    from dusuan.sim import openb
    from dusuan.sim import pack as packing

    with command(ctx, as_json, None) as s:
        chosen = _placement(policy)
        if not 0 < load <= _LOAD_MAX:
            raise usage("bad_load", f"load is {load}", "give a number above 0, up to 100")
        found = _used(openb.read_nodes(nodes))
        asked = _used(openb.read_pods(pods, found.models))
        if not asked.milli.any():
            raise Failure("no_demand", f"no pod of {pods} asks for a device", "see column num_gpu")
        stuck = list(openb.unplaceable(found, asked))
        for note in (*found.notes, *asked.notes, *_stuck(stuck)):
            _warn(s, note)
        with s.busy("placing pods"):
            packed, _ = packing.pack(found, asked, chosen, load, seed, time.perf_counter)
        s.show(asdict(packed), render.made)


def fill(
    ctx: typer.Context,
    devices: Annotated[int, typer.Option(min=1, max=10_000_000, help="Devices in the cluster.")],
    policy: Placement = "dusuan",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fill a cluster one decision at a time, and decide rounds of 10,000 pending requests."""
    from dusuan.sim import fill as filling

    with command(ctx, as_json, None) as s:
        chosen = _placement(policy)
        with s.busy(f"filling {devices} devices"):
            filled = filling.fill(devices, chosen, seed, time.perf_counter)
        s.show(asdict(filled), render.made)


def _placement(name: str) -> str:
    from dusuan.core.scheduling.policy import PLACEMENTS

    plain = name.replace("_", "-")
    if plain not in PLACEMENTS:
        text = f"there is no placement {name!r}"
        raise usage("unknown_policy", text, did_you_mean(plain, PLACEMENTS))
    return plain


def _used(found: T | Problem) -> T:
    """What was read, or the failure that its problem is."""
    if isinstance(found, Problem):
        document = {} if found.line is None else {"line": found.line}
        raise Failure(found.code, found.text, found.remedy, FAILED, document=document)
    return found


def _stuck(names: list[str]) -> tuple[str, ...]:
    """A note on pods larger than any node."""
    if not names:
        return ()
    some = ", ".join(islice(names, _NAMED)) + (", …" if len(names) > _NAMED else "")
    return (f"{len(names)} pods fit on no node even when it is empty: {some}",)


def _warn(session: Session, text: str) -> None:
    """A word about the input, on stderr; a JSON line where JSON is asked for."""
    if session.as_json:
        typer.echo(json.dumps({"warning": text}, ensure_ascii=False), err=True)
    else:
        session.say(text)
