r"""Backslash escapes on the command line: \n \t \r \0 \\ \xHH, as kcat and printf have them."""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.|$)", re.DOTALL)
_PLAIN = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"0": b"\0", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    """The bytes that `text` means; ValueError names an escape that means nothing."""

    def one(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        if len(escape) == 3:
            return bytes((int(escape[1:], 16),))
        if escape not in _PLAIN:
            raise ValueError(f"unknown escape {match[0].decode(errors='replace')}")
        return _PLAIN[escape]

    # Arguments that are no text in this locale arrive as lone surrogates: they go back to bytes.
    return _ESCAPE.sub(one, text.encode("utf-8", "surrogateescape"))
