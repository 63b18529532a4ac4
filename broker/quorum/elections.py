"""ISR, ELR and leader of one partition after a change (KIP-966, KIP-841), as pure functions.

Every change of a partition, whoever asked for it, goes through `settle`; so the rules stand once:

* isr: a broker that is fenced leaves it, but the last member stays ("last one standing"): it alone
  is known to hold every committed record that the others may lack.
* elr (eligible leader replicas): while the isr is below min_insync_replicas the high watermark does
  not move, so whoever left the isr in that time still holds everything below it and may be elected
  when no isr member is alive. Emptied when the isr is large enough again.
* lost: a replica that may have lost records that were counted leaves isr and elr, also as the last.
* leader: kept while it is in the isr and active; else the first active isr member in the order of
  the replicas; else the first active elr member, which then is the isr; else none. (With
  unclean_leader_election_enable: else any active replica, which then is the isr.)
* leader_epoch grows by one when the leader changes (also to none) or has to forget what it knows
  of a replica (`without_damaged`), partition_epoch at each change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from broker.quorum.image import MetadataImage, PartitionImage, TopicImage
from broker.quorum.records import NO_LEADER, PartitionChanged


def settle(
    partition: PartitionImage,
    isr: tuple[int, ...],
    min_insync_replicas: int,
    is_active: Callable[[int], bool],
    lost: int | None = None,
    *,
    unclean: bool = False,
) -> PartitionImage:
    """`partition` with `isr` (sorted) wanted, after ELR and leader followed; itself if unchanged.

    `lost` is the one replica whose records no longer count; it is not in `isr`. `unclean`: any live
    replica may lead rather than none, and what it lacks is lost.
    """
    assert lost is None or lost not in isr, (partition, isr, lost)
    leader = _first_active(partition, isr, is_active)
    if leader == NO_LEADER:
        elr = _elr(partition, isr, min_insync_replicas, lost)
        leader = _first_active(partition, elr, is_active)
        if leader != NO_LEADER:
            isr = (leader,)
    elr = _elr(partition, isr, min_insync_replicas, lost)
    if leader == NO_LEADER and unclean:
        leader = _first_active(partition, partition.replicas, is_active)
        if leader != NO_LEADER:
            isr, elr = (leader,), ()
    if (leader, isr, elr) == (partition.leader, partition.isr, partition.elr):
        return partition
    return replace(
        partition,
        isr=isr,
        elr=elr,
        leader=leader,
        leader_epoch=partition.leader_epoch + (leader != partition.leader),
        partition_epoch=partition.partition_epoch + 1,
    )


def _settled(
    topic: TopicImage,
    partition: PartitionImage,
    isr: tuple[int, ...],
    is_active: Callable[[int], bool],
    lost: int | None = None,
) -> PartitionImage:
    config = topic.config
    unclean = config.unclean_leader_election_enable == "true"
    return settle(partition, isr, config.min_insync_replicas, is_active, lost, unclean=unclean)


def led_uncleanly(image: MetadataImage, topic: TopicImage) -> Iterator[PartitionChanged]:
    """Changes that give the topic's leaderless partitions any live replica as leader."""
    for number, partition in enumerate(topic.partitions):
        if partition.leader == NO_LEADER:
            after = _settled(topic, partition, partition.isr, image.is_active)
            if after is not partition:
                yield changed(topic.topic_id, number, after)


def _elr(
    partition: PartitionImage, isr: tuple[int, ...], min_insync_replicas: int, lost: int | None
) -> tuple[int, ...]:
    if len(isr) >= min_insync_replicas:
        return ()
    left = {*partition.elr, *partition.isr} - {*isr, lost}
    return tuple(node_id for node_id in sorted(partition.replicas) if node_id in left)


def _first_active(
    partition: PartitionImage, candidates: tuple[int, ...], is_active: Callable[[int], bool]
) -> int:
    if partition.leader in candidates and is_active(partition.leader):
        return partition.leader
    for node_id in partition.replicas:
        if node_id in candidates and is_active(node_id):
            return node_id
    return NO_LEADER


def without_broker(
    image: MetadataImage, gone: int, has_lost: Callable[[TopicImage, int], bool] | None = None
) -> Iterator[PartitionChanged]:
    """Changes that fence broker `gone` out of every partition.

    `has_lost(topic, partition)` tells where it may have lost records that were counted.
    """

    def is_active(node_id: int) -> bool:
        return node_id != gone and image.is_active(node_id)

    for topic, number, partition in image.all_partitions():
        if gone not in partition.isr and gone not in partition.elr:
            continue
        lost = gone if has_lost is not None and has_lost(topic, number) else None
        isr = tuple(node_id for node_id in partition.isr if node_id != gone)
        if not isr and lost is None:
            isr = partition.isr
        after = _settled(topic, partition, isr, is_active, lost)
        if after is not partition:
            yield changed(topic.topic_id, number, after)


def without_damaged(
    image: MetadataImage, node_id: int, damaged: Iterable[tuple[str, int, int]]
) -> Iterator[PartitionChanged]:
    """Changes that take out replicas whose log lost records it vouched for; the broker goes on.

    `damaged`: (topic id, partition, leader epoch in which it was found). The leader epoch grows
    even if the leader stays: all it knows of the replica, and any proposal of it that is under way,
    are of an older epoch then. While nobody else is active who holds all that is committed nothing
    changes: a log that lacks a batch is better than none.
    """

    def is_active(other: int) -> bool:
        return other != node_id and image.is_active(other)

    for topic_id, number, leader_epoch in damaged:
        partition = image.partition(topic_id, number)
        if partition is None or partition.leader_epoch != leader_epoch:
            continue
        members = (*partition.isr, *partition.elr)
        if node_id in members and not any(is_active(member) for member in members):
            continue
        isr = tuple(member for member in partition.isr if member != node_id)
        after = _settled(image.topics[topic_id], partition, isr, is_active, node_id)
        yield changed(
            topic_id,
            number,
            replace(
                after,
                leader_epoch=partition.leader_epoch + 1,
                partition_epoch=partition.partition_epoch + 1,
            ),
        )


def with_broker(image: MetadataImage, back: int) -> Iterator[PartitionChanged]:
    """Changes that give leaderless partitions a leader now that broker `back` is active again."""

    def is_active(node_id: int) -> bool:
        return node_id == back or image.is_active(node_id)

    for topic, number, partition in image.all_partitions():
        if partition.leader == NO_LEADER and back in partition.replicas:
            after = _settled(topic, partition, partition.isr, is_active)
            if after is not partition:
                yield changed(topic.topic_id, number, after)


def changed(topic_id: str, number: int, after: PartitionImage) -> PartitionChanged:
    """The record that says the outcome."""
    return PartitionChanged(
        topic_id,
        number,
        after.leader,
        after.leader_epoch,
        after.partition_epoch,
        after.isr,
        after.elr,
    )
