"""What the commands over traces share: their options, a policy by name or file, a progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import yaml
from rich.console import Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from dusuan.cli import render
from dusuan.cli.failures import FAILED, Failure, usage
from dusuan.cli.session import Session
from dusuan.core.scheduling.policy import PolicyParts, PolicyProblem, from_mapping, named
from dusuan.core.workload.jobspec import Problem
from dusuan.facts import catalogue

if TYPE_CHECKING:
    from dusuan.sim.faults import Rates
    from dusuan.sim.run import Outcome, Settings
    from dusuan.sim.run import Progress as Told
    from dusuan.sim.trace import Rated, Site, Trace

T = TypeVar("T")
CHECKPOINTS = "preemptible jobs write a checkpoint every Young interval, which takes {:g} s each"
ACCOUNTS_SHOWN = 10
USAGE_CODES = {
    *("unknown_format", "bad_cluster", "no_devices"),
    *("unknown_mix", "unknown_arrivals", "bad_jobs", "bad_load"),
    *("bad_rates", "unknown_rate"),
}


class Prediction(StrEnum):
    """What run times are taken from."""

    USER = "user"
    ORACLE = "oracle"
    LAST2 = "last2"
    NONE = "none"


Format = Annotated[
    str,
    typer.Option(
        "--format", help="swf, philly-csv, helios, arrivals, azure-llm, openb or journal."
    ),
]
Jobs = Annotated[Path, typer.Option("--jobs", help="The trace, plain or gzip.")]
Nodes = Annotated[Path | None, typer.Option(help="Node list in the format `openb`.")]
Cluster = Annotated[
    str | None, typer.Option(help="Nodes x devices of each: 80x8:A100, or 80x8:A100,20x8:H800.")
]
Predict = Annotated[
    Prediction | None, typer.Option(help="What run times are taken from (default: the policy's).")
]
RestartS = Annotated[float, typer.Option(min=0, max=1e6, help="What a restart costs, in seconds.")]
Accounts = Annotated[
    Path | None,
    typer.Option(help="CSV of account, parent, weight, quota, borrow, lend; in devices."),
]
FaultRate = Annotated[
    float,
    typer.Option("--faults", min=0, max=1000, help="Things break: 1 is the published rate, 0 off."),
]
FaultFile = Annotated[
    Path | None,
    typer.Option("--fault-rates", help="YAML: what breaks how often, where not as published."),
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same run.")]


@dataclass(frozen=True, slots=True)
class Input:
    """What was read, and how long that took."""

    site: Site
    trace: Trace
    load_s: float
    accounts: Any = None  # ACCOUNT[A]; None: all alike, without limits


@dataclass(frozen=True, slots=True)
class How:
    """What a simulation is to go by beside its policy."""

    predict: Prediction | None
    restart_s: float
    faults: float = 0.0
    rates: Path | None = None

    def settings(self, policy: PolicyParts, log: bool = False) -> Settings:
        """The settings of a run under `policy`."""
        from dusuan.sim.run import Settings

        predict = self.predict.value if self.predict else None
        return Settings(policy, predict, self.restart_s, log)


def sound(found: T | Problem) -> T:
    """What was read, or the failure that its problem is."""
    if isinstance(found, Problem):
        document = {} if found.line is None else {"line": found.line}
        code = 2 if found.code in USAGE_CODES else FAILED
        raise Failure(found.code, found.text, found.remedy, code, document=document)
    return found


def policy_of(name: str) -> PolicyParts:
    """The policy of that name, or of that file."""
    path = Path(name)
    written = path.suffix in (".yaml", ".yml", ".json")
    found = from_mapping(_yaml(path), path.stem) if written else named(name)
    if isinstance(found, PolicyProblem):
        raise usage(found.code, found.text, found.remedy)
    return found


def _yaml(path: Path) -> Any:
    """What a file says."""
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise usage("no_such_file", f"{path} does not exist", "check its path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as failed:
        told = f"{path} cannot be read: {str(failed).splitlines()[0]}"
        raise usage("unreadable", told, "write it as YAML") from None


def rate(name: str) -> Rated | Problem:
    """Rating and power of a device model of the catalogue."""
    from dusuan.sim.trace import Rated

    found = catalogue().rated(name)
    if isinstance(found, Problem):
        return found
    watts = next((d.tdp_w for d in catalogue().matches(name) if d.tdp_w is not None), 0.0)
    return Rated(found[1], watts)


def read(
    form: str, jobs: Path, nodes: Path | None, cluster: str | None, accounts: Path | None
) -> Input:
    """The cluster, the trace, and the tree of accounts where one is known."""
    from dusuan.sim.readers import read as read_trace
    from dusuan.sim.sites import read_site
    from dusuan.sim.trace import read_cluster

    began_s = time.perf_counter()
    is_record = _is_record(form, jobs)
    site = _site_of_record(jobs) if is_record and nodes is None and cluster is None else None
    if site is None:
        if (nodes is None) == (cluster is None):
            text = "the cluster is given twice" if nodes else "there is no cluster"
            raise usage("which_cluster", text, "give --cluster 80x8 or --nodes FILE")
        site = sound(read_site(nodes, rate) if nodes else read_cluster(cluster or "", rate))
    trace = sound(read_trace(jobs, form, site.models))
    tree = _tree(trace.accounts, accounts, jobs if is_record else None)
    return Input(site, trace, time.perf_counter() - began_s, tree)


def _is_record(form: str, jobs: Path) -> bool:
    """Whether the trace is a record of a live service, which has a cluster and accounts."""
    from dusuan.sim import recorded

    return form == "journal" and jobs.is_file() and recorded.is_record(jobs)


def _site_of_record(record: Path) -> Site:
    from dusuan.sim import recorded

    return sound(recorded.site(record, rate))


def _tree(names: Sequence[str], file: Path | None, record: Path | None) -> Any:
    """The accounts of a file, else those of a record, else None: all alike, without limits."""
    from dusuan.sim import recorded
    from dusuan.sim.quotas import read_accounts

    if file is not None:
        return sound(read_accounts(file, names))
    return None if record is None else sound(recorded.accounts(record, names))


def simulate(
    session: Session, given: Input, settings: Settings, how: How, seed: int = 0
) -> Outcome:
    """One simulation, with a progress bar where somebody watches."""
    from dusuan.sim.run import is_compiled
    from dusuan.sim.run import simulate as run

    if not is_compiled():
        session.say("compiling the rules: once after each change of them, a minute …")
    given, broken = (given, None) if how.faults == 0 else _breaking(given, how, seed)
    with watched(session, settings.policy.name) as told:
        return run(
            *(given.site, given.trace, settings, time.perf_counter, broken),
            accounts=given.accounts,
            progress=told,
        )


def _breaking(given: Input, how: How, seed: int) -> tuple[Input, Any]:
    """What was read with checkpoints, and what breaks."""
    from dusuan.sim.faults import PUBLISHED, draw_faults, horizon_ms, with_checkpoints

    rates = PUBLISHED if how.rates is None else _rates(how.rates)
    site, trace = given.site, given.trace
    jobs = with_checkpoints(trace.jobs, how.faults, site.nodes, rates)
    broken = draw_faults(site.nodes, horizon_ms(jobs, site.devices), how.faults, seed, rates)
    note = CHECKPOINTS.format(rates.checkpoint_s)
    return replace(given, trace=replace(trace, jobs=jobs, notes=(*trace.notes, note))), broken


def _rates(path: Path) -> Rates:
    """Rates of faults from a file."""
    from dusuan.sim.faults import rates_from

    return sound(rates_from(_yaml(path)))


@contextmanager
def watched(session: Session, name: str) -> Iterator[Told]:
    """A progress bar on stderr."""
    if not session.err.is_terminal:
        yield lambda _done, _of: None
        return
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=session.err, transient=True) as bar:
        task = bar.add_task(name)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextmanager
def counted(session: Session, name: str) -> Iterator[Callable[[int], None]]:
    """How many are done, on stderr: of how many, nobody knows."""
    if not session.err.is_terminal:
        yield lambda _done: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:,}"), TextColumn(name))
    with Progress(*columns, console=session.err, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done: bar.update(task, completed=done)


def tell_notes(session: Session, document: Mapping[str, Any]) -> None:
    """Words about the input, on stderr; JSON lines where JSON is asked for."""
    for note in document["notes"]:
        if session.as_json:
            typer.echo(json.dumps({"warning": note}, ensure_ascii=False), err=True)
        else:
            session.say(note)


def shown(document: Mapping[str, Any]) -> RenderableType:
    """The figures, each with its name, and who got least of its share; not what is not known."""
    figures = render.made({name: value for name, value in document.items() if value is not None})
    rows = document["accounts"][:ACCOUNTS_SHOWN]
    if len(rows) < 2:
        return figures
    names = ("account", "jobs", "owed_gpu_s", "got_gpu_s", "shortfall", "avg_wait_s")
    table = render.table(names, [[row[name] for name in names] for row in rows])
    return Group(figures, table)
