"""METADATA: a broker's own committed image, told to clients. It never goes back (G7)."""

from __future__ import annotations

from broker.config import topic_settings
from broker.quorum.image import MetadataImage, TopicImage
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    BrokerEndpoint,
    MetadataRequest,
    MetadataResponse,
    PartitionInfo,
    Setting,
    TopicInfo,
)


def describe(
    request: MetadataRequest, image: MetadataImage, cluster_id: str, controller_id: int
) -> MetadataResponse:
    """The answer to `request` from `image`; unknown topics carry an error of their own."""
    names = request.topics if request.topics is not None else tuple(sorted(image.ids_by_name))
    return MetadataResponse(
        cluster_id=cluster_id,
        metadata_index=image.index,
        controller_id=controller_id,
        brokers=tuple(
            BrokerEndpoint(
                broker.node_id, broker.host, broker.port, broker.broker_epoch, broker.fenced
            )
            for _, broker in sorted(image.brokers.items())
        ),
        topics=tuple(_describe_topic(name, image) for name in names),
    )


def _describe_topic(name: str, image: MetadataImage) -> TopicInfo:
    topic_id = image.ids_by_name.get(name)
    if topic_id is None:
        return TopicInfo(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name, "", 0, "", 0, (), ())
    topic: TopicImage = image.topics[topic_id]
    return TopicInfo(
        ErrorCode.NONE,
        name,
        topic_id,
        topic.config.min_insync_replicas,
        topic.config.flush,
        topic.config.message_max_bytes,
        tuple(Setting(*item) for item in topic_settings(topic.config)),
        tuple(
            PartitionInfo(
                number,
                partition.leader,
                partition.leader_epoch,
                partition.partition_epoch,
                partition.replicas,
                partition.isr,
            )
            for number, partition in enumerate(topic.partitions)
        ),
    )
