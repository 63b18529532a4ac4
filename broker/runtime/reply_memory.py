"""How many bytes of answers lie in ZeroMQ's queues, and whether there may be more.

A peer that asks and does not read must not fill the node's memory, nor the share of those that do
read. Only frames that are handed over without a copy are counted: batches.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from broker.events import Connection

REPLIES_PER_CONNECTION = 4
"""A client asks again when it has the last answer; ZeroMQ may tell of that a little later."""


class Tracker(Protocol):
    """zmq.MessageTracker: `done` once ZeroMQ has let go of the bytes, sent or dropped."""

    @property
    def done(self) -> bool: ...


@dataclass(slots=True)
class ReplyMemory:
    """`limit_bytes` holds for the node; a single answer is admitted whatever its size."""

    limit_bytes: int
    total_bytes: int = 0
    """An upper bound: what has left is subtracted when somebody asks."""
    _held: dict[Connection, deque[tuple[int, list[Tracker]]]] = field(default_factory=dict)

    def admits(self, connection: Connection, size_bytes: int) -> bool:
        """Whether so many bytes more may be queued to this connection."""
        self._release(connection)
        if len(self._held.get(connection, ())) >= REPLIES_PER_CONNECTION:
            return False
        if self.total_bytes + size_bytes > self.limit_bytes:
            for other in list(self._held):
                self._release(other)
        return self.total_bytes == 0 or self.total_bytes + size_bytes <= self.limit_bytes

    def hold(self, connection: Connection, size_bytes: int, trackers: list[Tracker]) -> None:
        """So many bytes were handed over in the frames of these trackers."""
        self._held.setdefault(connection, deque()).append((size_bytes, trackers))
        self.total_bytes += size_bytes

    def _release(self, connection: Connection) -> None:
        held = self._held.get(connection)
        while held and all(tracker.done for tracker in held[0][1]):
            self.total_bytes -= held.popleft()[0]
        if held is not None and not held:
            del self._held[connection]
