"""What a node hears and what it wants done: the inputs, effects and facts of `NodeCore`.

Effects are plain data and are executed in list order; a crash may happen after any prefix. Nothing
that promises durability is ordered before the `Sync` it depends on: it leaves only after `Synced`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from broker.ports import Buffer

FAR_MS = 2**62
"""A deadline that never comes."""

# A message body is any dataclass registered in wire.messages; the codec refuses everything else.
Body = object


class Plane(Enum):
    """The two listeners of a node: voters and brokers talk to CONTROLLER, all others to BROKER."""

    BROKER = "broker"
    CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a request came from, to answer it. Opaque to the core; dies with the connection."""

    plane: Plane
    routing_id: bytes


@dataclass(frozen=True, slots=True)
class SyncToken:
    """Names one log at one moment. An event of another generation is ignored.

    `log` is a topic id and partition, or ("raft", 0).
    """

    log: tuple[str, int]
    generation: int
    end_offset: int


# --- inputs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A request, or a one-way message, that arrived on one of our listeners."""

    connection: Connection
    correlation_id: int
    body: Body
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """A response from `peer` to a request that we sent."""

    peer: int
    plane: Plane
    correlation_id: int
    body: Body
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class Unsent:
    """A request of ours that certainly did not leave: the peer is not connected."""

    peer: int
    plane: Plane
    correlation_id: int


@dataclass(frozen=True, slots=True)
class Synced:
    token: SyncToken


@dataclass(frozen=True, slots=True)
class SyncFailed:
    token: SyncToken
    reason: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A `Store` is durable."""

    path: str
    generation: int


@dataclass(frozen=True, slots=True)
class StoreFailed:
    path: str
    generation: int
    reason: str
    hangs: bool = False
    """The device has not answered: the file may yet be replaced."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A `Scrub` was done as far as `position`, where the batch of `next_offset` begins; it is bad
    if there is a `problem`."""

    position: int
    next_offset: int
    problem: str


@dataclass(frozen=True, slots=True)
class ScrubFailed:
    """The file could not be read now, which says nothing of what it holds."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Time for the next slice of long work (recovery)."""

    work: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The loop did not turn for `gap_ms`: the process was stopped or starved."""

    gap_ms: int


Event = (
    Received
    | Answered
    | Unsent
    | Synced
    | SyncFailed
    | Stored
    | StoreFailed
    | Scrubbed
    | ScrubFailed
    | Continue
    | Paused
)


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    connection: Connection
    correlation_id: int
    body: Body
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """A request to a peer. With `one_way` no answer is expected."""

    peer: int
    plane: Plane
    correlation_id: int
    body: Body
    one_way: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """Where a peer listens. Replaces an older address; None drops the link."""

    peer: int
    plane: Plane
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class ResetLink:
    """Close and replace the connection, so that nothing queued on it leaves later."""

    peer: int
    plane: Plane


@dataclass(frozen=True, slots=True)
class Sync:
    """Make files (in this order) and then directories durable; answer Synced or SyncFailed."""

    token: SyncToken
    files: tuple[str, ...]
    directories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Store:
    """Replace a small file durably and atomically (temporary, sync, rename, directory sync)."""

    path: str
    generation: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Scrub:
    """Read batches of a file and judge them, from `position`, where the batch of `next_offset` must
    begin, up to `end_position` or less; answer Scrubbed or ScrubFailed. `epochs`: (leader epoch,
    start offset)."""

    path: str
    position: int
    end_position: int
    next_offset: int
    epochs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Rename a file or directory out of the way, then remove it. No answer."""

    path: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Ask for `Continue(work)` in a later turn."""

    work: str


@dataclass(frozen=True, slots=True)
class Fact:
    """What became true, with the state after it. The driver writes or drops it; no core reads it.

    `kind`: BecameLeader, BecameFollower, BecameOffline, Appended, HwAdvanced, Truncated,
    IsrProposed, IsrResult, Acked, ProduceRefused, Recovered, DamageFound, BeganAnew,
    CommittedLost, LogStartMoved, StrayLog, DiskFailed, RaftRole, Applied, Restored.
    """

    kind: str
    topic_id: str = ""
    partition: int = -1
    leader_epoch: int = -1
    partition_epoch: int = -1
    log_end_offset: int = -1
    synced_end: int = -1
    high_watermark: int = -1
    details: dict[str, int | str | bool | tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Halt:
    """The node cannot go on. The driver prints the reason and ends the process."""

    reason: str


Effect = Reply | Send | Link | ResetLink | Sync | Store | Scrub | Remove | Resume | Fact | Halt
