"""The devices of a cluster as columns: what is asked of them again and again in a round.

A *group* is the devices of one model on one host; a *class* those of a group that are of one kind.
A job runs inside one group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter, is_
from typing import Any

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import Integers
from dusuan.core.scheduling.model import DeviceSlot, Request

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Column:
    """A text per device, as numbers in the order in which the texts are first met."""

    codes: Integers
    texts: tuple[str, ...]

    @classmethod
    def of(cls, values: list[str]) -> Column:
        """The column of `values`."""
        number = {text: i for i, text in enumerate(dict.fromkeys(values))}
        codes = np.fromiter(map(number.__getitem__, values), np.int64, len(values))
        return cls(codes, tuple(number))

    def code(self, text: str) -> int:
        """The number of `text`, -1 for one that is not there."""
        return self.texts.index(text) if text in self.texts else -1


@dataclass(frozen=True)
class Pool:
    """D devices in their order; the fields are columns."""

    devices: Sequence[DeviceSlot]
    names: list[str]
    holders: list[str | None]
    node: Column
    kind: Column
    model: Column
    usable: Flags  # [D] ready and rated
    ready: Flags  # [D]
    held: Flags  # [D] somebody has it
    gflops: Integers  # [D]
    _answers: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, devices: Sequence[DeviceSlot]) -> Pool:
        """The columns of `devices`."""
        read = attrgetter("ready", "rated", "gflops", "device", "node", "kind", "model", "holder")
        columns = list(map(list, zip(*map(read, devices), strict=True))) or [[] for _ in range(8)]
        ready, rated, gflops = (np.array(column, np.int64) for column in columns[:3])
        names, node, kind, model, holders = columns[3:]
        held = np.array(holders, object) != np.array(None, object)
        texts = Column.of(node), Column.of(kind), Column.of(model)
        usable = (ready & rated) > 0
        return cls(devices, names, holders, *texts, usable, ready > 0, held, gflops)

    def held_by(self, devices: Sequence[DeviceSlot], changed: Sequence[int]) -> Pool:
        """The same pool, in which at most the holders of the `changed` devices are others."""
        pool = copy(self)  # with all that was worked out: it does not depend on holders
        holders, held = self.holders.copy(), self.held.copy()
        for i in changed:
            holders[i] = devices[i].holder
            held[i] = holders[i] is not None
        vars(pool).update(devices=devices, holders=holders, held=held)
        return pool

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each device is, by name."""
        return dict(zip(self.names, range(len(self.names)), strict=True))

    @cached_property
    def group(self) -> Integers:
        """[D] the group of each device, in the order in which groups are first met."""
        return in_order(self.node.codes * len(self.model.texts) + self.model.codes)

    @cached_property
    def _classes(self) -> tuple[Integers, Integers, Integers, Integers]:
        """[D] the class of each device; per class its group, kind and model."""
        classes = in_order(self.group * len(self.kind.texts) + self.kind.codes)
        first = np.unique(classes, return_index=True)[1]
        return classes, self.group[first], self.kind.codes[first], self.model.codes[first]

    def fitting(self, request: Request) -> Flags:
        """[classes] which classes are of the kind and model that `request` names, if any."""
        _, groups, kinds, models = self._classes
        found = np.ones(len(groups), bool)
        if request.kind is not None:
            found &= kinds == self.kind.code(request.kind)
        if request.model is not None:
            found &= models == self.model.code(request.model)
        return found

    def largest(self, request: Request, among: str = "usable") -> int:
        """The most devices in one group that `request` accepts: of `all`, `ready` or `usable`."""
        key = (among, request.kind, request.model)
        return int(self.once(key, lambda: self.most(request, self._counts(among))))

    def most(self, request: Request, counts: Integers) -> int:
        """The most that `request` accepts in one group, by so many of each class."""
        found = self.fitting(request)
        if not found.any():
            return 0
        return int(np.bincount(self._classes[1][found], counts[found]).max())

    def counted(self, flags: Flags | None) -> Integers:
        """[classes] devices of each class, or those of them that the flags say."""
        classes, groups, *_ = self._classes
        which = classes if flags is None else classes[flags]
        return np.bincount(which, minlength=len(groups)).astype(np.int64)

    def _counts(self, among: str) -> Any:
        flags = {"all": None, "ready": self.ready, "usable": self.usable}[among]
        return self.once(among, lambda: self.counted(flags))

    def share_devices(self, one: Request, other: Request) -> bool:
        """Whether some usable device is for both."""
        both = self.fitting(one) & self.fitting(other)
        return bool((self._counts("usable")[both] > 0).any())

    def once(self, key: Any, work: Callable[[], Any]) -> Any:
        """What `work` answers, remembered by `key`: it must not depend on holders."""
        if key not in self._answers:
            self._answers[key] = work()
        return self._answers[key]


_last: list[Pool] = []  # the pool of the round before, so that only what changed is looked at


def pool_of(devices: Sequence[DeviceSlot]) -> Pool:
    """The columns of `devices`: those of the call before where the devices are the same objects."""
    known = _last[0] if _last else None
    if known is not None and known.devices is devices:
        return known
    changed = None if known is None else _changed(known.devices, devices)
    if known is not None and changed is not None:
        _last[:] = [known.held_by(devices, changed)]
    else:
        _last[:] = [Pool.of(devices)]
    return _last[0]


def _changed(old: Sequence[DeviceSlot], new: Sequence[DeviceSlot]) -> list[int] | None:
    """Which devices have perhaps changed hands; None when much else may have changed."""
    if len(old) != len(new):
        return None
    changed = [i for i, same in enumerate(map(is_, old, new)) if not same]
    if len(changed) > len(new) // 4:
        return None
    alike = all(_lasting(old[i]) == _lasting(new[i]) for i in changed)
    return changed if alike else None


_lasting = attrgetter("device", "node", "kind", "model", "ready", "rated", "gflops")


def in_order(codes: Integers) -> Integers:
    """Numbers from 0 on in the order in which codes are first met."""
    _, first, each = np.unique(codes, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[each]
