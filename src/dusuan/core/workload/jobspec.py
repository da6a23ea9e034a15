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
    """What is computed. `steps` is the total the job reports its progress against.

    A model (`model`: a name, or a file in the work directory; or `params`) with an amount of work
    describes it well enough to be sized before anything runs. `batch` is in sequences or images of
    one step over all devices, `precision` that of the arithmetic. For `batch` and `serve`,
    `samples` are requests of `prompt_tokens` and `output_tokens`.
    """

    kind: str = "command"  # command, train, finetune, batch, serve, vision
    steps: float | None = None
    model: str | None = None
    params: float | None = None
    active_params: float | None = None
    tokens: float | None = None
    samples: float | None = None
    images: float | None = None
    epochs: float | None = None
    seq_len: int | None = None
    batch: int | None = None
    precision: str | None = None
    method: str | None = None  # finetune: full, lora, qlora
    rank: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    image_size: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How progress is read from the log of a job that does not report it: a regular expression.

    Its first group is what is done, its second (or `total`) how much there is.
    """

    pattern: str
    total: float | None = None


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
    progress: Progress | None = None
    wall_time_s: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Parsed:
    """A job file that was understood, with warnings about keys not acted on yet."""

    spec: JobSpec
    warnings: tuple[Problem, ...] = ()
