"""One frozen dataclass per request and response: the published contract.

On the wire a message is the array of its fields in this order (see `codec`). Payload frames
(batches) follow the header; a message that carries any says how many in `payload_frames`. Field
types are the schema: int, bool, str, bytes, IntEnum, `tuple[X, ...]`, `X | None` and nested
dataclasses.

Every partition is named by topic id, never by name: a recreated topic is another topic.
"""

# tidy: table of the protocol's messages: fields and their meaning, no logic to break apart

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from broker.wire.errors import ErrorCode

CONSUMER_REPLICA_ID = -1
LATEST_TIMESTAMP = -1
EARLIEST_TIMESTAMP = -2
ACKS_ALL = -1
NO_LEADER = -1


class Api(IntEnum):
    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    CREATE_TOPIC = 19
    DELETE_TOPIC = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    ALTER_TOPIC = 33
    CREATE_PARTITIONS = 37
    DESCRIBE_NODE = 40
    RAFT = 52
    ALTER_PARTITION = 56
    BROKER_REGISTRATION = 62
    BROKER_HEARTBEAT = 63
    ALLOCATE_PRODUCER_IDS = 67
    METADATA_FETCH = 80


class Appended(IntEnum):
    """Whether this attempt put the batch into the leader's log; `MAYBE` makes it indefinite."""

    NO = 0
    MAYBE = 1
    YES = 2


# --- produce ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProducePart:
    """One batch for one partition; its bytes are the payload frame of the same position."""

    topic_id: str
    partition: int
    leader_epoch: int
    """The leader epoch that the client believes in; -1 if it knows none."""


@dataclass(frozen=True, slots=True)
class ProduceRequest:
    acks: int
    """0, 1 or ACKS_ALL. With 0 there is no response."""
    timeout_ms: int
    """Bounds the parking at the leader, nothing else."""
    parts: tuple[ProducePart, ...]

    @property
    def payload_frames(self) -> int:
        return len(self.parts)


@dataclass(frozen=True, slots=True)
class ProducePartResult:
    topic_id: str
    partition: int
    error: ErrorCode
    appended: Appended
    base_offset: int
    """First offset of the batch (of the original batch when it is a duplicate); -1 on error."""
    leader_epoch: int
    """Of the append if it was made, else the newest that this broker knows (a hint); -1 if none."""
    leader_id: int
    """The leader by this broker's metadata, a hint; -1 if none is known."""
    log_start_offset: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProduceResponse:
    parts: tuple[ProducePartResult, ...]


# --- fetch --------------------------------------------------------------------------------------


class Isolation(IntEnum):
    READ_UNCOMMITTED = 0
    READ_COMMITTED = 1
    LINEARIZABLE = 2


@dataclass(frozen=True, slots=True)
class FetchPart:
    topic_id: str
    partition: int
    leader_epoch: int
    """The epoch in which the fetcher believes; -1 from a consumer that knows none."""
    last_fetched_epoch: int
    """Leader epoch of the last batch in the follower's log; -1 from consumers and empty logs."""
    fetch_offset: int
    """Where to read: a follower's log end offset."""
    synced_end: int
    """A follower's counted end: first offset it does not vouch for; -1 from consumers."""
    log_start_offset: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ReplicaName:
    topic_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class FetchSessionPart:
    """A follower's rounds that build on each other: see `handlers.fetch_sessions`."""

    session_id: int
    epoch: int
    """0 begins the session, and lists everything; grows by one with each round."""
    forgotten: tuple[ReplicaName, ...]
    """Not asked for any more."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    replica_id: int
    """Node id of a follower, CONSUMER_REPLICA_ID of a consumer."""
    broker_epoch: int
    """The follower's incarnation; -1 from consumers."""
    fetch_round: int
    """Grows with each fetch of one incarnation on one link; a newer round replaces a parked one."""
    echo: int
    """Largest `counter` received from this leader; -1 from consumers."""
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    isolation: Isolation
    parts: tuple[FetchPart, ...]
    session: FetchSessionPart | None = None


@dataclass(frozen=True, slots=True)
class FetchPartResult:
    topic_id: str
    partition: int
    error: ErrorCode
    leader_id: int
    leader_epoch: int
    high_watermark: int
    log_start_offset: int
    log_end_offset: int
    diverging_epoch: int
    """-1, or the newest epoch the leader knows at or below the fetcher's last fetched epoch."""
    diverging_end_offset: int
    """Where that epoch ends in the leader's log; -1 without divergence."""
    has_batches: bool
    """A payload frame of contiguous whole batches follows for this partition."""


@dataclass(frozen=True, slots=True)
class FetchResponse:
    fetch_round: int
    counter: int
    parts: tuple[FetchPartResult, ...]
    session_lost: bool = False
    """The round does not fit to what the leader remembers: begin a new session."""

    @property
    def payload_frames(self) -> int:
        return sum(1 for part in self.parts if part.has_batches)


# --- offsets ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListOffsetsPart:
    topic_id: str
    partition: int
    leader_epoch: int
    timestamp_ms: int
    """LATEST_TIMESTAMP (the high watermark), EARLIEST_TIMESTAMP, or a time in ms."""


@dataclass(frozen=True, slots=True)
class ListOffsetsRequest:
    parts: tuple[ListOffsetsPart, ...]


@dataclass(frozen=True, slots=True)
class ListOffsetsPartResult:
    topic_id: str
    partition: int
    error: ErrorCode
    offset: int
    """-1 when no record is at or after the time asked for."""
    timestamp_ms: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class ListOffsetsResponse:
    parts: tuple[ListOffsetsPartResult, ...]


# --- metadata -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerEndpoint:
    node_id: int
    host: str
    port: int
    broker_epoch: int
    fenced: bool


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    partition: int
    leader_id: int
    """NO_LEADER while there is none."""
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class TopicInfo:
    error: ErrorCode
    name: str
    topic_id: str
    min_insync_replicas: int
    flush: str
    message_max_bytes: int
    settings: tuple[Setting, ...]
    """All of them, by name."""
    partitions: tuple[PartitionInfo, ...]


@dataclass(frozen=True, slots=True)
class MetadataRequest:
    topics: tuple[str, ...] | None
    """None asks for all topics."""


@dataclass(frozen=True, slots=True)
class MetadataResponse:
    cluster_id: str
    metadata_index: int
    """Raft index of the image that answers: answers of one broker never go back."""
    controller_id: int
    brokers: tuple[BrokerEndpoint, ...]
    topics: tuple[TopicInfo, ...]


@dataclass(frozen=True, slots=True)
class CreateTopicRequest:
    name: str
    partition_count: int
    """-1 takes the default, 1."""
    replication_factor: int
    """-1 takes the default, min(3, brokers)."""
    assignments: tuple[tuple[int, ...], ...]
    """Replicas per partition, preferred leader first; empty lets the controller place them."""
    settings: tuple[Setting, ...]
    """See `broker.config.TopicConfig`."""
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class CreateTopicResponse:
    error: ErrorCode
    detail: str
    topic_id: str
    maybe_done: bool
    """The outcome is unknown: the quorum's leadership was lost, or the deadline passed."""


@dataclass(frozen=True, slots=True)
class DeleteTopicRequest:
    name: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class DeleteTopicResponse:
    error: ErrorCode
    detail: str
    maybe_done: bool


@dataclass(frozen=True, slots=True)
class AlterTopicRequest:
    name: str
    settings: tuple[Setting, ...]
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class AlterTopicResponse:
    error: ErrorCode
    detail: str
    maybe_done: bool


@dataclass(frozen=True, slots=True)
class CreatePartitionsRequest:
    name: str
    partition_count: int
    """How many the topic shall have in all."""
    assignments: tuple[tuple[int, ...], ...]
    """Replicas of each new partition; empty lets the controller place them."""
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class CreatePartitionsResponse:
    error: ErrorCode
    detail: str
    maybe_done: bool


UP_TO_HIGH_WATERMARK = -1


@dataclass(frozen=True, slots=True)
class DeleteRecordsPart:
    topic_id: str
    partition: int
    before_offset: int
    """Where the partition shall begin; UP_TO_HIGH_WATERMARK (-1) deletes all that is committed."""


@dataclass(frozen=True, slots=True)
class DeleteRecordsRequest:
    parts: tuple[DeleteRecordsPart, ...]
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class DeleteRecordsPartResult:
    topic_id: str
    partition: int
    error: ErrorCode
    log_start_offset: int
    """Where it begins now, on every member of the ISR; -1 with an error."""


@dataclass(frozen=True, slots=True)
class DeleteRecordsResponse:
    parts: tuple[DeleteRecordsPartResult, ...]


@dataclass(frozen=True, slots=True)
class InitProducerIdRequest:
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class InitProducerIdResponse:
    error: ErrorCode
    producer_id: int
    producer_epoch: int


# --- one node's own view (status, convergence checks) -------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplicaState:
    topic_id: str
    partition: int
    role: str
    """leader, follower or offline."""
    leader_epoch: int
    partition_epoch: int
    log_start_offset: int
    log_end_offset: int
    synced_end: int
    high_watermark: int
    isr: tuple[int, ...]
    damaged: bool


@dataclass(frozen=True, slots=True)
class VoterState:
    node_id: int
    match_index: int
    """-1 where the answering node does not know it."""


@dataclass(frozen=True, slots=True)
class DescribeNodeRequest:
    replicas: bool
    """Whether the state of each replica is wanted too."""


@dataclass(frozen=True, slots=True)
class DescribeNodeResponse:
    node_id: int
    pid: int
    roles: tuple[str, ...]
    broker_epoch: int
    fenced: bool
    raft_role: str
    raft_term: int
    raft_leader_id: int
    commit_index: int
    applied_index: int
    voters: tuple[VoterState, ...]
    replicas: tuple[ReplicaState, ...]
    counters: tuple[Setting, ...]


# --- controller plane ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RaftRequest:
    """A Raft message, one way: answers come back as messages of their own."""

    cluster_id: str
    from_id: int
    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class BrokerRegistrationRequest:
    cluster_id: str
    node_id: int
    disk_id: str
    incarnation: str
    """Drawn anew at each start of the process."""
    host: str
    port: int
    clean_shutdown: bool
    damaged: tuple[ReplicaName, ...]
    """Replicas whose data below their recovery point or high watermark failed its checks."""


@dataclass(frozen=True, slots=True)
class BrokerRegistrationResponse:
    error: ErrorCode
    detail: str
    broker_epoch: int


@dataclass(frozen=True, slots=True)
class DamagedReplica:
    topic_id: str
    partition: int
    leader_epoch: int
    """In which it was found; news of another epoch are looked at anew by the broker."""


@dataclass(frozen=True, slots=True)
class BrokerHeartbeatRequest:
    node_id: int
    broker_epoch: int
    metadata_index: int
    """How far the broker's image is applied."""
    want_fence: bool
    damaged: tuple[DamagedReplica, ...]
    """Replicas of it whose log no longer holds all that it vouched for."""


@dataclass(frozen=True, slots=True)
class BrokerHeartbeatResponse:
    error: ErrorCode
    fenced: bool
    caught_up: bool


@dataclass(frozen=True, slots=True)
class IsrMember:
    node_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True)
class AlterPartitionPart:
    topic_id: str
    partition: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[IsrMember, ...]


@dataclass(frozen=True, slots=True)
class AlterPartitionRequest:
    node_id: int
    broker_epoch: int
    parts: tuple[AlterPartitionPart, ...]


@dataclass(frozen=True, slots=True)
class AlterPartitionPartResult:
    topic_id: str
    partition: int
    error: ErrorCode
    leader_id: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AlterPartitionResponse:
    error: ErrorCode
    parts: tuple[AlterPartitionPartResult, ...]


@dataclass(frozen=True, slots=True)
class AllocateProducerIdsRequest:
    node_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True)
class AllocateProducerIdsResponse:
    error: ErrorCode
    first_producer_id: int
    count: int


@dataclass(frozen=True, slots=True)
class MetadataEntry:
    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MetadataFetchRequest:
    """A node that is not a voter pulls committed entries from any voter."""

    cluster_id: str
    node_id: int
    from_index: int
    max_wait_ms: int
    max_bytes: int
    snapshot_index: int
    """The snapshot of which it has a beginning of `snapshot_position` bytes; 0 without one."""
    snapshot_position: int


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """Of what stands for all entries up to `index`, the last of them of `term`: the bytes from
    `position` on. Another voter may have made other bytes of the same entries."""

    index: int
    term: int
    size_bytes: int
    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MetadataFetchResponse:
    error: ErrorCode
    leader_id: int
    """The active controller as the voter knows it; -1 if unknown."""
    commit_index: int
    entries: tuple[MetadataEntry, ...]
    snapshot: SnapshotPart | None
    """Instead of entries, when those asked for are gone."""


REQUESTS: dict[Api, type] = {
    Api.PRODUCE: ProduceRequest,
    Api.FETCH: FetchRequest,
    Api.LIST_OFFSETS: ListOffsetsRequest,
    Api.METADATA: MetadataRequest,
    Api.CREATE_TOPIC: CreateTopicRequest,
    Api.DELETE_TOPIC: DeleteTopicRequest,
    Api.DELETE_RECORDS: DeleteRecordsRequest,
    Api.ALTER_TOPIC: AlterTopicRequest,
    Api.CREATE_PARTITIONS: CreatePartitionsRequest,
    Api.INIT_PRODUCER_ID: InitProducerIdRequest,
    Api.DESCRIBE_NODE: DescribeNodeRequest,
    Api.RAFT: RaftRequest,
    Api.ALTER_PARTITION: AlterPartitionRequest,
    Api.BROKER_REGISTRATION: BrokerRegistrationRequest,
    Api.BROKER_HEARTBEAT: BrokerHeartbeatRequest,
    Api.ALLOCATE_PRODUCER_IDS: AllocateProducerIdsRequest,
    Api.METADATA_FETCH: MetadataFetchRequest,
}

RESPONSES: dict[Api, type] = {
    Api.PRODUCE: ProduceResponse,
    Api.FETCH: FetchResponse,
    Api.LIST_OFFSETS: ListOffsetsResponse,
    Api.METADATA: MetadataResponse,
    Api.CREATE_TOPIC: CreateTopicResponse,
    Api.DELETE_TOPIC: DeleteTopicResponse,
    Api.DELETE_RECORDS: DeleteRecordsResponse,
    Api.ALTER_TOPIC: AlterTopicResponse,
    Api.CREATE_PARTITIONS: CreatePartitionsResponse,
    Api.INIT_PRODUCER_ID: InitProducerIdResponse,
    Api.DESCRIBE_NODE: DescribeNodeResponse,
    Api.ALTER_PARTITION: AlterPartitionResponse,
    Api.BROKER_REGISTRATION: BrokerRegistrationResponse,
    Api.BROKER_HEARTBEAT: BrokerHeartbeatResponse,
    Api.ALLOCATE_PRODUCER_IDS: AllocateProducerIdsResponse,
    Api.METADATA_FETCH: MetadataFetchResponse,
}
