"""What a customer asks for: the typed form of a job file, whatever syntax it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Problem:
    """An expected failure, as a value: what is wrong, where, and what to do next."""

    code: str  # short, stable, snake_case
    text: str
    line: int | None = None  # 1-based line of the input, when there is one
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits a customer may set; all optional, since the system chooses device and count."""

    device: str | None = None  # a device kind or model: "cpu", "gpu", "A100"
    count: int | None = None
    memory_gib: float | None = None
    origin: str | None = None  # "domestic" or None
    network: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """What is computed. `steps` is the total the job reports its progress against."""

    kind: str = "command"  # command, train, finetune, batch, serve
    steps: float | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """What the customer wants from the plan menu."""

    deadline_s: float | None = None
    budget_fen: int | None = None
    tier: str = "standard"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How the job is told to save its state. A job with one is requeued after a budget stop."""

    signal: str = "SIGTERM"
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job. Exactly one of `run` (a bash script) and `argv` is set."""

    name: str
    run: str | None = None
    argv: tuple[str, ...] | None = None
    setup: str | None = None
    workdir: str | None = None  # as written; the client uploads it
    envs: Mapping[str, str] = field(default_factory=dict)
    num_nodes: int = 1
    resources: Resources = field(default_factory=Resources)
    workload: Workload = field(default_factory=Workload)
    goal: Goal = field(default_factory=Goal)
    checkpoint: Checkpoint | None = None
    wall_time_s: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Parsed:
    """A job file that was understood, with warnings about keys not acted on yet."""

    spec: JobSpec
    warnings: tuple[Problem, ...] = ()
