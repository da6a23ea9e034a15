"""Commands about jobs: quote, submit, follow, explain, settle up."""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from dusuan.cli import follow as following
from dusuan.cli import jobfile, quoting, render
from dusuan.cli.commands_tenants import quoted as in_path
from dusuan.cli.failures import FAILED, Failure, usage
from dusuan.cli.session import AccountOption, Data, Json, Session, command

JobArgument = Annotated[Path, typer.Argument(metavar="JOB", help="A job file.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not follow the job.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_ANY = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(quote)
    app.command()(submit)
    app.command(context_settings=_ANY)(run)
    for each in (job, jobs, cancel, logs, why, receipt, outputs):
        app.command()(each)


def quote(
    ctx: typer.Context,
    path: JobArgument,
    account: AccountOption = None,
    what_if: Annotated[
        bool, typer.Option("--what-if", help="Also on devices that the centre could have.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every plan, not only a few.")] = False,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """The plans for a job: price, time, and why others are left out."""
    with command(ctx, as_json, data) as s:
        prepared = _prepare(s, path)
        quote = quoting.quoted(s, prepared, s.account(account), what_if=what_if)
        s.show(quote, lambda shown: render.quote(shown, every=every))


def submit(
    ctx: typer.Context,
    path: JobArgument,
    account: AccountOption = None,
    plan: Annotated[str | None, typer.Option(help="A plan of the quote.")] = None,
    no_quote: Annotated[bool, typer.Option("--no-quote", help="Run it as it is.")] = False,
    yes: Yes = False,
    detach: Detach = False,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Run a job file. One that says how much it does is quoted first, and its plan confirmed."""
    with command(ctx, as_json, data) as s:
        prepared, payer = _prepare(s, path), s.account(account)
        if no_quote or not prepared.sized:
            made = s.client.post("/v1/jobs", prepared.request(payer), prepared.where)
        else:
            made = _submit_quoted(s, prepared, payer, plan, yes)
        _see_through(s, made, detach, prepared.warnings)


def run(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="-- CMD", help="A command.")],
    account: AccountOption = None,
    name: Annotated[str, typer.Option(help="The job's name.")] = "run",
    workdir: Annotated[Path | None, typer.Option(help="A directory to take along.")] = None,
    yes: Yes = False,
    detach: Detach = False,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Run a plain command."""
    _ = yes  # nothing is asked here; taken so that scripts can treat it like `submit`
    with command(ctx, as_json, data) as s:
        text = jobfile.command_file(words, name, None if workdir is None else str(workdir))
        prepared = jobfile.prepare(s, text, name, "the command", Path())
        made = s.client.post("/v1/jobs", prepared.request(s.account(account)), prepared.where)
        _see_through(s, made, detach, prepared.warnings)


def _prepare(session: Session, path: Path) -> jobfile.Prepared:
    text = jobfile.read(path)
    return jobfile.prepare(session, text, path.stem or "job", str(path), path.parent)


def _submit_quoted(
    session: Session, prepared: jobfile.Prepared, payer: str, plan: str | None, yes: bool
) -> dict[str, Any]:
    menu = quoting.quoted(session, prepared, payer)
    if not session.as_json:
        session.out.print(render.quote(menu))
    chosen = quoting.chosen(menu, plan)
    if not yes:
        _confirm(session, chosen)
    body = {"quote_id": menu["quote_id"], "plan_id": chosen}
    return session.client.post("/v1/jobs", body, prepared.where)


def _confirm(session: Session, plan: str) -> None:
    if session.as_json or not sys.stdin.isatty():
        text = f"the plan {plan} has to be confirmed, and nobody can be asked here"
        raise usage("not_confirmed", text, "add --yes")
    if not typer.confirm(f"Run it on {plan}?", default=True, err=True):
        raise Failure("declined", "not submitted", "--plan chooses another plan")


def _see_through(
    session: Session, made: dict[str, Any], detach: bool, warnings: tuple[str, ...]
) -> None:
    """Follow a job that was just submitted, unless told not to; its outcome is the exit code."""
    job_id = made["job_id"]
    if detach:
        document = session.client.get(f"/v1/jobs/{job_id}")
    else:
        session.say(f"submitted {job_id}")
        document = following.follow(session, job_id)
    session.show({**document, "warnings": list(warnings)}, render.job)
    if not detach and document["state"] != "succeeded":
        raise typer.Exit(FAILED)


def job(ctx: typer.Context, job_id: Id, as_json: Json = False, data: Data = None) -> None:
    """One job with its attempts."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get(f"/v1/jobs/{in_path(job_id)}"), render.job)


def jobs(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    before: Annotated[int | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Your jobs, newest first."""
    with command(ctx, as_json, data) as s:
        page = s.client.get("/v1/jobs", state=state, limit=limit, before=before)
        s.show(page, render.jobs)


def cancel(ctx: typer.Context, job_id: Id, as_json: Json = False, data: Data = None) -> None:
    """Cancel a job; a running one gets its checkpoint signal and its grace first."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.post(f"/v1/jobs/{in_path(job_id)}/cancel", {}), render.job)


def why(ctx: typer.Context, job_id: Id, as_json: Json = False, data: Data = None) -> None:
    """Why a job is where it is, and what would help."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get(f"/v1/jobs/{in_path(job_id)}/why?remedies=true"), render.why)


def receipt(ctx: typer.Context, job_id: Id, as_json: Json = False, data: Data = None) -> None:
    """What an ended job held, delivered and cost."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get(f"/v1/jobs/{in_path(job_id)}/receipt"), render.receipt)


def logs(
    ctx: typer.Context,
    job_id: Id,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the job ends.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """What a job wrote."""
    with command(ctx, as_json, data) as s:
        path = f"/v1/jobs/{in_path(job_id)}/logs"
        if follow:
            _follow_log(s, path, attempt)
        elif as_json:
            s.show(_whole_log(s, job_id, path, attempt), render.made)
        else:
            log = following.LogPrinter(s)
            for text in s.client.text(path, attempt=attempt):
                log.write(text)
            log.end()


def _follow_log(session: Session, path: str, attempt: int | None) -> None:
    log = following.LogPrinter(session)
    for event in following.events(session, path, attempt=attempt):
        if session.as_json:
            typer.echo(json.dumps({"event": event.name, **event.data}, ensure_ascii=False))
        elif event.name == "log":
            log.write(event.data["text"])
    log.end()


def _whole_log(session: Session, job_id: str, path: str, only: int | None) -> dict[str, Any]:
    attempts = session.client.get(f"/v1/jobs/{in_path(job_id)}")["attempts"]
    numbers = [only] if only is not None else [each["number"] for each in attempts]
    texts = [{"attempt": n, "text": "".join(session.client.text(path, attempt=n))} for n in numbers]
    return {"job_id": job_id, "attempts": texts}


def outputs(
    ctx: typer.Context,
    job_id: Id,
    download: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Fetch every file into DIR.")
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """The files a job left."""
    with command(ctx, as_json, data) as s:
        listed = s.client.get(f"/v1/jobs/{in_path(job_id)}/outputs")
        if download is not None:
            with s.busy("fetching"):
                fetch(s, listed, download)
        s.show(listed, render.outputs)


def fetch(session: Session, listed: dict[str, Any], folder: Path) -> None:
    """Fetch every listed file into `folder`, and nothing outside it."""
    for file in listed["files"]:
        parts = PurePosixPath(file["path"]).parts
        if ".." in parts or file["path"].startswith("/"):
            text = f"the platform named an output outside its folder: {file['path']!r}"
            raise Failure("bad_path", text)
        path = "/".join(in_path(part) for part in parts)
        where = f"/v1/jobs/{in_path(listed['job_id'])}/outputs/{path}"
        try:
            session.client.download(where, folder.joinpath(*parts))
        except OSError as error:
            text = f"{folder} cannot be written: {error.strerror}"
            raise usage("cannot_write", text, "choose another directory") from None
