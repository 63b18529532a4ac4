"""What a client believes about the cluster, and why it never believes anything older.

Brokers answer from committed prefixes of the metadata log, each from its own, so answers of
different brokers may come in any order. An answer is taken per topic only if its metadata index is
not below the one taken before; a leader epoch never goes back for the same topic id, whatever else
the answer says (KAFKA-12257). A recreated topic has another id and starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    NO_LEADER,
    BrokerEndpoint,
    MetadataResponse,
    PartitionInfo,
    TopicInfo,
)


@dataclass(frozen=True, slots=True)
class Leader:
    node_id: int
    """NO_LEADER while there is none."""
    leader_epoch: int


@dataclass(slots=True)
class TopicState:
    """One topic, by the newest answer about it."""

    name: str
    topic_id: str
    metadata_index: int
    message_max_bytes: int
    info: TopicInfo
    leaders: list[Leader]
    """By partition. At least as new as `info`: produce and fetch answers teach leaders too."""

    @property
    def partition_count(self) -> int:
        return len(self.leaders)


class ClusterMetadata:
    """Brokers and topics as far as asked for."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.controller_id = -1
        self.brokers: dict[int, BrokerEndpoint] = {}
        self.topics: dict[str, TopicState] = {}
        self.errors: dict[str, ErrorCode] = {}
        """Why the last answer about a topic brought none; absent when it did."""
        self._brokers_index = -1
        self._gone_index: dict[str, int] = {}
        """The metadata index at which a topic was seen not to exist."""

    def apply(self, answer: MetadataResponse) -> bool:
        """Take what is new in an answer. False: it comes from another cluster, nothing is taken."""
        if self.cluster_id and answer.cluster_id != self.cluster_id:
            return False
        self.cluster_id = answer.cluster_id
        if answer.metadata_index >= self._brokers_index and answer.brokers:
            self._brokers_index = answer.metadata_index
            self.controller_id = answer.controller_id
            self.brokers = {broker.node_id: broker for broker in answer.brokers}
        for topic in answer.topics:
            self._apply_topic(topic, answer.metadata_index)
        return True

    def _apply_topic(self, topic: TopicInfo, metadata_index: int) -> None:
        known = self.topics.get(topic.name)
        newest = known.metadata_index if known else self._gone_index.get(topic.name, -1)
        if metadata_index < newest:
            return
        if topic.error is not ErrorCode.NONE:
            self.errors[topic.name] = topic.error
            if topic.error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                self._gone_index[topic.name] = metadata_index
                self.topics.pop(topic.name, None)
            return
        self.errors.pop(topic.name, None)
        self._gone_index.pop(topic.name, None)
        ordered = sorted(topic.partitions, key=lambda info: info.partition)
        leaders = [_leader_in(info) for info in ordered]
        if known is not None and known.topic_id == topic.topic_id:
            for partition, old in enumerate(known.leaders[: len(leaders)]):
                if old.leader_epoch > leaders[partition].leader_epoch:
                    leaders[partition] = old
        self.topics[topic.name] = TopicState(
            topic.name, topic.topic_id, metadata_index, topic.message_max_bytes, topic, leaders
        )

    def learn_leader(
        self, topic: str, topic_id: str, partition: int, node_id: int, leader_epoch: int
    ) -> bool:
        """Take a leader that an answer named with its epoch; False if it is no news."""
        state = self.topics.get(topic)
        if state is None or state.topic_id != topic_id or partition >= len(state.leaders):
            return False
        if node_id not in self.brokers or leader_epoch <= state.leaders[partition].leader_epoch:
            return False
        state.leaders[partition] = Leader(node_id, leader_epoch)
        return True

    def leader(self, topic: str, partition: int) -> Leader | None:
        """The leader, with node id NO_LEADER while there is none; None for what is not known."""
        state = self.topics.get(topic)
        if state is None or not 0 <= partition < len(state.leaders):
            return None
        return state.leaders[partition]

    def address(self, node_id: int) -> str | None:
        """Where a node listens, by its registration."""
        endpoint = self.brokers.get(node_id)
        return f"{endpoint.host}:{endpoint.port}" if endpoint else None


def _leader_in(info: PartitionInfo) -> Leader:
    node_id = info.leader_id if info.leader_id >= 0 else NO_LEADER
    return Leader(node_id, info.leader_epoch)
