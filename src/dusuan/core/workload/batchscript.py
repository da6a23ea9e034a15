"""Batch scripts: bash with `#SBATCH` lines, read as Slurm's sbatch reads them.

Source of options, time formats and defaults: the sbatch manual page. Options that dusuan does not
act on are warnings; an option that sbatch does not know is an error with its line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dusuan.core.workload import quantities
from dusuan.core.workload.jobspec import Checkpoint, JobSpec, Parsed, Problem, Resources

PREFIX = "#SBATCH"
SIGNAL_LEAD_S = 60.0  # sbatch sends --signal this long before the end when no time is given

_SHEBANG = re.compile(r"#! *(?:/\S+/)?(?:env +(?:-S +)?)?(\S*) *(.*)")
_TIME = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?")
_SIGNAL = re.compile(r"(?:[BR]+:)?([A-Za-z0-9]+)(?:@([0-9]{1,6}))?")
_NODES = re.compile(r"([0-9]{1,9})(?:-[0-9]{1,9})?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")

# Long options of sbatch: those with an argument, with an optional one, and flags.
_WITH_VALUE = """account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters
comment constraint container container-id core-spec cores-per-socket cpu-freq cpus-per-gpu
cpus-per-task deadline delay-boot dependency distribution error exclude export export-file extra
extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres
gres-flags hint input job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem
mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes ntasks ntasks-per-core
ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output partition power prefer priority
profile qos reservation resv-ports segment signal sockets-per-node stepmgr switches thread-spec
threads-per-core time time-min tmp tres-bind tres-per-task uid wait-all-nodes wckey workdir wrap"""
_WITH_OPTIONAL = "exclusive get-user-env nice no-kill oom-kill-step propagate"
_FLAGS = """contiguous help hold ignore-pbs no-requeue overcommit oversubscribe parsable quiet
reboot requeue share spread-job test-only usage use-min-nodes verbose version wait x11"""
_ARGUMENT = {
    **dict.fromkeys(_WITH_VALUE.split(), "needed"),
    **dict.fromkeys(_WITH_OPTIONAL.split(), "optional"),
    **dict.fromkeys(_FLAGS.split(), "none"),
}
_SHORT = {
    **{"A": "account", "a": "array", "B": "extra-node-info", "b": "begin", "c": "cpus-per-task"},
    **{"C": "constraint", "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile"},
    **{"G": "gpus", "h": "help", "H": "hold", "i": "input", "J": "job-name", "k": "no-kill"},
    **{"L": "licenses", "m": "distribution", "M": "clusters", "N": "nodes", "n": "ntasks"},
    **{"o": "output", "O": "overcommit", "p": "partition", "q": "qos", "Q": "quiet"},
    **{"S": "core-spec", "s": "oversubscribe", "t": "time", "u": "usage", "v": "verbose"},
    **{"V": "version", "W": "wait", "w": "nodelist", "x": "exclude"},
}


@dataclass(frozen=True, slots=True)
class _Option:
    """One option of the script: its long name, its value ("" for a flag) and its line."""

    name: str
    value: str
    line: int


def is_batch_script(text: str) -> bool:
    """Whether `text` is a script rather than YAML: it begins with `#!`, or has `#SBATCH` first."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return text.startswith("#!") or first.startswith(PREFIX)


def parse_script(text: str, *, name: str = "job") -> Parsed | Problem:
    """The job of a bash script and its `#SBATCH` lines; `name` when the script sets none.

    The script keeps its line numbers. Its first line becomes `set +e`, since bash goes on after a
    failed command unless the script says otherwise, and `run` is started with `bash -e`.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    shell = _shell_line(lines[0])
    if isinstance(shell, Problem):
        return shell
    if "\x00" in text:
        return Problem("bad_character", "the script holds a NUL", remedy="remove it")
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        return Problem("nothing_to_run", "the script has no command", remedy="add one")
    options = _options(lines)
    if isinstance(options, Problem):
        return options
    run = "\n".join([shell, *lines[1:]])
    return _job(options, run, name, tuple(_late_lines(lines)))


def _shell_line(first: str) -> str | Problem:
    """What takes the place of the first line, so that bash behaves as that line asks."""
    if not first.startswith("#!"):
        words = "a batch script begins with `#!/bin/bash`"
        return Problem("bad_script", words, 1, "add it as the first line")
    match = _SHEBANG.fullmatch(first.rstrip())
    program, flags = (match[1], match[2]) if match else ("", "")
    if program not in ("bash", "sh"):
        words = f"only bash scripts can be run, not {program[:40] or first[:40]!r}"
        return Problem("bad_script", words, 1, "call that program from a bash script")
    kept = re.findall(r"[aefhkuvxBCE]", "".join(flags.split())) if flags.startswith("-") else []
    return f"set +e -{''.join(kept)}" if kept else "set +e"


def _directives(lines: list[str]) -> Iterator[tuple[int, str, bool]]:
    """Line number, text and whether sbatch reads it: not after the first command."""
    early = True
    for line_number, line in enumerate(lines, start=1):
        if line.startswith(PREFIX) and line[len(PREFIX) :][:1] in ("", " ", "\t"):
            yield line_number, line[len(PREFIX) :], early
        elif line.strip() and not line.lstrip().startswith("#"):
            early = False


def _late_lines(lines: list[str]) -> Iterator[Problem]:
    for line_number, _, early in _directives(lines):
        if not early:
            words = "this #SBATCH line is after the first command, so it is not read"
            yield Problem("not_acted_on", words, line_number, "move it to the top")


def _options(lines: list[str]) -> list[_Option] | Problem:
    found: list[_Option] = []
    for line_number, text, early in _directives(lines):
        options = _line_options(text, line_number) if early else []
        if isinstance(options, Problem):
            return options
        found += options
    return found


def _line_options(text: str, line: int) -> list[_Option] | Problem:
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:  # an open quote
        return Problem("bad_script", f"#SBATCH: {error}", line, "close the quote")
    options: list[_Option] = []
    while words:
        option = _take_option(words, line)
        if isinstance(option, Problem):
            return option
        options.append(option)
    return options


def _take_option(words: list[str], line: int) -> _Option | Problem:
    """Take one option off the front of `words`, with its value."""
    word = words.pop(0)
    if word.startswith("--"):
        written, equals, value = word[2:].partition("=")
        name = _long_name(written)
        has_value = bool(equals)
    elif word.startswith("-") and len(word) > 1:
        written, value = word[1], word[2:]
        name = _SHORT.get(written, "")
        has_value = bool(value)
    else:
        return Problem("bad_script", f"{word[:60]!r} is no option", line, "options begin with -")
    if not name:
        return _unknown(word, written, line)
    needed = _ARGUMENT[name]
    if needed == "needed" and not has_value:
        if not words:
            return Problem("wrong_value", f"--{name} needs a value", line, f"write --{name}=VALUE")
        value = words.pop(0)
    if needed == "none" and has_value and word.startswith("--"):
        return Problem("wrong_value", f"--{name} takes no value", line, f"write --{name}")
    return _Option(name, value, line)


def _long_name(written: str) -> str:
    """The option `written` stands for: itself, or the only one that it begins (as getopt does)."""
    if written in _ARGUMENT:
        return written
    longer = [name for name in _ARGUMENT if written and name.startswith(written)]
    return longer[0] if len(longer) == 1 else ""


def _unknown(word: str, written: str, line: int) -> Problem:
    near = quantities.nearest(written, _ARGUMENT)
    remedy = f"did you mean `--{near}`?" if near else "see the manual page of sbatch"
    return Problem("unknown_option", f"sbatch knows no option {word[:60]!r}", line, remedy)


# Readers of values: text in, (field, value) pairs or a Problem out


def time_limit_s(text: str) -> float | Problem | None:
    """Seconds from Slurm's `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`; None for no limit."""
    if text.strip().lower() in ("0", "-1", "unlimited", "infinite"):
        return None
    match = _TIME.fullmatch(text.strip())
    if match is None:
        remedy = "write minutes, H:M:S or D-H:M:S"
        return Problem("wrong_value", f"{text[:60]!r} is not a time limit", remedy=remedy)
    days = match[1]
    first, second, third = (int(part) if part else 0 for part in match.groups()[1:])
    if days is not None or match[4] is not None:
        seconds = int(days or 0) * 86_400 + first * 3_600 + second * 60 + third
    else:
        seconds = first * 60 + second
    return quantities.duration_s(str(seconds))


def _memory_gib(text: str) -> float | Problem | None:
    if text == "0":
        return None  # all of the node: no limit of its own
    return quantities.memory_gib(text + "MB" if text.isdigit() else text)


def _gpus(text: str) -> tuple[str, int] | Problem:
    """`2`, `a100:2` or `a100` (one)."""
    if text.isdigit():
        return quantities.device_count(f"gpu:{text}")
    return quantities.device_count(text)


def _gres(text: str) -> tuple[str, int] | Problem | None:
    """The devices of `gpu`, `gpu:2` or `gpu:a100:2`; None when the list holds no GPU."""
    entries = [entry.split("(")[0] for entry in text.split(",")]
    gpus = [entry for entry in entries if entry.split(":")[0] in ("gpu", "gres/gpu")]
    if not gpus:
        return None
    if len(gpus) > 1:
        return Problem("unsupported", "several kinds of GPU in one job are not supported yet")
    return _gpus(gpus[0].partition(":")[2] or "1")


def _nodes(text: str) -> int | Problem:
    match = _NODES.fullmatch(text)
    if match is None or int(match[1]) < 1:
        return Problem("wrong_value", f"{text[:60]!r} is no count of nodes", remedy="write 1")
    if int(match[1]) > 1:
        words = "a job on more than one node is not supported yet"
        return Problem("unsupported", words, remedy="write --nodes=1, or leave it out")
    return 1


def _signal(text: str) -> Checkpoint | Problem:
    match = _SIGNAL.fullmatch(text)
    if match is None:
        remedy = "write it like --signal=B:USR1@60"
        return Problem("wrong_value", f"{text[:60]!r} is no signal", remedy=remedy)
    by_number = {str(value): name for name, value in quantities.SIGNALS.items()}
    name = quantities.signal_name(by_number.get(match[1], match[1]))
    grace_s = quantities.grace_s(match[2]) if match[2] else SIGNAL_LEAD_S
    if isinstance(name, Problem):
        return name
    return grace_s if isinstance(grace_s, Problem) else Checkpoint(name, grace_s)


def _whole(text: str) -> int | Problem:
    if _WHOLE.fullmatch(text):
        return int(text)
    return Problem("wrong_value", f"{text[:60]!r} is not a whole number", remedy="give digits")


def _nice(text: str) -> int | Problem:
    value = _whole(text or "100")  # what sbatch takes for a bare --nice
    return value if isinstance(value, Problem) else -value


def _filled(text: str) -> str | Problem:
    return (
        text if text.strip() else Problem("wrong_value", "the text is empty", remedy="fill it in")
    )


_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "chdir": ("workdir", _filled),
    "cpus-per-task": ("cpus", quantities.whole_count),
    "gpus": ("device", _gpus),
    "gpus-per-node": ("device", _gpus),
    "gres": ("device", _gres),
    "job-name": ("name", _filled),
    "mem": ("memory_gib", _memory_gib),
    "nice": ("priority", _nice),
    "nodes": ("num_nodes", _nodes),
    "ntasks": ("tasks", quantities.whole_count),
    "priority": ("priority", _whole),
    "signal": ("checkpoint", _signal),
    "time": ("wall_time_s", time_limit_s),
}


def _job(
    options: list[_Option], run: str, name: str, late: tuple[Problem, ...]
) -> Parsed | Problem:
    fields: dict[str, Any] = {"name": name}
    warnings: list[Problem] = []
    for option in options:
        if option.name not in _READERS or (option.name, option.value) == ("priority", "TOP"):
            warnings.append(_not_acted_on(option))
            continue
        field, read = _READERS[option.name]
        value = read(option.value)
        if isinstance(value, Problem):
            return replace(value, text=f"--{option.name}: {value.text}", line=option.line)
        if option.name == "gres" and value is None:
            warnings.append(_not_acted_on(option))
            continue
        fields[field] = value
    return Parsed(_spec(fields, run), (*warnings, *late))


def _not_acted_on(option: _Option) -> Problem:
    words = f"--{option.name}: sbatch knows this option; dusuan does not act on it yet"
    return Problem("not_acted_on", words, option.line, "remove it, or leave it for Slurm")


def _spec(fields: dict[str, Any], run: str) -> JobSpec:
    tasks, cpus = fields.pop("tasks", None), fields.pop("cpus", None)
    device = fields.pop("device", None)
    if device is None and (tasks or cpus):
        device = ("cpu", (tasks or 1) * (cpus or 1))
    name, count = device or (None, None)
    resources = Resources(device=name, count=count, memory_gib=fields.pop("memory_gib", None))
    return JobSpec(run=run, resources=resources, **fields)
