"""Metadata records: facts with absolute outcomes, never intentions (as Kafka's KIP-631 records).

One entry of the metadata log holds an atomic batch of records: all of them become true together.
Its bytes are a version byte and the msgpack array of `[tag, field, ...]`; tags are for ever, a
removed one is not used again. Raft's own entry at the start of a term is empty: it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.quorum.rows import RowError, from_row, pack, to_row, unpack

FORMAT_VERSION = 1
NO_LEADER = -1


class MetadataFormatError(Exception):
    """The bytes of an entry are not metadata records of this version."""


@dataclass(frozen=True, slots=True)
class RegisterBroker:
    """A new incarnation of a broker; it starts fenced. `broker_epoch` is this entry's index."""

    node_id: int
    broker_epoch: int
    incarnation: str
    disk_id: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class BrokerFenced:
    node_id: int
    broker_epoch: int
    fenced: bool


@dataclass(frozen=True, slots=True)
class TopicCreated:
    """The topic's settings, but for those that TopicConfigured tells in the same entry; then its
    partitions follow, in order."""

    topic_id: str
    name: str
    min_insync_replicas: int
    flush: str
    segment_bytes: int
    message_max_bytes: int


@dataclass(frozen=True, slots=True)
class TopicConfigured:
    """One setting of a topic that is there, as text."""

    topic_id: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class TopicDeleted:
    topic_id: str


@dataclass(frozen=True, slots=True)
class PartitionCreated:
    """`replicas` in order of preference, `isr` sorted."""

    topic_id: str
    partition: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0


@dataclass(frozen=True, slots=True)
class PartitionChanged:
    """The whole outcome of one change. `leader` is NO_LEADER while there is none."""

    topic_id: str
    partition: int
    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProducerIdsAllocated:
    """Every producer id below `next_producer_id` is given away, the last block to this broker."""

    node_id: int
    broker_epoch: int
    next_producer_id: int


Record = (
    RegisterBroker
    | BrokerFenced
    | TopicCreated
    | TopicDeleted
    | PartitionCreated
    | PartitionChanged
    | ProducerIdsAllocated
    | TopicConfigured
)

RECORD_TYPES: dict[int, type[Record]] = {
    1: RegisterBroker,
    2: BrokerFenced,
    3: TopicCreated,
    4: TopicDeleted,
    5: PartitionCreated,
    6: PartitionChanged,
    7: ProducerIdsAllocated,
    8: TopicConfigured,
}
_TAGS = {record_type: tag for tag, record_type in RECORD_TYPES.items()}


def encode_entry(records: Sequence[Record]) -> bytes:
    """Bytes of one entry; never empty, unlike Raft's own."""
    return bytes((FORMAT_VERSION,)) + pack(
        [(_TAGS[type(record)], *to_row(record)) for record in records]
    )


def decode_entry(data: bytes) -> tuple[Record, ...]:
    """The records of one entry; none for Raft's own empty entry. MetadataFormatError if unknown.

    A node that cannot read an entry must stop: skipping a fact would fork its image.
    """
    if not data:
        return ()
    if data[0] != FORMAT_VERSION:
        raise MetadataFormatError(
            f"metadata entry has version {data[0]}, this program knows {FORMAT_VERSION}"
        )
    try:
        rows = unpack(memoryview(data)[1:])
        if type(rows) is not tuple:
            raise RowError("not an array of records")
        return tuple(_decode_record(row) for row in rows)
    except RowError as error:
        raise MetadataFormatError(f"metadata entry: {error}") from error


def _decode_record(row: object) -> Record:
    if type(row) is not tuple or not row or type(row[0]) is not int:
        raise RowError("a record does not begin with its tag")
    record_type = RECORD_TYPES.get(row[0])
    if record_type is None:
        raise RowError(f"unknown record tag {row[0]}")
    return from_row(record_type, row[1:])
