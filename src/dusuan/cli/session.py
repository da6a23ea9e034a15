"""What every command works with: its options, its client, its two outputs, and how it fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from dusuan.cli.client import Client
from dusuan.cli.failures import FAILED, INTERRUPTED, Failure, usage
from dusuan.cli.launcher import Launcher, LauncherError
from dusuan.cli.render import plain

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The platform's directory (default DUSUAN_DATA or .dusuan)."),
]
AccountOption = Annotated[
    str | None, typer.Option("--account", help="The account (default DUSUAN_ACCOUNT).")
]


@dataclass(frozen=True, slots=True)
class Setup:
    """What `build` was given."""

    launcher: Launcher
    new_key: Callable[[], str]


@dataclass
class Session:
    """One run of one command."""

    setup: Setup
    as_json: bool
    data: Path | None
    given: Client | None = None
    out: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    err: Console = field(
        default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True)
    )

    @property
    def data_dir(self) -> Path:
        """The directory of the embedded platform."""
        return self.data or Path(os.environ.get("DUSUAN_DATA") or ".dusuan")

    @cached_property
    def client(self) -> Client:
        """The platform's API."""
        return self.given or Client(*self.setup.launcher.client(self.data), self.setup.new_key)

    def acting(self, client: Client) -> Session:
        """The same session as someone else."""
        return replace(self, given=client)

    def show(self, document: Any, human: Callable[[Any], RenderableType]) -> None:
        """The command's answer: as JSON, or as `human` draws it."""
        if self.as_json:
            typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
        else:
            self.out.print(human(document))

    def say(self, text: str) -> None:
        """A word on the side: for people, on stderr."""
        if not self.as_json:
            self.err.print(plain(text), style="dim", markup=False)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something takes a while."""
        if self.as_json or not self.err.is_terminal:
            self.say(f"{text} …")
            yield
            return
        with self.err.status(text):
            yield

    def account(self, given: str | None) -> str:
        """The account a command is about: named, from the environment, or the only one."""
        named = given or os.environ.get("DUSUAN_ACCOUNT")
        if named:
            return named
        paths = [item["path"] for item in self.client.get("/v1/accounts")["items"]]
        if len(paths) == 1:
            return str(paths[0])
        funded = [path for path in paths[:20] if self._has_degrees(path)]
        if len(funded) == 1 and len(paths) <= 20:
            return str(funded[0])
        listed = ", ".join(funded or paths[:20]) or "none yet: dusuan org create NAME"
        raise usage(
            "which_account",
            f"which account? There are: {listed}",
            "name one with --account or DUSUAN_ACCOUNT",
        )

    def _has_degrees(self, path: str) -> bool:
        wallet = self.client.get("/v1/wallet", account=path)
        return wallet.get("wallet") == path and wallet["balance_gflop"] > 0


@contextmanager
def command(ctx: typer.Context, as_json: bool, data: Path | None) -> Iterator[Session]:
    """Run one command: failures are told on stderr and become its exit code."""
    session = Session(ctx.obj, as_json, data)
    try:
        yield session
    except LauncherError as error:
        failure = Failure(error.code, error.text, error.remedy, FAILED)
        raise _ended(session, failure) from None
    except Failure as failure:
        raise _ended(session, failure) from None
    except UnicodeEncodeError as error:
        text = f"an argument is not valid UTF-8: {error.object!r}"
        raise _ended(session, usage("not_utf8", text, "write it in UTF-8")) from None
    except KeyboardInterrupt:
        raise _ended(session, Failure("interrupted", "interrupted", "", INTERRUPTED)) from None


def _ended(session: Session, failure: Failure) -> typer.Exit:
    if session.as_json:
        typer.echo(json.dumps(failure.document, ensure_ascii=False), err=True)
    else:
        tell(session.err, failure)
    return typer.Exit(failure.exit_code)


def tell(console: Console, failure: Failure) -> None:
    """What happened, where, and what to do next."""
    console.print(plain(f"Error: {failure.text}"), style="bold red", markup=False)
    places = [failure.where, None if failure.line is None else f"line {failure.line}"]
    if any(places):
        console.print(plain(f"  where: {', '.join(p for p in places if p)}"), markup=False)
    if failure.remedy:
        console.print(plain(f"  next:  {failure.remedy}"), markup=False)
