"""Job files: YAML with SkyPilot's keys and ours, or a batch script. Text in, value out.

Keys of SkyPilot that are not acted on yet are warnings; every other unknown key is an error with
its line and the nearest known key. Source of SkyPilot's keys: its YAML reference (`yaml-spec`) and
the task and resources schemas of its `sky/utils/schemas.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from dusuan.core.workload import description, quantities
from dusuan.core.workload.batchscript import is_batch_script, parse_script
from dusuan.core.workload.jobspec import (
    Checkpoint,
    Goal,
    JobSpec,
    Parsed,
    Problem,
    Progress,
    Resources,
    Workload,
)
from dusuan.core.workload.yamltree import (
    compose_mapping,
    describe,
    is_bool,
    is_null,
    is_plain,
    is_text,
    line_of,
    text_problem,
)

TIERS = ("reserved", "standard", "spot")
PRIORITY_MAX = 1_000_000
NAME_CHARS_MAX = 128
PATTERN_CHARS_MAX = 500
STEPS_MAX = Decimal(10) ** 18
RESERVED_ENV_PREFIX = "DUSUAN_"

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_SKYPILOT_TASK = (
    "api_server_access config event_callback execution experimental file_mounts "
    "file_mounts_mapping inputs outputs pool secrets service storage_mounts volume_mounts volumes"
)
_SKYPILOT_RESOURCES = (
    "accelerator_args any_of autostop cloud disk_size disk_tier ephemeral_storage hooks image_id "
    "infra instance_type job_recovery labels local_disk max_hourly_cost network_tier ordered ports "
    "priority priority_class region spot_recovery use_spot volumes zone"
)


@dataclass(frozen=True, slots=True)
class _At:
    """A value of the file, the key it stands under and the line it begins on."""

    where: str
    node: Node

    @property
    def line(self) -> int:
        return line_of(self.node)

    def child(self, key: str, node: Node) -> _At:
        return _At(f"{self.where}.{key}" if self.where else key, node)

    def wrong_type(self, expected: str, remedy: str = "") -> Problem:
        words = f"{self.where}: expected {expected}, got {describe(self.node)}"
        return Problem("wrong_type", words, self.line, remedy)

    def wrong(self, problem: Problem) -> Problem:
        """A problem found inside this value, with its place."""
        return replace(problem, text=f"{self.where}: {problem.text}", line=self.line)


@dataclass(frozen=True, slots=True)
class _Section:
    """What the keys of one mapping say, by key, and what is worth a warning."""

    values: Mapping[str, Any]
    warnings: tuple[Problem, ...] = ()


_Reader = Callable[[_At], Any]  # returns the value or a Problem


def parse_job(text: str, *, name: str = "job") -> Parsed | Problem:
    """The job that `text` describes: YAML, or a bash script when it begins with `#!`.

    `name` is used when the file names none. Never raises: whatever cannot be accepted comes back
    as a `Problem` with the line where there is one.
    """
    text = text.removeprefix("\ufeff")  # the byte order mark that some editors leave
    problem = text_problem(text)
    if problem is not None:
        return problem
    if is_batch_script(text):
        return parse_script(text, name=name)
    root = compose_mapping(text)
    return root if isinstance(root, Problem) else _parse_mapping(root, name)


def _parse_mapping(root: MappingNode, name: str) -> Parsed | Problem:
    top = _section(_At("", root), _TASK, _SKYPILOT_TASK)
    if isinstance(top, Problem):
        return top
    values = dict(top.values)
    commands = [key for key in ("run", "argv") if key in values]
    if not commands:
        words = "there is neither `run` nor `argv`"
        return Problem("nothing_to_run", words, line_of(root), "add `run: COMMAND`")
    if len(commands) == 2:
        line = next(line_of(key) for key, _ in root.value if key.value == "argv")
        return Problem("two_commands", "`run` and `argv` are both given", line, "keep one of them")
    return Parsed(JobSpec(**{"name": name, **values}), top.warnings)


def _section(at: _At, table: Mapping[str, _Reader], passive: str) -> _Section | Problem:
    """Read a mapping key by key; a key without a value counts as not given."""
    if is_null(at.node):
        return _Section({})
    if not isinstance(at.node, MappingNode):
        return at.wrong_type("keys and values")
    values: dict[str, Any] = {}
    warnings: list[Problem] = []
    for key_node, node in at.node.value:
        key, child = key_node.value, at.child(key_node.value, node)
        if key not in table and key not in passive.split():
            return _unknown_key(key, line_of(key_node), at.where, (*table, *passive.split()))
        if key not in table:
            warnings.append(_not_acted_on(child.where, line_of(key_node)))
            continue
        value = None if is_null(node) else table[key](child)
        if isinstance(value, Problem):
            return value
        if isinstance(value, _Section):
            warnings += value.warnings
            value = value.values["value"]
        if value is not None:
            values[_FIELD.get(child.where, key)] = value
    return _Section(values, tuple(warnings))


def _not_acted_on(where: str, line: int) -> Problem:
    words = f"{where}: SkyPilot knows this key; dusuan does not act on it yet"
    return Problem("not_acted_on", words, line, "remove it, or leave it for SkyPilot")


def _unknown_key(key: str, line: int, where: str, known: tuple[str, ...]) -> Problem:
    words = f"unknown key `{key[:60]}`" + (f" under `{where}`" if where else "")
    homes = [home for home, entries in _TABLES.items() if key in entries]
    if homes:
        place = f"under `{homes[0]}`" if homes[0] else "at the top level"
        return Problem("unknown_key", words, line, f"`{key}` belongs {place}")
    return Problem("unknown_key", words, line, quantities.did_you_mean(key, known))


# Readers of single values


def _text(at: _At) -> str | Problem:
    if is_text(at.node):
        return str(at.node.value)
    plain = isinstance(at.node, ScalarNode)
    return at.wrong_type(
        "text", "put it in quotes" if plain else "give one line, or a block after `|`"
    )


def _filled_text(at: _At) -> str | Problem:
    value = _text(at)
    if isinstance(value, Problem) or value.strip():
        return value
    return Problem(
        "wrong_value", f"{at.where}: the text is empty", at.line, "fill it in or drop it"
    )


def _name(at: _At) -> str | Problem:
    value = _filled_text(at)
    if isinstance(value, Problem):
        return value
    if len(value) > NAME_CHARS_MAX or _CONTROL.search(value):
        words = f"a name has one line of at most {NAME_CHARS_MAX} characters"
        return at.wrong(Problem("wrong_value", words, remedy="shorten it"))
    return value.strip()


def _loose_text(at: _At) -> str | Problem:
    """Text, or a number or boolean taken as the text that stands in the file."""
    if isinstance(at.node, ScalarNode) and not is_null(at.node):
        return str(at.node.value)
    return at.wrong_type("text", 'put it in quotes; write "" for empty text')


def _whole(at: _At) -> int | Problem:
    if is_plain(at.node) and _WHOLE.fullmatch(at.node.value):
        return int(at.node.value)
    return at.wrong_type("a whole number", "write it in digits, without quotes")


def _flag(at: _At) -> bool | Problem:
    if is_bool(at.node):
        return str(at.node.value).lower() in ("true", "yes", "on")
    return at.wrong_type("true or false")


def _quantity(read: Callable[[str], Any], expected: str) -> _Reader:
    """A reader of text or of a number, by one of `quantities`."""

    def reader(at: _At) -> Any:
        if not isinstance(at.node, ScalarNode) or is_bool(at.node):
            return at.wrong_type(expected)
        value = read(str(at.node.value))
        return at.wrong(value) if isinstance(value, Problem) else value

    return reader


def _choice(known: tuple[str, ...], what: str) -> _Reader:
    return _quantity(lambda text: quantities.choice(text, known, what), f"a {what}")


def _steps(at: _At) -> float | Problem:
    if not is_plain(at.node) or is_bool(at.node):
        return at.wrong_type("a number", "write it in digits, without quotes")
    value = quantities.number(at.node.value)
    if isinstance(value, Problem) and value.code == "wrong_value":
        return at.wrong_type("a number", "write it in digits")
    if not isinstance(value, Problem):
        value = quantities.positive(value, STEPS_MAX)
    return at.wrong(value) if isinstance(value, Problem) else float(value)


def _priority(at: _At) -> int | Problem:
    value = _whole(at)
    if isinstance(value, Problem) or abs(value) <= PRIORITY_MAX:
        return value
    words = f"{value} is outside -{PRIORITY_MAX} to {PRIORITY_MAX}"
    return at.wrong(Problem("out_of_range", words))


def _num_nodes(at: _At) -> int | Problem:
    value = _whole(at)
    if isinstance(value, Problem):
        return value
    if value < 1:
        return at.wrong(Problem("out_of_range", f"{value} is not above zero", remedy="write 1"))
    if value > 1:
        words = "a job on more than one node is not supported yet"
        return at.wrong(Problem("unsupported", words, remedy="write 1, or leave it out"))
    return value


def _argv(at: _At) -> tuple[str, ...] | Problem:
    if not isinstance(at.node, SequenceNode):
        return at.wrong_type("a list of words", "write `argv: [python, train.py]`, or use `run`")
    words = [_loose_text(at.child(str(n), item)) for n, item in enumerate(at.node.value)]
    problem = next((word for word in words if isinstance(word, Problem)), None)
    if problem is not None:
        return problem
    if not words or not words[0]:
        return at.wrong(Problem("nothing_to_run", "there is no command", remedy="name a program"))
    return tuple(str(word) for word in words)


def _envs(at: _At) -> dict[str, str] | Problem:
    if not isinstance(at.node, MappingNode):
        return at.wrong_type("keys and values", "write one `NAME: value` a line")
    envs: dict[str, str] = {}
    for key, node in at.node.value:
        value = _env(at.child(key.value, node), key)
        if isinstance(value, Problem):
            return value
        envs[key.value] = value
    return envs


def _env(at: _At, key: Node) -> str | Problem:
    if not _ENV_NAME.fullmatch(key.value):
        words = f"{key.value[:60]!r} is no name of an environment variable"
        return Problem("wrong_value", words, line_of(key), "use letters, digits and _")
    if key.value.startswith(RESERVED_ENV_PREFIX):
        words = f"{at.where[:80]}: names that begin with {RESERVED_ENV_PREFIX} are the platform's"
        return Problem("reserved_name", words, line_of(key), "choose another name")
    if is_null(at.node):
        words = f"{at.where[:80]} has no value; a job file must give one"
        return Problem("wrong_type", words, at.line, 'write the value, or "" for empty text')
    return _loose_text(at)


# Readers of sections


def _under(where: str, build: Callable[..., Any], passive: str = "") -> _Reader:
    """A reader of a mapping whose keys are in `_TABLES[where]`."""

    def reader(at: _At) -> _Section | Problem:
        section = _section(at, _TABLES[where], passive)
        if isinstance(section, Problem):
            return section
        value = build(at, section.values)
        if isinstance(value, Problem):
            return value
        return _Section({"value": value}, section.warnings)

    return reader


def _workload(at: _At, values: Mapping[str, Any]) -> Workload | Problem:
    work = Workload(**values)
    problem = description.problem_of(work)
    return work if problem is None else at.wrong(problem)


def _progress(at: _At, values: Mapping[str, Any]) -> Progress | Problem:
    if "pattern" in values:
        return Progress(**values)
    words = "there is no `pattern` to read progress with"
    remedy = r"write `pattern: 'step (\d+)/(\d+)'`: what is done, and how much there is"
    return at.wrong(Problem("pattern_missing", words, remedy=remedy))


def _pattern(at: _At) -> str | Problem:
    """A regular expression with one group or two. It runs under a time limit, beside the job."""
    text = _filled_text(at)
    if isinstance(text, Problem):
        return text
    try:
        groups = re.compile(text.encode()).groups
    except (re.error, OverflowError, RecursionError) as error:
        return at.wrong(Problem("wrong_value", f"this is no regular expression: {error}"))
    if 1 <= groups <= 2 and len(text) <= PATTERN_CHARS_MAX:
        return text
    words = f"the pattern has {groups} groups in {len(text)} characters"
    remedy = f"one group for what is done, a second for the total; {PATTERN_CHARS_MAX} characters"
    return at.wrong(Problem("wrong_value", words, remedy=remedy))


def _resources(at: _At, values: Mapping[str, Any]) -> Resources | Problem:
    fields = dict(values)
    device, cpus = fields.pop("accelerators", None), fields.pop("cpus", None)
    if device is None and cpus is not None:
        device = ("cpu", cpus)
    if device is not None and cpus is not None and device != ("cpu", cpus):
        words = f"{at.where}: `cpus` beside `accelerators` is not supported yet"
        return Problem("unsupported", words, at.line, "name one of the two")
    name, count = device or (None, None)
    return Resources(device=name, count=count, **fields)


def _accelerators(at: _At) -> tuple[str, int] | Problem:
    """`A100:4`, `{A100: 4}`, `{A100:4}` (SkyPilot's set) or a list of one of these."""
    if isinstance(at.node, ScalarNode):
        return _device(at, is_text(at.node), str(at.node.value))
    if len(at.node.value) != 1:
        words = "name one device or none; dusuan chooses between devices itself"
        return at.wrong(Problem("unsupported", words, remedy="leave `accelerators` out"))
    if isinstance(at.node, SequenceNode):
        return _accelerators(_At(at.where, at.node.value[0]))
    key, count = at.node.value[0]
    if is_null(count):
        return _device(at, True, key.value)
    if not is_plain(count) or is_text(count):
        return at.child(key.value, count).wrong_type("a whole number")
    return _device(_At(at.where, count), ":" not in key.value, f"{key.value}:{count.value}")


def _device(at: _At, accepted: bool, text: str) -> tuple[str, int] | Problem:
    if not accepted:
        return at.wrong_type("a device and a count", "write it like A100:4, gpu:1 or cpu:2")
    value = quantities.device_count(text)
    return at.wrong(value) if isinstance(value, Problem) else value


def _origin(text: str) -> str | Problem | None:
    found = quantities.choice(text, ("domestic", "any"), "origin")
    return None if found == "any" else found


_DURATION = _quantity(quantities.duration_s, "a duration")
_AMOUNT = _quantity(description.amount_of, "an amount")
_WHOLE_AMOUNT = _quantity(description.whole_of, "a whole number")

_TABLES: dict[str, Mapping[str, _Reader]] = {
    "workload": {
        "kind": _choice(description.KINDS, "kind of workload"),
        "steps": _steps,
        "model": _filled_text,
        "params": _quantity(description.params_of, "a parameter count"),
        "active_params": _quantity(description.params_of, "a parameter count"),
        **dict.fromkeys(("tokens", "samples", "images", "epochs"), _AMOUNT),
        **dict.fromkeys(
            ("seq_len", "batch", "rank", "prompt_tokens", "output_tokens", "image_size"),
            _WHOLE_AMOUNT,
        ),
        "precision": _choice(description.PRECISIONS, "precision"),
        "method": _choice(description.METHODS, "method of fine-tuning"),
    },
    "progress": {"pattern": _pattern, "total": _AMOUNT},
    "goal": {
        "deadline": _DURATION,
        "budget": _quantity(quantities.budget_fen, "an amount in yuan"),
        "tier": _choice(TIERS, "tier"),
    },
    "checkpoint": {
        "signal": _quantity(quantities.signal_name, "the name of a signal"),
        "grace": _quantity(quantities.grace_s, "a duration"),
    },
    "resources": {
        "accelerators": _accelerators,
        "cpus": _quantity(quantities.whole_count, "a count"),
        "memory": _quantity(quantities.memory_gib, "an amount of memory"),
        "network": _flag,
        "origin": _quantity(_origin, "an origin"),
    },
}
_TASK: Mapping[str, _Reader] = {
    "name": _name,
    "workdir": _filled_text,
    "setup": _text,
    "run": _filled_text,
    "argv": _argv,
    "envs": _envs,
    "num_nodes": _num_nodes,
    "resources": _under("resources", _resources, _SKYPILOT_RESOURCES),
    "workload": _under("workload", _workload),
    "progress": _under("progress", _progress),
    "goal": _under("goal", lambda _, values: Goal(**values)),
    "checkpoint": _under("checkpoint", lambda _, values: Checkpoint(**values)),
    "wall_time": _DURATION,
    "priority": _priority,
}
_TABLES[""] = _TASK
# Keys whose field in the job spec carries its unit.
_FIELD = {
    "goal.deadline": "deadline_s",
    "goal.budget": "budget_fen",
    "checkpoint.grace": "grace_s",
    "resources.memory": "memory_gib",
    "wall_time": "wall_time_s",
}
