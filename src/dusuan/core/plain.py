"""Frozen dataclasses as plain data and back, and the difference between two of them.

Both are made from the annotations of the class, so that a field that is added later travels too.
Fields at their default are left out. A tuple of records of which a `Key` is known differs by
record: who is new, who is gone, what of whom has changed.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """How records of a class are told apart, and by what they are sorted; None: as they come."""

    name: Callable[[Any], str]
    place: Callable[[Any], Any] | None = None


Keys = Mapping[type, Key]


class NotPlain(ValueError):
    """Data that is not what the class wants; the text says where and what."""


# --- whole -------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """`value` as dicts, lists, numbers and text."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(kind):
        pairs = ((f, getattr(value, f.name)) for f in _fields(kind))
        return {f.name: to_plain(v) for f, v in pairs if not _is_default(f, v)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    return value


_PLAIN = {str, int, float, bool, type(None)}
_fields = cache(fields)


def _is_default(f: Field[Any], value: Any) -> bool:
    if f.default is not MISSING:
        return bool(value == f.default and type(value) is type(f.default))
    return f.default_factory is not MISSING and value == f.default_factory()


def from_plain(kind: Any, data: Any, where: str = "") -> Any:
    """`data` as an instance of `kind`. Raises `NotPlain`."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if data is None else from_plain(parts[0], data, where)
    if origin is tuple:
        _demand(isinstance(data, list), where, "a list", data)
        return tuple(from_plain(parts[0], each, f"{where}[{i}]") for i, each in enumerate(data))
    if origin is not None:  # a mapping by text
        _demand(isinstance(data, dict), where, "an object", data)
        return {k: from_plain(parts[1], v, f"{where}.{k}") for k, v in data.items()}
    if is_dataclass(kind):
        return _record(kind, data, where)
    return _leaf(kind, data, where)


def _leaf(kind: Any, data: Any, where: str) -> Any:
    if kind is Any:
        return data
    if issubclass(kind, Enum):
        _demand(data in {each.value for each in kind}, where, f"a {kind.__name__}", data)
        return kind(data)
    fits = isinstance(data, int | float if kind is float else kind)
    _demand(fits and (kind is bool or not isinstance(data, bool)), where, kind.__name__, data)
    return float(data) if kind is float else data


def _record(kind: Any, data: Any, where: str) -> Any:
    _demand(isinstance(data, dict), where, "an object", data)
    hints = _hints(kind)
    for name in data:
        if name not in hints:
            raise NotPlain(f"{where or kind.__name__} has no {name!r}")
    for f in fields(kind):
        if f.name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise NotPlain(f"{where or kind.__name__} lacks {f.name!r}")
    return kind(**{k: from_plain(hints[k], v, f"{where}.{k}".strip(".")) for k, v in data.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _demand(good: bool, where: str, wanted: str, data: Any) -> None:
    if not good:
        raise NotPlain(f"{where or 'it'} is {str(data)[:40]!r}, not {wanted}")


# --- differences -------------------------------------------------------------------------------


def difference(old: Any, new: Any, keys: Keys) -> dict[str, Any]:
    """What changed from `old` to `new`, two records of one class: {} when nothing did."""
    changes = {}
    for f in fields(new):
        before, now = getattr(old, f.name), getattr(new, f.name)
        if before is not now and before != now:
            changes[f.name] = _change(before, now, keys)
    return changes


def _change(before: Any, now: Any, keys: Keys) -> Any:
    if is_dataclass(now) and type(before) is type(now):
        return {"of": difference(before, now, keys)}
    if isinstance(now, Mapping) and isinstance(before, Mapping):
        return _changed_keys(before, now)
    if isinstance(now, tuple) and (by := _key_of((*before, *now), keys)):
        return _changed_records(before, now, by, keys)
    return {"to": to_plain(now)}


def _key_of(records: Sequence[Any], keys: Keys) -> Key | None:
    kinds = {type(each) for each in records}
    return keys.get(kinds.pop()) if len(kinds) == 1 else None


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    put = {k: to_plain(v) for k, v in now.items() if k not in before or before[k] != v}
    gone = [k for k in before if k not in now]
    return {"put": put, "gone": gone} if gone else {"put": put}


def _changed_records(
    before: tuple[Any, ...], now: tuple[Any, ...], by: Key, keys: Keys
) -> dict[str, Any]:
    in_order = by.place is None
    some, others = (before, now) if in_order else apart(before, now)
    old = {by.name(each): each for each in some}
    new = {by.name(each): each for each in others}
    kept = [key for key in old if key in new]
    parts = {
        "gone": [key for key in old if key not in new],
        "new": [to_plain(each) for key, each in new.items() if key not in old],
        "set": {key: difference(old[key], new[key], keys) for key in kept if old[key] != new[key]},
    }
    found: dict[str, Any] = {key: part for key, part in parts.items() if part}
    if in_order and list(new) != [*kept, *(key for key in new if key not in old)]:
        found["order"] = list(new)
    return found


def apart(before: Sequence[Any], now: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The elements of each that are not, as the same object, in the other too."""
    both = set(map(id, before)) & set(map(id, now))
    if not both:
        return list(before), list(now)
    return [x for x in before if id(x) not in both], [x for x in now if id(x) not in both]


def patched(old: Any, change: Any, keys: Keys, where: str = "") -> Any:
    """`old` with a `difference` applied. Raises `NotPlain` where it does not fit."""
    _demand(isinstance(change, dict), where, "an object", change)
    kind: Any = type(old)
    hints, values = _hints(kind), {}
    for key, part in change.items():
        place = f"{where}.{key}".strip(".")
        if key not in hints:
            raise NotPlain(f"{place} is not known")
        _demand(isinstance(part, dict), place, "a change", part)
        values[key] = _patch(getattr(old, key), part, hints[key], keys, place)
    return replace(old, **values) if values else old


def _patch(before: Any, part: dict[str, Any], kind: Any, keys: Keys, place: str) -> Any:
    if "to" in part:
        return from_plain(kind, part["to"], place)
    if "of" in part:
        _demand(is_dataclass(before), place, "a record", before)
        return patched(before, part["of"], keys, place)
    element = typing.get_args(kind)[-1 if isinstance(before, Mapping) else 0 :][:1]
    if isinstance(before, Mapping):
        return _patch_keys(before, part, element[0], place)
    _demand(isinstance(before, tuple) and element[0] in keys, place, "a list of records", before)
    return _patch_records(before, part, element[0], keys, place)


def _patch_keys(
    before: Mapping[str, Any], part: dict[str, Any], kind: Any, place: str
) -> dict[str, Any]:
    left = _known(part.get("gone", []), before, place)
    put = from_plain(dict[str, kind], part.get("put", {}), place)
    return {**{k: v for k, v in before.items() if k not in left}, **put}


def _patch_records(
    before: tuple[Any, ...], part: dict[str, Any], kind: Any, keys: Keys, place: str
) -> tuple[Any, ...]:
    by = keys[kind]
    records = {by.name(each): each for each in before}
    for name in _known(part.get("gone", []), records, place):
        del records[name]
    for name in _known(part.get("set", {}), records, place):
        records[name] = patched(records[name], part["set"][name], keys, f"{place}.{name}")
    for fresh in from_plain(tuple[kind, ...], part.get("new", []), f"{place}.new"):
        if by.name(fresh) in records:
            raise NotPlain(f"{place}: {by.name(fresh)} is there already")
        records[by.name(fresh)] = fresh
    if "order" in part:
        records = {name: records[name] for name in _known(part["order"], records, place)}
    return tuple(records.values() if by.place is None else sorted(records.values(), key=by.place))


def _known(names: Any, there: Mapping[str, Any], place: str) -> list[str]:
    _demand(isinstance(names, list | dict), place, "a list of names", names)
    for name in names:
        if name not in there:
            raise NotPlain(f"{place}: there is no {str(name)[:60]!r}")
    return list(dict.fromkeys(names))
