"""Commands that size work before it runs: the estimator, conversions.

They need no running platform: what they know ships with the command. Where one runs, the figures
of its operator are used.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import typer

from dusuan.cli import commands_tables, modelfile, render_sizing
from dusuan.cli.commands_catalog import seen_catalogue
from dusuan.cli.failures import usage
from dusuan.cli.session import Data, Json, command
from dusuan.core.catalog.accelerators import Accelerator, Catalogue, Match
from dusuan.core.convert import convert as convert_units
from dusuan.core.workload.describe import Asked, Kind, Model, amount, describe
from dusuan.core.workload.estimate import Estimate, Models, estimate
from dusuan.core.workload.flops import Finetune
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.layout import parse_layout
from dusuan.facts.library import library

REFERENCE = "A100-SXM4-80GB"  # the card that defines the degree
_UNITS = {"ignore_unknown_options": True}  # a value may be negative
_Value = TypeVar("_Value")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(context_settings=_UNITS)(convert)
    app.add_typer(_estimating(), name="estimate", help="What a workload takes, before it runs.")


def _estimating() -> typer.Typer:
    """`estimate` of one workload, with the commands over tables below it."""
    group = typer.Typer()
    group.callback(invoke_without_command=True)(estimate_command)
    commands_tables.register(group)
    return group


def sound(value: _Value | Problem) -> _Value:
    """`value`, or the failure that it is."""
    if isinstance(value, Problem):
        raise usage(value.code, value.text, value.remedy)
    return value


def convert(
    ctx: typer.Context,
    value: str,
    source: Annotated[str, typer.Argument(metavar="UNIT")],
    target: Annotated[str, typer.Argument(metavar="UNIT")],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Convert between degrees, FLOP, PFLOP/s-days, card-hours of any card, P and E of a centre."""
    with command(ctx, as_json, data) as s:
        converted = sound(convert_units(value, source, target, cards=seen_catalogue(s).rated))
        document = {"value": converted.value, "unit": converted.unit, "exact": converted.exact}
        s.show(document, render_sizing.converted)


_Params = Annotated[str | None, typer.Option(help="Parameters, such as 72e9 or 72B.")]
_Active = Annotated[str | None, typer.Option("--active", help="Of these, used by one token.")]
_Model = Annotated[
    str | None, typer.Option(help="config.json, .safetensors or .gguf file, folder, or a name.")
]
_Tokens = Annotated[str | None, typer.Option(help="Tokens, such as 15e12 or 15T.")]
_Finetune = Annotated[Finetune | None, typer.Option(help="Fine-tuning: all weights or adapters.")]
_KindOption = Annotated[Kind | None, typer.Option(help="What is done with the model.")]
_Count = Annotated[str | None, typer.Option(help="Devices (default: the fewest that fit).")]
_Device = Annotated[str | None, typer.Option(help="A device of the catalogue (default: A100).")]
_Layout = Annotated[str | None, typer.Option(help="tp=8,pp=4,zero=1,recompute=full,mb=1,sp=off")]


def estimate_command(
    ctx: typer.Context,
    params: _Params = None,
    active: _Active = None,
    model: _Model = None,
    tokens: _Tokens = None,
    kind: _KindOption = None,
    finetune: _Finetune = None,
    device: _Device = None,
    count: _Count = None,
    layout: _Layout = None,
    seq: Annotated[str | None, typer.Option(help="Tokens of a sequence.")] = None,
    batch: Annotated[str | None, typer.Option(help="Sequences of a step.")] = None,
    rank: Annotated[str | None, typer.Option(help="Rank of adapters.")] = None,
    precision: Annotated[str, typer.Option(help="bf16, fp16, fp8, int8 or int4.")] = "bf16",
    images: Annotated[str | None, typer.Option(help="Images seen, repetitions counted.")] = None,
    samples: Annotated[str | None, typer.Option(help="Samples of the data set.")] = None,
    epochs: Annotated[str | None, typer.Option(help="Passes over the data set.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Tokens a request reads.")] = None,
    output: Annotated[str | None, typer.Option(help="Tokens a request writes.")] = None,
    requests: Annotated[str | None, typer.Option(help="Requests to answer.")] = None,
    concurrency: Annotated[str | None, typer.Option(help="Requests at a time.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """What a workload takes: FLOP, degrees, device-hours, memory, layout, energy."""
    if ctx.invoked_subcommand is not None:
        return
    with command(ctx, as_json, data) as s:
        said = {"params": params, "active": active, "tokens": tokens, "images": images}
        said |= {"samples": samples, "epochs": epochs, "requests": requests, "seq": seq}
        said |= {"batch": batch, "rank": rank, "prompt": prompt, "output": output}
        said |= {"concurrency": concurrency, "count": count}
        numbers = _numbers(said)
        used = numbers.pop("count")
        asked = _asked(numbers, model, kind, finetune, precision)
        chosen = _estimated(seen_catalogue(s), asked, device, used, layout)
        s.show(chosen.document(), render_sizing.estimate)


_WHOLE = ("seq", "batch", "rank", "prompt", "output", "concurrency", "count")


def _numbers(said: dict[str, str | None]) -> dict[str, Any]:
    """What was said as numbers; None where nothing was."""
    found: dict[str, Any] = {}
    for name, text in said.items():
        value = None if text is None else sound(amount(text, f"--{name}"))
        found[name] = value if value is None else _whole(name, value)
    return found


def _asked(
    numbers: dict[str, Any],
    model: str | None,
    kind: Kind | None,
    finetune: Finetune | None,
    precision: str,
) -> Asked:
    if precision not in PRECISIONS:
        words = f"{precision[:20]!r} is no precision"
        raise usage("unknown_value", words, f"known: {', '.join(PRECISIONS)}")
    if model is not None and numbers["params"] is not None:
        words = "--model and --params both say what the model is"
        raise usage("contradiction", words, "leave one of them out")
    found: Model | Problem | None = None if model is None else modelfile.load(model)
    if isinstance(found, Problem):
        raise usage(found.code, found.text, found.remedy)
    said = {"model": found, "kind": kind, "finetune": finetune, "precision": precision}
    active = {"active_params": numbers.pop("active")}
    return Asked(**said, **active, **numbers)  # type: ignore[arg-type] # by their names


PRECISIONS = ("bf16", "fp16", "fp8", "int8", "int4", "fp4")


def _whole(name: str, value: float) -> float | int:
    if name not in _WHOLE:
        return value
    if value != int(value):
        raise usage("wrong_value", f"--{name} is {value:g}, not a whole number", "round it")
    return int(value)


def _estimated(
    known: Catalogue, asked: Asked, device: str | None, count: int | None, layout: str | None
) -> Estimate:
    work = sound(describe(asked))
    match: Match = sound(known.choose(device or REFERENCE))
    given = None if layout is None else sound(parse_layout(layout, count))
    used = count if given is None else given.count
    facts = library()
    fitted = Models(facts.runs, facts.serving, facts.power)
    found = sound(estimate(work, match.device, fitted, used, given))
    notes = [match.assumed] if match.assumed else []
    if device is None:
        notes.append(f"no device given: {REFERENCE}, the card that defines the degree")
    return found.noting(*notes, *_own(match.device))


def _own(device: Accelerator) -> list[str]:
    """A word on the operator's own figures of the device, where there are any."""
    own = [name for name, figure in device.figures.items() if figure.confidence == "operator"]
    return [f"set by the platform's operator for {device.name}: {', '.join(own)}"] if own else []
