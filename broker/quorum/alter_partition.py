"""AlterPartition: a leader's proposal of a new ISR, as compare-and-set on epochs.

As KIP-497, KIP-841 and KIP-903 say. Pure. The order of the checks is Kafka's and matters: each
answer tells the leader something else. An epoch that is *newer* than ours proves that we are a
deposed controller, which must not judge.
"""

from __future__ import annotations

from dataclasses import replace

from broker.quorum.elections import changed, settle
from broker.quorum.image import MetadataImage, PartitionImage
from broker.quorum.records import PartitionChanged
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AlterPartitionPart,
    AlterPartitionPartResult,
    AlterPartitionRequest,
)


def alter_partitions(
    image: MetadataImage, request: AlterPartitionRequest
) -> tuple[tuple[PartitionChanged, ...], tuple[AlterPartitionPartResult, ...]]:
    """Records for what is accepted, a result for each part. The sender's epoch is checked already.

    A success carries the partition's state after the change; an error carries -1 and no ISR.
    INELIGIBLE_REPLICA moves the partition epoch on: an earlier copy of the proposal that is still
    under way can then never be accepted, even when the member has become eligible, and the leader
    may forget it as soon as it sees the new epoch.
    """
    records: list[PartitionChanged] = []
    results: list[AlterPartitionPartResult] = []
    altered: dict[tuple[str, int], PartitionImage] = {}
    for part in request.parts:
        name = (part.topic_id, part.partition)
        partition = altered.get(name) or image.partition(*name)
        error = _judge(image, partition, request.node_id, part)
        if error is ErrorCode.INELIGIBLE_REPLICA and partition is not None:
            altered[name] = replace(partition, partition_epoch=partition.partition_epoch + 1)
            records.append(changed(*name, altered[name]))
        if error is not ErrorCode.NONE:
            results.append(AlterPartitionPartResult(*name, error, -1, -1, -1, ()))
            continue
        assert partition is not None
        isr = tuple(sorted(member.node_id for member in part.isr))
        min_insync_replicas = image.topics[part.topic_id].config.min_insync_replicas
        after = settle(partition, isr, min_insync_replicas, image.is_active)
        assert after.leader == partition.leader, (partition, after)
        if after is not partition:
            altered[name] = after
            records.append(changed(*name, after))
        results.append(
            AlterPartitionPartResult(
                *name, error, after.leader, after.leader_epoch, after.partition_epoch, after.isr
            )
        )
    return tuple(records), tuple(results)


def _judge(
    image: MetadataImage, partition: PartitionImage | None, sender: int, part: AlterPartitionPart
) -> ErrorCode:
    if part.topic_id not in image.topics:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if (
        part.leader_epoch > partition.leader_epoch
        or part.partition_epoch > partition.partition_epoch
    ):
        return ErrorCode.NOT_CONTROLLER
    if part.leader_epoch < partition.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    if sender != partition.leader:
        return ErrorCode.INVALID_REQUEST
    if part.partition_epoch < partition.partition_epoch:
        return ErrorCode.INVALID_UPDATE_VERSION
    members = [member.node_id for member in part.isr]
    if (
        len(set(members)) != len(members)
        or not set(members) <= set(partition.replicas)
        or partition.leader not in members
    ):
        return ErrorCode.INVALID_REQUEST
    for member in part.isr:
        # A member proposed in an earlier life may have come back with an empty disk.
        if not image.is_active(member.node_id):
            return ErrorCode.INELIGIBLE_REPLICA
        if image.brokers[member.node_id].broker_epoch != member.broker_epoch:
            return ErrorCode.INELIGIBLE_REPLICA
    return ErrorCode.NONE
