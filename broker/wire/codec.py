"""Strict mapping between frozen dataclasses and msgpack arrays.

A message is the array of its fields in order; the annotations are the schema (int of 64 bits, bool,
str, bytes, IntEnum, `tuple[X, ...]`, `X | None`, nested dataclasses), read once when a `Coder` is
made. What is read is what was meant or `MalformedMessage`: no coercion (a bool is no int), no
missing or additional fields, no unknown enum members, nothing after the end.

Writing trusts the type checker: the values of a message are not looked at again.

A reader of a dataclass is generated source, like the dataclass's own methods: a message is a few
dozen checks, and a call for each would take longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import IntEnum
from functools import partial
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from broker.wire.batch_header import Buffer
from broker.wire.bounded_msgpack import MalformedMessage, pack, unpack

__all__ = ["Coder", "MalformedMessage"]

T = TypeVar("T")
Read = Callable[[Any], Any]
"""From a plain value to the one of the schema; MalformedMessage if it is none."""
Write = Callable[[Any], Any]
"""From a value of the schema to a plain one."""


class Coder(Generic[T]):
    """Reads and writes one dataclass. Making one costs reflection: keep it."""

    def __init__(self, message_type: type[T]) -> None:
        self.message_type = message_type
        read, write = _dataclass_coder(message_type)
        self.from_fields: Callable[[object], T] = read
        """The message that an unpacked array describes; MalformedMessage if it describes none."""
        self.to_fields: Callable[[T], Any] = write
        """The array of the message, ready to be packed."""

    def encode(self, message: T) -> bytes:
        return pack(self.to_fields(message))

    def decode(self, data: Buffer) -> T:
        return self.from_fields(unpack(data))


def _coder(annotation: Any) -> tuple[Read, Write | None]:
    """How to read and write a value of this type; no writer where it is plain as it is."""
    if annotation in _PLAIN_READERS:
        return _PLAIN_READERS[annotation], None
    if is_dataclass(annotation):
        return _dataclass_coder(cast(type, annotation))
    if isinstance(annotation, type) and issubclass(annotation, IntEnum):
        return _enum_reader(annotation), None
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_coder(*_coder(arguments[0]))
    if get_origin(annotation) in (Union, UnionType) and arguments[1:] == (NoneType,):
        return _optional_coder(*_coder(arguments[0]))
    raise TypeError(f"{annotation} has no place in a message")


def _wrong(wanted: str, value: object) -> MalformedMessage:
    return MalformedMessage(f"{type(value).__name__} {value!r:.40} is not {wanted}")


_PLAIN_CHECKS: dict[Any, str] = {
    # msgpack has no integer below -2**63.
    int: f"type({{0}}) is not int or {{0}} > {(1 << 63) - 1}",
    bool: "type({0}) is not bool",
    str: "type({0}) is not str",
    bytes: "type({0}) is not bytes",
}
"""By type, when the value named {0} is to be refused."""


def _generate_read_plain(plain_type: type[Any]) -> Read:
    return _generate(
        [
            "def read(value):",
            f"    if {_PLAIN_CHECKS[plain_type].format('value')}:",
            f"        raise wrong({plain_type.__name__!r}, value)",
            "    return value",
        ],
        {"wrong": _wrong},
    )


def _generate(lines: list[str], names: dict[str, Any]) -> Read:
    exec("\n".join(lines), names)
    return cast(Read, names["read"])


_PLAIN_READERS = {plain_type: _generate_read_plain(plain_type) for plain_type in _PLAIN_CHECKS}


def _enum_reader(enum_type: type[IntEnum]) -> Read:
    members = {int(member): member for member in enum_type}

    def read(value: Any) -> Any:
        # True would find the member 1.
        if type(value) is not int or value not in members:
            raise _wrong(enum_type.__name__, value)
        return members[value]

    return read


def _optional_coder(read: Read, write: Write | None) -> tuple[Read, Write | None]:
    def read_optional(value: Any) -> Any:
        return None if value is None else read(value)

    def write_optional(value: Any) -> Any:
        return None if value is None else cast(Write, write)(value)

    return read_optional, write and write_optional


def _tuple_coder(read: Read, write: Write | None) -> tuple[Read, Write | None]:
    def read_tuple(value: Any) -> Any:
        if type(value) is not tuple:
            raise _wrong("an array", value)
        items: list[Any] = []
        try:
            for item in value:
                items.append(read(item))
        except MalformedMessage as error:
            raise error.inside(f"[{len(items)}]") from None
        return tuple(items)

    def write_tuple(value: Any) -> Any:
        return list(map(cast(Write, write), value))

    return read_tuple, write and write_tuple


def _dataclass_coder(message_type: type[Any]) -> tuple[Read, Write]:
    hints = get_type_hints(message_type)
    names = [field.name for field in fields(message_type)]
    coders = [_coder(hints[name]) for name in names]
    writers = [(place, write) for place, (_, write) in enumerate(coders) if write]
    readers = {
        name: hints[name] if hints[name] in _PLAIN_CHECKS else read
        for name, (read, _) in zip(names, coders, strict=True)
    }
    # attrgetter answers with a tuple from the second name on.
    get_fields: Callable[[Any], tuple[Any, ...]] = (
        attrgetter(*names)
        if len(names) > 1
        else lambda message: tuple(getattr(message, name) for name in names)
    )

    def write(message: Any) -> Any:
        items = list(get_fields(message))
        for place, write_item in writers:
            items[place] = write_item(items[place])
        return items

    return _generate_read_dataclass(message_type, readers), write if writers else get_fields


def _generate_read_dataclass(message_type: type[Any], readers: dict[str, Any]) -> Read:
    """`readers`: by field, a plain type to be checked in place, or a function to be called."""
    assert not hasattr(message_type, "__post_init__"), "readers fill the slots themselves"
    names: dict[str, Any] = {
        "MalformedMessage": MalformedMessage,
        "wrong": _wrong,
        "new": partial(object.__new__, message_type),
    }
    lines = [
        "def read(value):",
        "    if type(value) is not tuple:",
        "        raise wrong('an array', value)",
        f"    if len(value) != {len(readers)}:",
        f"        raise MalformedMessage(f'{{len(value)}} fields instead of {len(readers)}')",
    ]
    if readers:
        lines.append(f"    {', '.join(f'v_{name}' for name in readers)}, = value")
    for name, reader in readers.items():
        if reader in _PLAIN_CHECKS:
            lines += [
                f"    if {_PLAIN_CHECKS[reader].format(f'v_{name}')}:",
                f"        raise wrong({reader.__name__!r}, v_{name}).inside({name!r})",
            ]
        else:
            names[f"read_{name}"] = reader
            lines += [
                "    try:",
                f"        v_{name} = read_{name}(v_{name})",
                "    except MalformedMessage as error:",
                f"        raise error.inside({name!r}) from None",
            ]
    # A frozen dataclass sets its fields by name, at twice the cost of setting the slots.
    lines.append("    message = new()")
    for name in readers:
        names[f"set_{name}"] = getattr(message_type, name).__set__
        lines.append(f"    set_{name}(message, v_{name})")
    lines.append("    return message")
    return _generate(lines, names)
