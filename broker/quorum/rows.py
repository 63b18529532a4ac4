"""Dataclasses as msgpack rows, read back strictly: what the metadata log and Raft's messages share.

A row is the array of a dataclass's fields in order. The annotations are the schema; every value is
checked against them, so that foreign bytes become an error here and not a wrong state later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any, TypeVar

import msgpack

from raft.types import Entry


class RowError(Exception):
    """The bytes are not a row of the type asked for."""


def _is_int(value: object) -> bool:
    return type(value) is int


def _is_entry(value: object) -> bool:
    return (
        type(value) is tuple
        and len(value) == 3
        and _is_int(value[0])
        and _is_int(value[1])
        and type(value[2]) is bytes
    )


_CHECKS: dict[str, Callable[[object], bool]] = {
    "int": _is_int,
    "int | None": lambda value: value is None or _is_int(value),
    "str": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "bytes": lambda value: type(value) is bytes,
    "tuple[str, ...]": lambda value: (
        type(value) is tuple and all(type(item) is str for item in value)
    ),
    "tuple[int, ...]": lambda value: type(value) is tuple and all(map(_is_int, value)),
    "tuple[Entry, ...]": lambda value: type(value) is tuple and all(map(_is_entry, value)),
}

T = TypeVar("T")


def pack(value: object) -> bytes:
    """msgpack of plain values; entries become (index, term, data)."""
    return bytes(msgpack.packb(value, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, Entry):
        return (value.index, value.term, value.data)
    raise TypeError(f"{type(value).__name__} has no place in a row")


def unpack(data: bytes | memoryview) -> object:
    """Plain values with tuples for arrays. Raises RowError."""
    try:
        value: object = msgpack.unpackb(data, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise RowError(f"not msgpack: {error}") from error
    return value


def to_row(item: Any) -> tuple[Any, ...]:
    """The fields of a dataclass in order."""
    return tuple(getattr(item, field.name) for field in fields(item))


def from_row(item_type: type[T], row: object) -> T:
    """The dataclass that `row` describes. Raises RowError naming the field that is wrong."""
    wanted: tuple[Field[Any], ...] = fields(item_type)  # type: ignore[arg-type]
    if type(row) is not tuple or len(row) != len(wanted):
        raise RowError(f"not a row of {len(wanted)} fields for {item_type.__name__}")
    values: dict[str, Any] = {}
    for field, value in zip(wanted, row, strict=True):
        if not _CHECKS[str(field.type)](value):
            raise RowError(f"{item_type.__name__}.{field.name} cannot be {type(value).__name__}")
        if field.type == "tuple[Entry, ...]":
            value = tuple(Entry(*entry) for entry in value)
        values[field.name] = value
    return item_type(**values)
