"""One broker on a stage: a real NodeCore over a simulated disk; the test plays everybody else.

The node is a broker and no voter. The test writes its metadata (`metadata`), is its leader or its
followers and clients, and decides when a sync completes. Nothing happens that a test did not ask
for, but for heartbeats, which are answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.broker_part import BrokerPart
from broker.config import NodeConfig, VoterAddress
from broker.core import Identity, NodeCore
from broker.events import (
    Answered,
    Connection,
    Continue,
    Effect,
    Event,
    Fact,
    Halt,
    Plane,
    Received,
    Remove,
    Reply,
    ResetLink,
    Resume,
    Scrub,
    Scrubbed,
    Send,
    Store,
    Stored,
    Sync,
    Synced,
)
from broker.log.cold_batches import look
from broker.ports import Buffer
from broker.quorum.records import (
    BrokerFenced,
    PartitionChanged,
    PartitionCreated,
    Record,
    RegisterBroker,
    TopicCreated,
    encode_entry,
)
from broker.replica.partition import Partition
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    ACKS_ALL,
    AlterPartitionPartResult,
    AlterPartitionRequest,
    AlterPartitionResponse,
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    FetchPart,
    FetchPartResult,
    FetchRequest,
    FetchResponse,
    Isolation,
    MetadataEntry,
    MetadataFetchRequest,
    MetadataFetchResponse,
    ProducePart,
    ProducePartResult,
    ProduceRequest,
    ProduceResponse,
)
from broker.wire.record_batch import encode_batch
from chaos.sim.disk import SimDisk

VOTER = 9
TOPIC = "a" * 32
OTHER_TOPIC = "b" * 32
CLIENT = Connection(Plane.BROKER, b"client")
Row = tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]


def batch(
    *values: str,
    producer: tuple[int, int, int] = (-1, -1, -1),
    leader_epoch: int = -1,
    base: int = 0,
) -> bytearray:
    """A batch of these values; `producer` is (id, epoch, base sequence). As a leader would have
    written it, if an epoch and a base offset are given."""
    rows: list[Row] = [(1_000, None, value.encode(), ()) for value in values]
    encoded = encode_batch(
        rows, producer_id=producer[0], producer_epoch=producer[1], base_sequence=producer[2]
    )
    if leader_epoch >= 0:
        encoded[0:8] = base.to_bytes(8, "big")
        encoded[12:16] = leader_epoch.to_bytes(4, "big")
    return encoded


class Stage:
    """Node 1 with brokers 2 and 3 registered beside it. `start` makes it serve."""

    def __init__(
        self,
        disk: SimDisk | None = None,
        incarnation: str = "first",
        settings: Mapping[str, int] | None = None,
    ) -> None:
        self.disk = disk or SimDisk()
        self.now_ms = 10_000
        self.wall_ms = 2_000
        """The time of day, a second after the records of `batch`."""
        self.config = NodeConfig(
            node_id=1,
            cluster_id="staged",
            data_dir="staged",
            roles=("broker",),
            broker_port=1,
            voters=(VoterAddress(VOTER, "disk9", "127.0.0.1", 9),),
            facts="all",
            log_index_interval_bytes=64,
            **(settings or {}),  # type: ignore[arg-type]
        )
        self.core = NodeCore(
            self.config,
            Identity("staged", 1, "disk1"),
            self.disk,
            incarnation,
            lambda label, low, high: low,
            lambda: self.wall_ms,
        )
        self.effects: list[Effect] = []
        """All effects so far, in order."""
        self.syncs: list[Sync] = []
        """Not yet completed."""
        self.scrubbed: list[str] = []
        """Files of which a piece was read in the background."""
        self.entries: list[MetadataEntry] = []
        self.epochs: dict[int, int] = {}
        """The present broker epoch of each broker."""
        self._feed: tuple[int, int] | None = None
        self._registration: int | None = None
        self._correlation_id = 1_000
        self._rounds: dict[tuple[int, int], int] = {}
        self._carry_out(self.core.start(self.now_ms))

    @property
    def broker(self) -> BrokerPart:
        assert self.core.broker is not None
        return self.core.broker

    # -- turns -------------------------------------------------------------------------------------

    def handle(self, *events: Event) -> list[Effect]:
        """One turn; its effects, without those that the stage itself has answered."""
        return self._carry_out(self.core.handle(events, self.now_ms))

    def later(self, milliseconds: int) -> list[Effect]:
        self.now_ms += milliseconds
        return self.handle()

    def stop(self) -> list[Effect]:
        """Ask the node to stop; no controller fences it in time."""
        self.core.stop(self.now_ms)
        return self.handle() + self.later(self.config.controlled_shutdown_timeout_ms)

    def _carry_out(self, effects: list[Effect]) -> list[Effect]:
        self.effects += effects
        seen = list(effects)
        answers: list[Event] = []
        for effect in effects:
            match effect:
                case Sync():
                    self.syncs.append(effect)
                case Store(path, generation, data):
                    self.disk.store(path, data)
                    answers.append(Stored(path, generation))
                case Scrub(path):
                    self.scrubbed.append(path)
                    read = self.disk.open(path).read
                    place = (effect.position, effect.end_position, effect.next_offset)
                    answers.append(Scrubbed(*look(read, *place, effect.epochs)))
                case Resume(work):
                    answers.append(Continue(work))
                case Send(_, _, correlation_id, MetadataFetchRequest() as request):
                    self._feed = (correlation_id, request.from_index)
                case Send(_, plane, correlation_id, BrokerHeartbeatRequest()):
                    body = BrokerHeartbeatResponse(ErrorCode.NONE, False, True)
                    answers.append(Answered(VOTER, plane, correlation_id, body))
                case Send(_, _, correlation_id, BrokerRegistrationRequest()):
                    self._registration = correlation_id
        if answers:
            seen += self.handle(*answers)
        return seen

    def sync(self) -> list[Effect]:
        """Complete every sync under way, also those that follow from it."""
        seen: list[Effect] = []
        while self.syncs:
            syncs, self.syncs = self.syncs, []
            for effect in syncs:
                self.disk.sync(effect.files, effect.directories)
            seen += self.handle(*(Synced(effect.token) for effect in syncs))
        return seen

    # -- metadata ----------------------------------------------------------------------------------

    def append(self, *records: Record) -> None:
        """Commit an entry of the metadata log; the node has not seen it yet."""
        self.entries.append(MetadataEntry(len(self.entries) + 1, 1, encode_entry(records)))

    def metadata_events(self) -> list[Event]:
        assert self._feed is not None
        correlation_id, from_index = self._feed
        body = MetadataFetchResponse(
            ErrorCode.NONE, VOTER, len(self.entries), tuple(self.entries[from_index - 1 :]), None
        )
        return [Answered(VOTER, Plane.CONTROLLER, correlation_id, body)]

    def metadata(self, *records: Record) -> list[Effect]:
        """Commit an entry and let the node apply all that is committed."""
        if records:
            self.append(*records)
        return self.handle(*self.metadata_events())

    def registration(self, node_id: int, incarnation: str = "first") -> list[Record]:
        """The records of a new incarnation, which is active at once."""
        index = self.epochs[node_id] = len(self.entries) + 1
        return [
            RegisterBroker(node_id, index, incarnation, f"disk{node_id}", "127.0.0.1", node_id),
            BrokerFenced(node_id, index, False),
        ]

    def start(self) -> None:
        """Recover, register, and apply the registration: the node serves."""
        self.sync()
        for node_id in (2, 3):
            self.append(*self.registration(node_id))
        self.metadata()
        self.register()
        self.metadata()

    def register(self) -> None:
        """Answer the registration; its entry is committed, and not yet told."""
        self.later(200)
        assert self._registration is not None, "the node has not asked to be registered"
        self.append(*self.registration(1, self.broker.lifecycle.incarnation))
        body = BrokerRegistrationResponse(ErrorCode.NONE, "", self.epochs[1])
        self.handle(Answered(VOTER, Plane.CONTROLLER, self._registration, body))

    def entries_of_topic(
        self,
        topic_id: str = TOPIC,
        leader: int = 1,
        *,
        replicas: tuple[int, ...] = (1, 2, 3),
        min_isr: int = 2,
        flush: str = "ack",
        partitions: int = 1,
        segment_bytes: int = 1_000_000,
    ) -> None:
        """Commit the entry of a new topic, all replicas in the ISR; the node has not seen it."""
        name = "t" + topic_id[0]
        self.append(
            TopicCreated(topic_id, name, min_isr, flush, segment_bytes, 100_000),
            *(
                PartitionCreated(topic_id, number, replicas, tuple(sorted(replicas)), leader)
                for number in range(partitions)
            ),
        )

    def create_topic(
        self,
        leader: int = 1,
        *,
        topic_id: str = TOPIC,
        replicas: tuple[int, ...] = (1, 2, 3),
        min_isr: int = 2,
        flush: str = "ack",
        partitions: int = 1,
        segment_bytes: int = 1_000_000,
    ) -> list[Effect]:
        self.entries_of_topic(
            topic_id,
            leader,
            replicas=replicas,
            min_isr=min_isr,
            flush=flush,
            partitions=partitions,
            segment_bytes=segment_bytes,
        )
        return self.metadata()

    def changed(
        self,
        leader: int | None = None,
        isr: tuple[int, ...] | None = None,
        *,
        topic_id: str = TOPIC,
        partition: int = 0,
    ) -> PartitionChanged:
        """The record of a change, its epochs counted on from the committed image."""
        now = self.core.image.topics[topic_id].partitions[partition]
        new_leader = now.leader if leader is None else leader
        return PartitionChanged(
            topic_id,
            partition,
            new_leader,
            now.leader_epoch + (new_leader != now.leader),
            now.partition_epoch + 1,
            now.isr if isr is None else isr,
            (),
        )

    def change(self, leader: int | None = None, isr: tuple[int, ...] | None = None) -> list[Effect]:
        return self.metadata(self.changed(leader, isr))

    # -- looking -----------------------------------------------------------------------------------

    def partition(self, number: int = 0, topic_id: str = TOPIC) -> Partition:
        return self.broker.replicas.partitions[topic_id, number]

    @property
    def ends(self) -> tuple[int, int, int]:
        """(log end, synced end, high watermark) of partition 0."""
        partition = self.partition()
        return partition.log.log_end_offset, partition.log.synced_end, partition.high_watermark

    def facts(self, kind: str) -> list[Fact]:
        return [e for e in self.effects if isinstance(e, Fact) and e.kind == kind]

    def sent(self, body_type: type, effects: Sequence[Effect] | None = None) -> list[Send]:
        seen = self.effects if effects is None else effects
        return [e for e in seen if isinstance(e, Send) and isinstance(e.body, body_type)]

    def replies(self, correlation_id: int) -> list[Reply]:
        return [
            e for e in self.effects if isinstance(e, Reply) and e.correlation_id == correlation_id
        ]

    def of(self, effect_type: type, effects: Sequence[Effect] | None = None) -> list[Effect]:
        seen = self.effects if effects is None else effects
        return [e for e in seen if isinstance(e, effect_type)]

    @property
    def halts(self) -> list[str]:
        return [e.reason for e in self.effects if isinstance(e, Halt)]

    @property
    def removed(self) -> list[str]:
        return [e.path for e in self.effects if isinstance(e, Remove)]

    @property
    def resets(self) -> int:
        """Connections to brokers that were replaced."""
        return len([e for e in self.effects if e == ResetLink(2, Plane.BROKER)])

    # -- clients -----------------------------------------------------------------------------------

    def next_correlation_id(self) -> int:
        self._correlation_id += 1
        return self._correlation_id

    def produce_event(
        self,
        data: Buffer,
        *,
        acks: int = ACKS_ALL,
        leader_epoch: int = -1,
        timeout_ms: int = 5_000,
        partition: int = 0,
        topic_id: str = TOPIC,
    ) -> Received:
        request = ProduceRequest(
            acks, timeout_ms, (ProducePart(topic_id, partition, leader_epoch),)
        )
        return Received(CLIENT, self.next_correlation_id(), request, (data,))

    def produce(
        self,
        data: Buffer | str,
        *,
        acks: int = ACKS_ALL,
        leader_epoch: int = -1,
        timeout_ms: int = 5_000,
        partition: int = 0,
        topic_id: str = TOPIC,
    ) -> int:
        """Produce in a turn of its own; the correlation id."""
        event = self.produce_event(
            batch(data) if isinstance(data, str) else data,
            acks=acks,
            leader_epoch=leader_epoch,
            timeout_ms=timeout_ms,
            partition=partition,
            topic_id=topic_id,
        )
        self.handle(event)
        return event.correlation_id

    def result(self, correlation_id: int) -> ProducePartResult | None:
        """The answer to a produce of one part; None while there is none."""
        replies = self.replies(correlation_id)
        assert len(replies) <= 1, "a request is answered once"
        if not replies:
            return None
        body = replies[0].body
        assert isinstance(body, ProduceResponse)
        return body.parts[0]

    def verdict(self, correlation_id: int) -> str:
        """The answer as "error appended", or "none"."""
        result = self.result(correlation_id)
        return f"{result.error.name} {result.appended.name}" if result else "none"

    # -- followers and consumers of this node ------------------------------------------------------

    def fetch_event(
        self,
        replica: int,
        offset: int,
        *,
        counted: int | None = None,
        leader_epoch: int | None = None,
        last_epoch: int | None = None,
        broker_epoch: int | None = None,
        fetch_round: int | None = None,
        wait_ms: int = 0,
        connection: Connection | None = None,
        isolation: Isolation = Isolation.READ_UNCOMMITTED,
        partition: int = 0,
        topic_id: str = TOPIC,
        max_bytes: int = 1_000_000,
    ) -> Received:
        """A fetch as `replica` (-1: a consumer) would send it, unless told otherwise."""
        is_consumer = replica == -1
        epoch_now = self.partition(partition, topic_id).leader_epoch
        key = (replica, self.epochs.get(replica, -1))
        if fetch_round is None:
            fetch_round = self._rounds[key] = self._rounds.get(key, 0) + 1
        if leader_epoch is None:
            leader_epoch = -1 if is_consumer else epoch_now
        if last_epoch is None:
            log = self.partition(partition, topic_id).log
            last_epoch = -1 if is_consumer or not offset else log.epochs.epoch_of(offset - 1)
        part = FetchPart(
            topic_id,
            partition,
            leader_epoch,
            last_epoch,
            offset,
            -1 if is_consumer else (offset if counted is None else counted),
            0,
            max_bytes,
        )
        request = FetchRequest(
            replica,
            key[1] if broker_epoch is None else broker_epoch,
            fetch_round,
            -1,
            wait_ms,
            1,
            max_bytes,
            isolation,
            (part,),
        )
        name = f"replica{replica}".encode()
        at = connection or Connection(Plane.BROKER, name)
        return Received(at, self.next_correlation_id(), request)

    def fetched(self, correlation_id: int) -> FetchPartResult | None:
        """The only part of the answer to a fetch; None if there is none (parked, or replaced)."""
        replies = self.replies(correlation_id)
        assert len(replies) <= 1, "a request is answered once"
        if not replies:
            return None
        body = replies[0].body
        assert isinstance(body, FetchResponse)
        return body.parts[0] if body.parts else None

    def follower_has(self, replica: int, offset: int, counted: int | None = None) -> int:
        """A fetch of a follower with this log end; the correlation id."""
        event = self.fetch_event(replica, offset, counted=counted)
        self.handle(event)
        return event.correlation_id

    # -- this node as a follower -------------------------------------------------------------------

    @property
    def last_round(self) -> tuple[int, FetchRequest]:
        """(correlation id, request) of the last round that was sent."""
        send = self.sent(FetchRequest)[-1]
        assert isinstance(send.body, FetchRequest)
        return send.correlation_id, send.body

    def release_round(self, leader: int) -> None:
        """A leader answers what it has parked of us, with nothing."""
        send = [send for send in self.sent(FetchRequest) if send.peer == leader][-1]
        assert isinstance(send.body, FetchRequest)
        body = FetchResponse(send.body.fetch_round, 0, ())
        self.handle(Answered(leader, Plane.BROKER, send.correlation_id, body))

    def answer_of(self, leader: int, correlation_id: int, body: FetchResponse) -> Answered:
        return Answered(leader, Plane.BROKER, correlation_id, body)

    def rounds_sent(self) -> int:
        return len(self.sent(FetchRequest))

    def answer_event(
        self,
        data: Buffer | None = None,
        *,
        leader: int = 2,
        high_watermark: int = 0,
        error: ErrorCode = ErrorCode.NONE,
        leader_epoch: int = 0,
        start: int = 0,
        end: int = 0,
        diverging: tuple[int, int] = (-1, -1),
        correlation_id: int | None = None,
        counter: int = 1,
    ) -> Answered:
        """The leader's answer to the last round, about partition 0."""
        result = FetchPartResult(
            TOPIC,
            0,
            error,
            leader,
            leader_epoch,
            high_watermark,
            start,
            end,
            diverging[0],
            diverging[1],
            data is not None,
        )
        last, request = self.last_round
        body = FetchResponse(request.fetch_round, counter, (result,))
        payload = () if data is None else (data,)
        answers = last if correlation_id is None else correlation_id
        return Answered(leader, Plane.BROKER, answers, body, payload)

    # -- the controller ----------------------------------------------------------------------------

    @property
    def last_alter(self) -> tuple[int, AlterPartitionRequest]:
        send = self.sent(AlterPartitionRequest)[-1]
        assert isinstance(send.body, AlterPartitionRequest)
        return send.correlation_id, send.body

    def alter_answer(
        self,
        error: ErrorCode = ErrorCode.NONE,
        *,
        leader_epoch: int = 0,
        partition_epoch: int = -1,
        isr: tuple[int, ...] = (),
        top: ErrorCode = ErrorCode.NONE,
    ) -> list[Effect]:
        """The controller's word on the last AlterPartition."""
        part = AlterPartitionPartResult(TOPIC, 0, error, 1, leader_epoch, partition_epoch, isr)
        body = AlterPartitionResponse(top, () if top is not ErrorCode.NONE else (part,))
        return self.handle(Answered(VOTER, Plane.CONTROLLER, self.last_alter[0], body))
