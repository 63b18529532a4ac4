"""What happened in a run, one entry an event: a running checksum over all of them, and the entries
themselves for people."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

TAIL_COUNT = 60


class Entry(NamedTuple):
    time_ms: int
    who: str
    """A node ("n1"), a client ("c0"), or "-" for the world."""
    kind: str
    """A fact's kind, or: fault, crash, start, wipe, halt, done, status, violation."""
    place: str
    """Topic id and partition, where there is one."""
    text: str

    def line(self) -> str:
        place = f" {self.place}" if self.place else ""
        return f"{self.time_ms} {self.who} {self.kind}{place} {self.text}"


@dataclass(slots=True)
class Trace:
    """With `keep_all` every entry stays, else the last ones."""

    keep_all: bool = False
    checksum: int = 0
    count: int = 0
    entries: deque[Entry] = field(default_factory=deque)

    def add(self, time_ms: int, who: str, kind: str, place: str, text: str) -> None:
        entry = Entry(time_ms, who, kind, place, text)
        self.checksum = zlib.crc32(entry.line().encode(), self.checksum)
        self.count += 1
        self.entries.append(entry)
        if not self.keep_all and len(self.entries) > TAIL_COUNT:
            self.entries.popleft()

    @property
    def hash(self) -> str:
        """Equal for equal runs, in every process."""
        return f"{self.checksum:08x}-{self.count}"
