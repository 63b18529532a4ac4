"""Standard input as records: one a line, read in big pieces, none of them decoded.

A line ends with LF; the LF is not part of the record, a last line without one is a record too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

READ_BYTES = 1 << 18
"""Of one read. A pipe gives 64 KiB at most, a terminal a line."""


class LineTooLong(Exception):
    """A line of more bytes than may be held, so that the rest cannot be told from it."""


class LineSplitter:
    """Lines of a stream that comes in pieces. Holds the unfinished last line, no more."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._unfinished: list[bytes] = []
        self._unfinished_bytes = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that `piece` completes, in order.

        LineTooLong once the unfinished line is above the limit; all before it have been given.
        """
        if self._unfinished_bytes > self._line_bytes_max:
            raise LineTooLong(f"the line is longer than {self._line_bytes_max} bytes")
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines and self._unfinished:
            self._unfinished.append(lines[0])
            lines[0] = b"".join(self._unfinished)
            self._unfinished.clear()
            self._unfinished_bytes = 0
        if rest:
            self._unfinished.append(rest)
            self._unfinished_bytes += len(rest)
        return lines

    def finish(self) -> list[bytes]:
        """The last line if it had no LF."""
        rest, self._unfinished = self._unfinished, []
        return [b"".join(rest)] if rest else []


def read_lines(
    read: Callable[[int], bytes], line_bytes_max: int, read_bytes: int = READ_BYTES
) -> Iterator[list[bytes]]:
    """Lists of lines as they arrive, until `read` (as os.read) gives nothing more."""
    splitter = LineSplitter(line_bytes_max)
    while piece := read(read_bytes):
        lines = splitter.feed(piece)
        if lines:
            yield lines
    last = splitter.finish()
    if last:
        yield last


class KeyedLine(NamedTuple):
    key: bytes | None
    value: bytes


def split_key(line: bytes, delimiter: bytes) -> KeyedLine:
    """Key and value of a line; a line without the delimiter has no key."""
    key, found, value = line.partition(delimiter)
    return KeyedLine(key, value) if found else KeyedLine(None, line)
