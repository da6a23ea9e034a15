"""Reader of `openb`: node and pod lists as in Alibaba's cluster-trace-gpu-v2023, plain or gzip.

A list that cannot be used is a `Problem` with its file and line. What can be used with a grain of
salt (columns that nobody reads) is a note beside the data.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import (
    ANY_TYPE,
    DEVICES_PER_NODE_MAX,
    REQUEST,
    TYPES_MAX,
    WHOLE,
    Records,
)
from dusuan.core.scheduling.packing import Hosts
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import did_you_mean
from dusuan.sim.files import open_text

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
POD_COLUMNS_UNUSED = (
    "qos", "pod_phase", "creation_time", "deletion_time", "scheduled_time",
)  # fmt: skip
_AMOUNT_MAX = 1 << 40


@dataclass(frozen=True, slots=True)
class NodeList:
    """Nodes in the order of the file. A node of model `models[i]` has type i."""

    names: tuple[str, ...]
    hosts: Hosts
    models: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodList:
    """Pods in the order of the file: pod i is of kind `pods[i]` of `requests`.

    Kinds are in ascending order of CPU, share, devices, models and memory.
    """

    requests: Records  # REQUEST[S]
    pods: npt.NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def milli(self) -> npt.NDArray[np.int64]:
        """What each kind asks of devices, in milli."""
        asked = np.asarray(self.requests["milli"], np.int64)
        return asked * np.asarray(self.requests["devices"], np.int64)


class _BadRowError(Exception):
    """A row that cannot be used; becomes a `Problem` at the edge of this module."""

    def __init__(self, code: str, text: str, line: int | None = None, remedy: str = "") -> None:
        super().__init__(text)
        self.problem = Problem(code, text, line, remedy)


def read_nodes(path: Path) -> NodeList | Problem:
    """The node list at `path`."""
    try:
        return _nodes(path)
    except _BadRowError as bad:
        return bad.problem


def read_pods(path: Path, models: Sequence[str]) -> PodList | Problem:
    """The pod list at `path`, for nodes of these `models`."""
    try:
        return _pods(path, models)
    except _BadRowError as bad:
        return bad.problem


def _rows(
    path: Path, wanted: Sequence[str], known: Sequence[str]
) -> tuple[list[tuple[int, dict[str, str]]], tuple[str, ...]]:
    """Rows with their line numbers, and notes on columns that nobody reads."""
    try:
        with open_text(path) as lines:
            reader = csv.DictReader(lines)
            notes = _header(path, reader.fieldnames or (), wanted, known)
            return [(reader.line_num, _whole(path, reader.line_num, row)) for row in reader], notes
    except FileNotFoundError:
        raise _BadRowError("no_such_file", f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as failed:
        text = f"{path} cannot be read to its end: {failed}"
        raise _BadRowError("unreadable", text, None, "is it cut off? fetch it again") from None
    except (UnicodeDecodeError, csv.Error) as failed:
        text = f"{path} is not a list of comma-separated values: {failed}"
        raise _BadRowError("not_csv", text, None, "give a CSV file, plain or gzip") from None


def _header(
    path: Path, found: Sequence[str], wanted: Sequence[str], known: Sequence[str]
) -> tuple[str, ...]:
    """Notes on unused columns; every wanted one must be there."""
    missing = [name for name in wanted if name not in found]
    if missing:
        others = [name for name in found if name not in known and name not in wanted]
        text = f"{path} has no column {missing[0]!r}"
        remedy = did_you_mean(missing[0], others) if others else f"columns: {', '.join(wanted)}"
        raise _BadRowError("missing_column", text, 1, remedy)
    extra = [name for name in found if name not in wanted and name not in known]
    return tuple(f"{path}: column {name!r} is unknown and not used" for name in extra)


def _whole(path: Path, line: int, row: dict[str, str | None]) -> dict[str, str]:
    """The row, which must have as many values as there are columns."""
    if None in row or None in row.values():
        text = f"{path}, line {line}: {'more' if None in row else 'fewer'} values than columns"
        raise _BadRowError("bad_row", text, line, "is the file cut off?")
    return {name: value or "" for name, value in row.items()}


def _amount(path: Path, line: int, row: dict[str, str], name: str, limit: int) -> int:
    """A whole number from 0 to `limit`; `12.0` is one, an empty value is 0."""
    text = row[name].strip()
    try:
        value = float(text or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= limit or value != int(value):
        told = f"{path}, line {line}: {name} is {text[:40]!r}"
        raise _BadRowError("bad_value", told, line, f"give a whole number from 0 to {limit}")
    return int(value)


def _nodes(path: Path) -> NodeList:
    rows, notes = _rows(path, NODE_COLUMNS, ())
    if not rows:
        raise _BadRowError("no_nodes", f"{path} has no nodes", None, "give at least one node")
    names: dict[str, int] = {}
    for line, row in rows:
        if row["sn"] in names:
            text = f"{path}, line {line}: node {row['sn']!r} is also in line {names[row['sn']]}"
            raise _BadRowError("duplicate", text, line, "give every node a name of its own")
        names[row["sn"]] = line
    models = tuple(sorted({row["model"] for _, row in rows}))
    if len(models) > TYPES_MAX:
        text = f"{path} has {len(models)} models; at most {TYPES_MAX} are possible"
        raise _BadRowError("too_many_models", text)
    columns = [_node(path, line, row, models) for line, row in rows]
    kind, devices, cpu, memory = (np.array(column) for column in zip(*columns, strict=True))
    hosts = Hosts(kind.astype(np.int32), devices.astype(np.int32), cpu, memory)
    if hosts.capacity_milli == 0:
        raise _BadRowError("no_devices", f"no node of {path} has a device", None, "see column gpu")
    return NodeList(tuple(names), hosts, models, notes)


def _node(
    path: Path, line: int, row: dict[str, str], models: tuple[str, ...]
) -> tuple[int, int, int, int]:
    devices = _amount(path, line, row, "gpu", DEVICES_PER_NODE_MAX)
    cpu = _amount(path, line, row, "cpu_milli", _AMOUNT_MAX)
    return (
        models.index(row["model"]),
        devices,
        cpu,
        _amount(path, line, row, "memory_mib", _AMOUNT_MAX),
    )


def _pods(path: Path, models: Sequence[str]) -> PodList:
    rows, notes = _rows(path, POD_COLUMNS, ("gpu_spec", *POD_COLUMNS_UNUSED))
    if not rows:
        raise _BadRowError("no_pods", f"{path} has no pods", None, "give at least one pod")
    keys = [_pod(path, line, row) for line, row in rows]
    kinds = {key: i for i, key in enumerate(sorted(set(keys)))}
    requests = np.zeros(len(kinds), REQUEST)
    for (cpu, milli, devices, spec, memory), i in kinds.items():
        requests[i] = (cpu, memory, _types(spec, models), milli, devices)
    pods = np.array([kinds[key] for key in keys], np.int64)
    return PodList(requests, pods, tuple(row["name"] for _, row in rows), notes)


def _pod(path: Path, line: int, row: dict[str, str]) -> tuple[int, int, int, str, int]:
    """What sets a pod apart: CPU, share, devices, models, memory."""
    devices = _amount(path, line, row, "num_gpu", DEVICES_PER_NODE_MAX)
    milli = _amount(path, line, row, "gpu_milli", WHOLE) if devices else 0
    if (devices and milli == 0) or (devices > 1 and milli != WHOLE):
        text = f"{path}, line {line}: {devices} devices at {milli} milli each"
        remedy = "gpu_milli is 1 to 1000 of one device, and 1000 of several"
        raise _BadRowError("bad_share", text, line, remedy)
    cpu = _amount(path, line, row, "cpu_milli", _AMOUNT_MAX)
    memory = _amount(path, line, row, "memory_mib", _AMOUNT_MAX)
    return cpu, milli, devices, row.get("gpu_spec", "") if devices else "", memory


def _types(spec: str, models: Sequence[str]) -> int:
    """The models that `A|B` names, as bits; any when it names none."""
    named = {name for name in spec.split("|") if name}
    return sum(1 << i for i, model in enumerate(models) if model in named) if named else ANY_TYPE


def unplaceable(nodes: NodeList, pods: PodList) -> Iterator[str]:
    """Names of the pods that no node could hold even when it is empty."""
    hosts, bad = nodes.hosts, set()
    for s, each in enumerate(pods.requests):
        room = (hosts.cpu_milli >= each["cpu_milli"]) & (hosts.memory_mib >= each["memory_mib"])
        room &= hosts.devices >= each["devices"]
        room &= (int(each["types"]) >> hosts.type.astype(np.int64) & 1).astype(bool)
        if not room.any():
            bad.add(s)
    return (name for name, s in zip(pods.names, pods.pods, strict=True) if int(s) in bad)
