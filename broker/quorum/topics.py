"""Topics made and changed: what a request must satisfy, what is filled in, which records it gives.

Pure; a refused request raises ApiError with the code and a sentence that says what to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from broker.config import (
    NodeConfig,
    TopicConfig,
    may_lose_committed,
    topic_config,
    topic_settings,
)
from broker.quorum.elections import changed, led_uncleanly
from broker.quorum.image import MetadataImage, TopicImage
from broker.quorum.placement import stripe
from broker.quorum.records import PartitionCreated, Record, TopicConfigured, TopicCreated
from broker.wire.errors import ApiError, ErrorCode
from broker.wire.messages import AlterTopicRequest, CreatePartitionsRequest, CreateTopicRequest

PARTITIONS_MAX = 10_000
"""Of one topic: bounds the size of its one metadata entry."""
TOLD_AT_CREATION = ("min_insync_replicas", "flush", "segment_bytes", "message_max_bytes")
DEFAULT_PARTITION_COUNT = 1
DEFAULT_REPLICATION_FACTOR_MAX = 3
TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,200}")

Assignments = tuple[tuple[int, ...], ...]
Draw = Callable[[str, int, int], int]
"""draw(label, low, high): an integer of [low, high], both included."""


def create_topic(
    image: MetadataImage, request: CreateTopicRequest, config: NodeConfig, draw: Draw, index: int
) -> tuple[str, tuple[Record, ...]]:
    """Topic id and records of the entry `index` that creates the topic. Raises ApiError."""
    check_name(request.name)
    if request.name in image.ids_by_name:
        raise ApiError(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {request.name} exists")
    if request.assignments:
        assignments = _given(image, request)
    else:
        assignments = _placed(image, request, draw)
    settings = _settings(request, config, replication_factor=len(assignments[0]))
    # The index makes an id that no topic before or after has; the drawn half tells clusters apart.
    topic_id = f"{draw('topic_id', 0, 2**64 - 1):016x}{index:016x}"
    records: list[Record] = [
        TopicCreated(
            topic_id,
            request.name,
            settings.min_insync_replicas,
            settings.flush,
            settings.segment_bytes,
            settings.message_max_bytes,
        )
    ]
    records += [
        record
        for record in _configured(topic_id, TopicConfig(), settings)
        if record.name not in TOLD_AT_CREATION
    ]
    for partition, replicas in enumerate(assignments):
        records.append(_partition_created(image, topic_id, partition, replicas))
    return topic_id, tuple(records)


def _configured(topic_id: str, before: TopicConfig, after: TopicConfig) -> list[TopicConfigured]:
    """What tells a change of settings."""
    return [
        TopicConfigured(topic_id, name, value)
        for (name, value), (_, old) in zip(
            topic_settings(after), topic_settings(before), strict=True
        )
        if value != old
    ]


def alter_topic(image: MetadataImage, request: AlterTopicRequest) -> tuple[Record, ...]:
    """Records of the entry that changes settings; none if all are so already. Raises ApiError.

    A new min_insync_replicas moves each partition's epoch on and empties its ELR: what was eligible
    was so by the old one, and (leader epoch, partition epoch) names the value used.
    """
    topic = _known(image, request.name)
    settings = tuple((item.name, item.value) for item in request.settings)
    if not settings:
        raise ApiError(ErrorCode.INVALID_CONFIG, "no setting is named")
    after = topic_config(topic.config, settings)
    if after.flush != topic.config.flush:
        detail = "flush stays as it is for the life of a topic: it says what its replicas vouch for"
        raise ApiError(ErrorCode.INVALID_CONFIG, detail)
    _check_min_isr(after, len(topic.partitions[0].replicas))
    _check_unclean(topic, after)
    records: list[Record] = [*_configured(topic.topic_id, topic.config, after)]
    if after.min_insync_replicas != topic.config.min_insync_replicas:
        for number, partition in enumerate(topic.partitions):
            epoch = partition.partition_epoch + 1
            changed_partition = replace(partition, elr=(), partition_epoch=epoch)
            records.append(changed(topic.topic_id, number, changed_partition))
    else:
        records += led_uncleanly(image, replace(topic, config=after))
    return tuple(records)


def _check_unclean(topic: TopicImage, after: TopicConfig) -> None:
    """Who must cut what it knows as committed may do so only while the topic allows it."""
    is_switched_off = after.unclean_leader_election_enable != (
        topic.config.unclean_leader_election_enable
    ) and not may_lose_committed(after)
    if is_switched_off and any(len(one.isr) < len(one.replicas) for one in topic.partitions):
        detail = "unclean_leader_election_enable=false: wait until all replicas are in sync"
        raise ApiError(ErrorCode.INVALID_CONFIG, detail)


def create_partitions(
    image: MetadataImage, request: CreatePartitionsRequest, draw: Draw
) -> tuple[Record, ...]:
    """Records of the entry that gives a topic more partitions. Raises ApiError."""
    topic = _known(image, request.name)
    present, wanted = len(topic.partitions), request.partition_count
    if not present < wanted <= PARTITIONS_MAX:
        raise ApiError(
            ErrorCode.INVALID_PARTITIONS,
            f"{topic.name} has {present} partitions: take more, up to {PARTITIONS_MAX}",
        )
    factor = len(topic.partitions[0].replicas)
    if request.assignments:
        if len(request.assignments) != wanted - present:
            raise ApiError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"{wanted - present} new partitions, but {len(request.assignments)} are assigned",
            )
        assignments = request.assignments
        _check_replicas(image, assignments, factor, present)
    else:
        assignments = _striped(image, wanted - present, factor, draw)
    return tuple(
        _partition_created(image, topic.topic_id, number, replicas)
        for number, replicas in enumerate(assignments, start=present)
    )


def _known(image: MetadataImage, name: str) -> TopicImage:
    topic = image.topic_named(name)
    if topic is None:
        detail = f"there is no topic {name[:200]}"
        raise ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, detail)
    return topic


def _partition_created(
    image: MetadataImage, topic_id: str, number: int, replicas: tuple[int, ...]
) -> PartitionCreated:
    live = tuple(node_id for node_id in replicas if image.is_active(node_id))
    return PartitionCreated(topic_id, number, replicas, tuple(sorted(live)), leader=live[0])


def check_name(name: str) -> None:
    """A topic name becomes part of a directory's name. Raises ApiError."""
    if TOPIC_NAME.fullmatch(name) is None or name in (".", ".."):
        raise ApiError(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"{name[:40]!r}: take 1 to 200 of a-z A-Z 0-9 . _ - (but not . or ..)",
        )


def _settings(
    request: CreateTopicRequest, config: NodeConfig, replication_factor: int
) -> TopicConfig:
    defaults = TopicConfig(
        min_insync_replicas=max(1, replication_factor - 1),
        segment_bytes=config.log_segment_bytes,
        message_max_bytes=config.message_max_bytes,
    )
    settings = topic_config(defaults, tuple((item.name, item.value) for item in request.settings))
    _check_min_isr(settings, replication_factor)
    return settings


def _check_min_isr(settings: TopicConfig, replication_factor: int) -> None:
    if settings.min_insync_replicas > replication_factor:
        raise ApiError(
            ErrorCode.INVALID_CONFIG,
            f"min_insync_replicas={settings.min_insync_replicas} is above the replication factor "
            f"{replication_factor}: nothing could be written with acks=all",
        )


def _placed(image: MetadataImage, request: CreateTopicRequest, draw: Draw) -> Assignments:
    count, factor = request.partition_count, request.replication_factor
    if count == -1:
        count = DEFAULT_PARTITION_COUNT
    if factor == -1:
        factor = min(DEFAULT_REPLICATION_FACTOR_MAX, max(1, len(image.active_brokers())))
    if not 1 <= count <= PARTITIONS_MAX:
        raise ApiError(
            ErrorCode.INVALID_PARTITIONS, f"{count} partitions: take 1 to {PARTITIONS_MAX}"
        )
    if factor < 1:
        raise ApiError(
            ErrorCode.INVALID_REPLICATION_FACTOR, f"replication factor {factor}: take 1 or more"
        )
    return _striped(image, count, factor, draw)


def _striped(image: MetadataImage, count: int, factor: int, draw: Draw) -> Assignments:
    brokers = image.active_brokers()
    if factor > len(brokers):
        raise ApiError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"replication factor {factor}, but only {len(brokers)} brokers are live",
        )
    return stripe(brokers, count, factor, draw("placement", 0, len(brokers) - 1))


def _given(image: MetadataImage, request: CreateTopicRequest) -> Assignments:
    assignments = request.assignments
    if len(assignments) > PARTITIONS_MAX:
        raise ApiError(
            ErrorCode.INVALID_PARTITIONS,
            f"{len(assignments)} partitions: take 1 to {PARTITIONS_MAX}",
        )
    if request.partition_count not in (-1, len(assignments)):
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            f"partition_count is {request.partition_count}, "
            f"but {len(assignments)} partitions are assigned",
        )
    _check_replicas(image, assignments, len(assignments[0]), 0)
    if request.replication_factor not in (-1, len(assignments[0])):
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            f"replication_factor is {request.replication_factor}, "
            f"but {len(assignments[0])} replicas are assigned",
        )
    return assignments


def _check_replicas(
    image: MetadataImage, assignments: Assignments, factor: int, first_partition: int
) -> None:
    for partition, replicas in enumerate(assignments, start=first_partition):
        wrong = _wrong_replicas(image, factor, replicas)
        if wrong:
            raise ApiError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"partition {partition}: {wrong}")


def _wrong_replicas(image: MetadataImage, factor: int, replicas: tuple[int, ...]) -> str:
    if not replicas:
        return "no replicas"
    if len(replicas) != factor:
        return "another number of replicas than partition 0"
    if len(set(replicas)) != len(replicas):
        return f"replicas {list(replicas)} name a broker twice"
    unknown = [node_id for node_id in replicas if node_id not in image.brokers]
    if unknown:
        return f"brokers {unknown} are not registered"
    if not any(image.is_active(node_id) for node_id in replicas):
        return f"none of the brokers {list(replicas)} is live, so none can lead"
    return ""
