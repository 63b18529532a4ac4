r"""Records to bytes for `prozess consume`: values a line each, a format string, or JSON lines.

A format is compiled once into parts; per record only the parts are filled in and joined.

    %t topic  %p partition  %o offset  %T timestamp in ms  %h headers as name=value,name=value
    %k key  %s value  %K and %S their lengths in bytes (-1 for null)  %% a percent sign
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from client.cli.escapes import unescape

Headers = Sequence[tuple[str, bytes | None]]


class Row(NamedTuple):
    """One record as the formatters need it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


Part = Callable[[Row], bytes]


def _size(field: bytes | None) -> bytes:
    return b"-1" if field is None else b"%d" % len(field)


def _headers(row: Row) -> bytes:
    return b",".join(
        name.encode() if value is None else name.encode() + b"=" + value
        for name, value in row.headers
    )


TOKENS: dict[str, Part] = {
    "t": lambda row: row.topic.encode(),
    "p": lambda row: b"%d" % row.partition,
    "o": lambda row: b"%d" % row.offset,
    "T": lambda row: b"%d" % row.timestamp_ms,
    "k": lambda row: row.key or b"",
    "s": lambda row: row.value or b"",
    "K": lambda row: _size(row.key),
    "S": lambda row: _size(row.value),
    "h": _headers,
}


def compile_format(text: str) -> Callable[[Row], bytes]:
    """What prints one record; nothing is added to it, so end it with \\n for lines.

    ValueError names an unknown token or escape.
    """
    parts: list[Part] = []
    literal = ""

    def end_literal() -> None:
        if literal:
            constant = unescape(literal)
            parts.append(lambda _: constant)

    position = 0
    while position < len(text):
        character = text[position]
        if character != "%":
            # An escaped character is never a token: \% is refused by unescape, %% is the way.
            step = 2 if character == "\\" else 1
            literal += text[position : position + step]
            position += step
            continue
        token = text[position + 1 : position + 2]
        position += 2
        if token == "%":
            literal += "%"
            continue
        if token not in TOKENS or not token:
            known = " ".join(f"%{name}" for name in TOKENS)
            raise ValueError(f"unknown token %{token}: take {known} or %%")
        end_literal()
        literal = ""
        parts.append(TOKENS[token])
    end_literal()
    if len(parts) == 1:
        return parts[0]
    return lambda row: b"".join([part(row) for part in parts])


def json_value(field: bytes | None) -> str | dict[str, str] | None:
    """Text as a string; bytes that are no UTF-8 as {"base64": …}, so that nothing is lost."""
    if field is None:
        return None
    try:
        return field.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(field).decode("ascii")}


def json_line(row: Row) -> bytes:
    """One JSON object and a line feed."""
    shown = {
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "timestamp_ms": row.timestamp_ms,
        "headers": [[name, json_value(value)] for name, value in row.headers],
        "key": json_value(row.key),
        "value": json_value(row.value),
    }
    return json.dumps(shown, ensure_ascii=False).encode() + b"\n"
