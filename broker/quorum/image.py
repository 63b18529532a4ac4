"""The metadata image: what is true after the first N entries of the metadata log.

Immutable; `apply_entry` gives the next image and what changed. Applying is deterministic and total
on what a controller may write: a record that breaks a rule below is an impossible state (assert).

Invariants of a partition, kept by the controller and checked here on each change:
isr and elr are sorted, disjoint parts of replicas; the leader is in the isr; elr is empty while the
isr has min_insync_replicas members; the partition epoch grows by one with each change, the leader
epoch by one when the leader changes, or has to forget what it knows of a replica.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from broker.config import TopicConfig, topic_config
from broker.quorum.records import (
    NO_LEADER,
    BrokerFenced,
    PartitionChanged,
    PartitionCreated,
    ProducerIdsAllocated,
    Record,
    RegisterBroker,
    TopicConfigured,
    TopicCreated,
    TopicDeleted,
)

FORMER_INCARNATIONS_MAX = 8


@dataclass(frozen=True, slots=True)
class BrokerImage:
    node_id: int
    broker_epoch: int
    incarnation: str
    disk_id: str
    host: str
    port: int
    fenced: bool
    former_incarnations: tuple[str, ...] = ()
    """The last few that this one and its predecessors replaced, newest last: none comes back."""


@dataclass(frozen=True, slots=True)
class PartitionImage:
    """`replicas` in order of preference; `isr`, `elr` sorted; `leader` NO_LEADER (-1) if none."""

    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    leader: int
    leader_epoch: int
    partition_epoch: int


@dataclass(frozen=True, slots=True)
class TopicImage:
    topic_id: str
    name: str
    config: TopicConfig
    partitions: tuple[PartitionImage, ...]


@dataclass(frozen=True, slots=True)
class MetadataDelta:
    """What one entry changed, in the order in which the entry says it, each name once.

    `partitions_changed` lists created partitions too, but none of a topic that the entry deletes.
    """

    topics_created: tuple[str, ...] = ()
    topics_deleted: tuple[str, ...] = ()
    partitions_changed: tuple[tuple[str, int], ...] = ()
    brokers_changed: tuple[int, ...] = ()
    topics_configured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetadataImage:
    """`index` and `term` are those of the last entry applied; 0 before the first."""

    index: int = 0
    term: int = 0
    brokers: Mapping[int, BrokerImage] = field(default_factory=dict)
    topics: Mapping[str, TopicImage] = field(default_factory=dict)
    ids_by_name: Mapping[str, str] = field(default_factory=dict)
    next_producer_id: int = 0

    def partition(self, topic_id: str, partition: int) -> PartitionImage | None:
        topic = self.topics.get(topic_id)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def topic_named(self, name: str) -> TopicImage | None:
        topic_id = self.ids_by_name.get(name)
        return None if topic_id is None else self.topics[topic_id]

    def is_active(self, node_id: int) -> bool:
        """Registered and not fenced: may lead and may be in an ISR."""
        broker = self.brokers.get(node_id)
        return broker is not None and not broker.fenced

    def active_brokers(self) -> tuple[int, ...]:
        return tuple(sorted(node_id for node_id in self.brokers if self.is_active(node_id)))

    def all_partitions(self) -> Iterator[tuple[TopicImage, int, PartitionImage]]:
        """Every partition with its topic and number, in the order of creation."""
        for topic in self.topics.values():
            for number, partition in enumerate(topic.partitions):
                yield topic, number, partition

    def apply_entry(
        self, index: int, term: int, records: Sequence[Record]
    ) -> tuple[MetadataImage, MetadataDelta]:
        """The image after the entry (index, term), and what it changed. Entries come in order."""
        assert index > self.index, f"entry {index} applied to an image of index {self.index}"
        assert term >= self.term, f"term {term} after term {self.term}"
        draft = _Draft(self)
        for record in records:
            draft.apply(record)
        return draft.finish(self, index, term)


class _Draft:
    """Mutable copies for one entry: each map is copied at most once, topics are rebuilt at the end.

    Copying maps costs O(topics) an entry, which at thousands of topics is still microseconds.
    """

    def __init__(self, image: MetadataImage) -> None:
        self.brokers = dict(image.brokers)
        self.topics = dict(image.topics)
        self.ids_by_name = dict(image.ids_by_name)
        self.next_producer_id = image.next_producer_id
        self.partitions: dict[str, list[PartitionImage]] = {}
        # Dicts serve as ordered sets.
        self.topics_created: dict[str, None] = {}
        self.topics_deleted: dict[str, None] = {}
        self.partitions_changed: dict[tuple[str, int], None] = {}
        self.brokers_changed: dict[int, None] = {}
        self.topics_configured: dict[str, None] = {}

    def apply(self, record: Record) -> None:
        match record:
            case RegisterBroker():
                self._register(record)
            case BrokerFenced():
                self._fence(record)
            case TopicCreated():
                self._create_topic(record)
            case TopicConfigured():
                self._configure(record)
            case TopicDeleted():
                self._delete_topic(record)
            case PartitionCreated():
                self._create_partition(record)
            case PartitionChanged():
                self._change_partition(record)
            case ProducerIdsAllocated():
                assert record.next_producer_id > self.next_producer_id, record
                self.next_producer_id = record.next_producer_id

    def _register(self, record: RegisterBroker) -> None:
        old = self.brokers.get(record.node_id)
        assert old is None or record.broker_epoch > old.broker_epoch, (old, record)
        former = () if old is None else (*old.former_incarnations, old.incarnation)
        self.brokers[record.node_id] = BrokerImage(
            record.node_id,
            record.broker_epoch,
            record.incarnation,
            record.disk_id,
            record.host,
            record.port,
            fenced=True,
            former_incarnations=former[-FORMER_INCARNATIONS_MAX:],
        )
        self.brokers_changed[record.node_id] = None

    def _fence(self, record: BrokerFenced) -> None:
        old = self.brokers[record.node_id]
        assert record.broker_epoch == old.broker_epoch, (old, record)
        self.brokers[record.node_id] = replace(old, fenced=record.fenced)
        self.brokers_changed[record.node_id] = None

    def _create_topic(self, record: TopicCreated) -> None:
        assert record.topic_id not in self.topics, record
        assert record.name not in self.ids_by_name, record
        config = TopicConfig(
            min_insync_replicas=record.min_insync_replicas,
            flush=record.flush,
            segment_bytes=record.segment_bytes,
            message_max_bytes=record.message_max_bytes,
        )
        self.topics[record.topic_id] = TopicImage(record.topic_id, record.name, config, ())
        self.ids_by_name[record.name] = record.topic_id
        self.topics_created[record.topic_id] = None

    def _configure(self, record: TopicConfigured) -> None:
        topic = self.topics[record.topic_id]
        config = topic_config(topic.config, ((record.name, record.value),))
        self.topics[record.topic_id] = replace(topic, config=config)
        self.topics_configured[record.topic_id] = None

    def _delete_topic(self, record: TopicDeleted) -> None:
        topic = self.topics.pop(record.topic_id)
        del self.ids_by_name[topic.name]
        self.partitions.pop(record.topic_id, None)
        self.topics_deleted[record.topic_id] = None
        self.topics_configured.pop(record.topic_id, None)
        for name in [name for name in self.partitions_changed if name[0] == record.topic_id]:
            del self.partitions_changed[name]

    def _partitions_of(self, topic_id: str) -> list[PartitionImage]:
        if topic_id not in self.partitions:
            self.partitions[topic_id] = list(self.topics[topic_id].partitions)
        return self.partitions[topic_id]

    def _create_partition(self, record: PartitionCreated) -> None:
        partitions = self._partitions_of(record.topic_id)
        assert record.partition == len(partitions), record
        created = PartitionImage(
            record.replicas,
            record.isr,
            (),
            record.leader,
            record.leader_epoch,
            record.partition_epoch,
        )
        _check(created, self.topics[record.topic_id].config)
        partitions.append(created)
        self.partitions_changed[record.topic_id, record.partition] = None

    def _change_partition(self, record: PartitionChanged) -> None:
        partitions = self._partitions_of(record.topic_id)
        old = partitions[record.partition]
        changed = PartitionImage(
            old.replicas,
            record.isr,
            record.elr,
            record.leader,
            record.leader_epoch,
            record.partition_epoch,
        )
        assert changed.partition_epoch == old.partition_epoch + 1, (old, record)
        moved = int(changed.leader != old.leader)
        assert old.leader_epoch + moved <= changed.leader_epoch <= old.leader_epoch + 1, (
            old,
            record,
        )
        _check(changed, self.topics[record.topic_id].config)
        partitions[record.partition] = changed
        self.partitions_changed[record.topic_id, record.partition] = None

    def finish(
        self, before: MetadataImage, index: int, term: int
    ) -> tuple[MetadataImage, MetadataDelta]:
        for topic_id, partitions in self.partitions.items():
            self.topics[topic_id] = replace(self.topics[topic_id], partitions=tuple(partitions))
        unchanged_topics = not (
            self.topics_created
            or self.topics_deleted
            or self.partitions_changed
            or self.topics_configured
        )
        image = MetadataImage(
            index,
            term,
            self.brokers if self.brokers_changed else before.brokers,
            before.topics if unchanged_topics else self.topics,
            before.ids_by_name if unchanged_topics else self.ids_by_name,
            self.next_producer_id,
        )
        delta = MetadataDelta(
            tuple(self.topics_created),
            tuple(self.topics_deleted),
            tuple(self.partitions_changed),
            tuple(self.brokers_changed),
            tuple(self.topics_configured),
        )
        return image, delta


def difference(before: MetadataImage, after: MetadataImage) -> MetadataDelta:
    """What entries between the two have changed, however many: for who was given a snapshot."""
    deleted = tuple(topic_id for topic_id in before.topics if topic_id not in after.topics)
    created = tuple(topic_id for topic_id in after.topics if topic_id not in before.topics)
    changed = tuple(
        (topic.topic_id, number)
        for topic, number, partition in after.all_partitions()
        if partition != before.partition(topic.topic_id, number)
    )
    brokers = tuple(
        node_id
        for node_id, broker in after.brokers.items()
        if broker != before.brokers.get(node_id)
    )
    configured = tuple(
        topic_id
        for topic_id, topic in after.topics.items()
        if topic_id in before.topics and topic.config != before.topics[topic_id].config
    )
    return MetadataDelta(created, deleted, changed, brokers, configured)


def _check(partition: PartitionImage, config: TopicConfig) -> None:
    isr, elr = partition.isr, partition.elr
    assert isr == tuple(sorted(set(isr))), partition
    assert elr == tuple(sorted(set(elr))), partition
    assert set(isr) <= set(partition.replicas), partition
    assert set(elr) <= set(partition.replicas) - set(isr), partition
    assert partition.leader == NO_LEADER or partition.leader in isr, partition
    assert not elr or len(isr) < config.min_insync_replicas, partition
