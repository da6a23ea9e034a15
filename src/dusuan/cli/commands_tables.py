"""Estimates of whole tables: `estimate batch`, `estimate mfu`, `estimate serving`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from dusuan.cli import tables
from dusuan.cli.failures import usage
from dusuan.cli.session import Json, Session, command
from dusuan.core.workload.jobspec import Problem

Source = Annotated[Path, typer.Argument(metavar="TABLE.csv", help="The rows to estimate.")]
Target = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where to write them (default: stdout).")
]
MFU_COLUMNS = ("mfu_p50", "assumptions")
SERVING_COLUMNS = ("ttft_ms", "tpot_ms", "assumptions")


def register(group: typer.Typer) -> None:
    """Add these commands below `estimate`."""
    group.command("batch")(batch)
    group.command("mfu")(mfu)
    group.command("serving")(serving)


def batch(
    ctx: typer.Context,
    source: Source,
    output: Target = None,
    grid: Annotated[str, typer.Option(help="The site's grid, such as 贵州 (default: 全国).")] = "",
    pue: Annotated[float, typer.Option(help="Power of the hall over that of its IT.")] = 1.2,
    as_json: Json = False,
) -> None:
    """Device-hours, degrees, memory, energy and carbon of training runs, one a row.

    Columns read: model, kind, params_total_b, params_active_b, tokens_b, seq_len, hardware,
    hw_variant, n_devices. What is blank is assumed, and said. Energy is that of the nodes; carbon
    counts the hall as well.
    """
    from dusuan.app import estimates

    with command(ctx, as_json, None) as s:
        at = estimates.site(grid, pue)
        if isinstance(at, Problem):
            raise usage(at.code, at.text, at.remedy)
        answer = partial(estimates.run, at=at)
        _answer(s, source, output, ("hardware",), estimates.RUN_COLUMNS, answer)


def mfu(ctx: typer.Context, source: Source, output: Target = None, as_json: Json = False) -> None:
    """Utilisation of training steps, one a row: `mfu_p50`, a fraction of the peak."""
    from dusuan.app import estimates

    with command(ctx, as_json, None) as s:
        _answer(s, source, output, ("GPU",), MFU_COLUMNS, estimates.step)


def serving(
    ctx: typer.Context, source: Source, output: Target = None, as_json: Json = False
) -> None:
    """Time to the first token and between tokens of serving configurations, one a row."""
    from dusuan.app import estimates

    needed = ("model_path", "system")
    with command(ctx, as_json, None) as s:
        _answer(s, source, output, needed, SERVING_COLUMNS, estimates.serving)


def _answer(
    s: Session,
    source: Path,
    output: Path | None,
    needed: Sequence[str],
    added: Sequence[str],
    answer: tables.Answer,
) -> None:
    table = tables.answered(tables.read(source, needed), answer, added)
    if output is not None or not s.as_json:
        tables.write(table, output)
    document: dict[str, Any] = {
        "rows": len(table.rows),
        "answered": sum(not row[tables.EXTRA] for row in table.rows),
        "errors": tables.problems(table.rows),
        "output": None if output is None else str(output),
    }
    if output is None:
        document["table"] = table.rows
    if s.as_json or output is not None:
        s.show(document, _told)


def _told(document: Any) -> RenderableType:
    told = f"{document['answered']} of {document['rows']} rows answered: {document['output']}"
    counted = ", ".join(f"{n} {code}" for code, n in document["errors"].items())
    return Text(told + (f"; without an answer: {counted} (column error)" if counted else ""))
