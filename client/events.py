"""What the client cores hear and what they want done.

A core is `handle(event, now_ms) -> [effect]` and `next_deadline_ms()`. Two drivers exist: threads
and ZeroMQ (`connection`), and the simulator. Effects are plain data, executed in list order.

A `peer` is a node id, or `bootstrap_peer(i)` for the i-th bootstrap address, whose node is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview
Draw = Callable[[str, int, int], int]
"""draw(label, low, high): an integer in [low, high], the only source of randomness of a core."""

NEVER_MS = 2**62
"""The deadline of a core that waits for nothing."""


def bootstrap_peer(index: int) -> int:
    """The peer that stands for the bootstrap address of that index: -1, -2, …"""
    return -1 - index


def is_bootstrap(peer: int) -> bool:
    return peer < 0


# --- inputs ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing arrived: run what is due."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A response. `payload` holds its frames of batches."""

    peer: int
    correlation_id: int
    body: object
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection to a peer broke, or could not be made.

    `unsent` names requests of which not a byte has left; all others to that peer may have arrived.
    """

    peer: int
    unsent: tuple[int, ...] = ()


Event = Tick | Answered | Disconnected


# --- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """A request. The connection is made when there is none; `address` is "host:port".

    `one_way` requests are never answered (produce with acks=0).
    """

    peer: int
    address: str
    correlation_id: int
    body: object
    payload: Sequence[Buffer] = ()
    one_way: bool = False


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Drop the connection with all that is queued on it, so that nothing stale leaves later.

    The next `Send` to the peer makes a new one.
    """

    peer: int


Effect = Send | CloseConnection
