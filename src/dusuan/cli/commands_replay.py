"""`sim record` and `sim replay`: the log of live rounds as a file, and what it shows."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from dusuan.cli import render, simulating
from dusuan.cli.failures import FAILED, Failure
from dusuan.cli.session import Data, Json, command

Moment = Annotated[
    str | None, typer.Option(help="A time with its zone, as 2026-01-31T08:00:00+08:00.")
]


def register(group: typer.Typer) -> None:
    """Add these commands to the group `sim`."""
    group.command()(record)
    group.command()(replay)


def record(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file; packed when it ends in .gz.")],
    since: Moment = None,
    until: Moment = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Write down what the live scheduler saw and decided, to be replayed. Operators only."""
    with command(ctx, as_json, data) as s:
        with s.busy("recording"):
            text = s.client.text("/v1/rounds", since=since, until=until)
            rounds = _written(out, text)
        s.show({"file": str(out), "rounds": rounds}, render.made)


def _written(out: Path, text: Any) -> int:
    """Write a record, complete or not at all; how many rounds it has."""
    part = out.with_name(out.name + ".partial")
    try:
        with _opened(part, packed=out.suffix == ".gz") as file:
            lines, last = _copy(text, file)
        _check_whole(last)
        part.replace(out)
    except OSError as failed:
        told = f"{out} cannot be written: {failed.strerror}"
        raise Failure("unwritable", told, "name another file") from None
    finally:
        part.unlink(missing_ok=True)
    return lines - 2


def _opened(path: Path, *, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "wt", encoding="utf-8", newline="\n")
    return path.open("w", encoding="utf-8", newline="\n")


def _copy(text: Any, file: IO[str]) -> tuple[int, str]:
    """Copy all pieces; the number of lines, and the last of them."""
    lines, tail = 0, ""
    for piece in text:
        file.write(piece)
        lines += piece.count("\n")
        tail = (tail + piece)[-200:]
    return lines, tail.rstrip("\n").rpartition("\n")[2]


def _check_whole(last: str) -> None:
    if not last.startswith('{"kind":"end"'):
        text = "the platform broke off in the middle of the record"
        raise Failure("connection_lost", text, "try again; its log says why: service.log")


def replay(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `sim record` wrote, plain or gzip.")],
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Another policy, by name or file (default: the recorded)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide a recorded day again, by the same rules from the same facts; exit 1 when any decision
    comes out otherwise. With another policy: where it would have parted from what was done."""
    from dusuan.sim.replay import document_of
    from dusuan.sim.replay import replay as run

    with command(ctx, as_json, None) as s:
        parts = None if policy is None else simulating.policy_of(policy)
        with simulating.counted(s, "rounds") as told:
            found = simulating.sound(run(file, parts, told))
        document = document_of(file, found)
        s.show(document, lambda shown: _told(shown, policy))
        if policy is None and not found.is_same:
            raise typer.Exit(FAILED)


def _told(document: Mapping[str, Any], policy: str | None) -> RenderableType:
    """The figures, and in words what the first difference is and what it means."""
    shown = render.made({k: v for k, v in document.items() if k != "difference"})
    words = [] if document["difference"] is None else _first(document["difference"])
    if policy is not None:
        words += [
            "each round is judged from what the recorded policy had left; for waits under "
            f"another: dusuan sim run --format journal --jobs {document['file']} --policy {policy}"
        ]
    if document["rounds_lost"]:
        words += ["rounds that the service could not write down are no agreement: see its log"]
    return Group(shown, *(Text(line) for line in words))


def _first(first: Mapping[str, Any]) -> list[str]:
    return [
        f"first difference: round {first['round']} at {first['at']} (line {first['line']}), "
        f"{first['job']}",
        f"  recorded: {first['recorded']}",
        f"  replayed: {first['replayed']}",
    ]
