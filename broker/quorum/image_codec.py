"""The committed image as bytes: what a snapshot of the metadata log holds.

A version byte and the msgpack array of next producer id, brokers and topics, each as rows in the
order of the image: two nodes with the same image make the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker.config import TopicConfig
from broker.quorum.image import BrokerImage, MetadataImage, PartitionImage, TopicImage
from broker.quorum.records import MetadataFormatError
from broker.quorum.rows import RowError, from_row, pack, to_row, unpack
from raft.types import Snapshot

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Topic:
    topic_id: str
    name: str


def snapshot_of(image: MetadataImage) -> Snapshot:
    body = (
        image.next_producer_id,
        tuple(to_row(broker) for broker in image.brokers.values()),
        tuple(
            (
                to_row(_Topic(topic.topic_id, topic.name)),
                to_row(topic.config),
                tuple(to_row(partition) for partition in topic.partitions),
            )
            for topic in image.topics.values()
        ),
    )
    return Snapshot(image.index, image.term, bytes((FORMAT_VERSION,)) + pack(body))


def image_of(snapshot: Snapshot) -> MetadataImage:
    """The image that `snapshot_of` was given. MetadataFormatError for bytes that are none."""
    if snapshot.data[:1] != bytes((FORMAT_VERSION,)):
        raise MetadataFormatError(
            f"snapshot of version {snapshot.data[:1].hex() or 'none'}, this program knows "
            f"{FORMAT_VERSION}"
        )
    try:
        body: Any = unpack(snapshot.data[1:])
        next_producer_id, broker_rows, topic_rows = body
        brokers = [from_row(BrokerImage, row) for row in broker_rows]
        topics = [_topic(row) for row in topic_rows]
    except (RowError, ValueError, TypeError) as error:
        raise MetadataFormatError(f"not a snapshot of metadata: {error}") from error
    return MetadataImage(
        snapshot.index,
        snapshot.term,
        {broker.node_id: broker for broker in brokers},
        {topic.topic_id: topic for topic in topics},
        {topic.name: topic.topic_id for topic in topics},
        next_producer_id,
    )


def _topic(row: Any) -> TopicImage:
    named, config, partitions = row
    topic = from_row(_Topic, named)
    return TopicImage(
        topic.topic_id,
        topic.name,
        from_row(TopicConfig, config),
        tuple(from_row(PartitionImage, partition) for partition in partitions),
    )
