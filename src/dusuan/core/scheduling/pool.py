"""The devices of a cluster as columns: what is asked of them again and again in a round.

A *group* is the devices of one model on one host; a *class* those of a group that are of one kind.
A job runs inside one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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

    names: list[str]
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
        ready, rated = _flags(d.ready for d in devices), _flags(d.rated for d in devices)
        return cls(
            names=[d.device for d in devices],
            node=Column.of([d.node for d in devices]),
            kind=Column.of([d.kind for d in devices]),
            model=Column.of([d.model for d in devices]),
            usable=ready & rated,
            ready=ready,
            held=_flags(d.holder is not None for d in devices),
            gflops=np.fromiter((d.gflops for d in devices), np.int64, len(devices)),
        )

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each device is, by name."""
        return {name: i for i, name in enumerate(self.names)}

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
        return int(self._once(key, lambda: self.most(request, self._counts(among))))

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
        return self._once(among, lambda: self.counted(flags))

    def share_devices(self, one: Request, other: Request) -> bool:
        """Whether some usable device is for both."""
        both = self.fitting(one) & self.fitting(other)
        return bool((self._counts("usable")[both] > 0).any())

    def _once(self, key: Any, work: Callable[[], Any]) -> Any:
        if key not in self._answers:
            self._answers[key] = work()
        return self._answers[key]


def _flags(values: Iterable[bool]) -> Flags:
    return np.fromiter(values, bool)


def in_order(codes: Integers) -> Integers:
    """Numbers from 0 on in the order in which codes are first met."""
    _, first, each = np.unique(codes, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[each]
