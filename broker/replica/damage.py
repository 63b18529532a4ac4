"""Replicas whose log, while it is in use, turns out not to hold what it vouched for.

Such a replica may not simply begin anew: others count on it, and a leader that has counted it may
be about to take it back into the ISR. So the controller is told, with the leader epoch in which it
was found, and takes it out under the next one. At the very image that says so the replica empties
its log, before it asks for anything in that epoch: a leader of it has never counted the old one.
"""

from __future__ import annotations

from broker.log.errors import CorruptFile
from broker.quorum.image import PartitionImage
from broker.replica.partition import Partition, PartitionKey, PartitionRole
from broker.wire.messages import DamagedReplica


class Damages:
    """What was found and is not yet mended."""

    def __init__(self) -> None:
        self._epochs: dict[PartitionKey, int] = {}
        """The leader epoch in which each was found, or last looked at."""

    def __contains__(self, key: PartitionKey) -> bool:
        return key in self._epochs

    def find(self, partition: Partition, error: CorruptFile) -> None:
        if partition.key not in self._epochs:
            self._epochs[partition.key] = partition.leader_epoch
            partition.tell_damage(error)

    def forget(self, key: PartitionKey) -> None:
        self._epochs.pop(key, None)

    def reports(self) -> tuple[DamagedReplica, ...]:
        """For the controller, until it has acted."""
        return tuple(DamagedReplica(*key, epoch) for key, epoch in self._epochs.items())

    def on_image(self, partition: Partition, assigned: PartitionImage) -> None:
        """The image of a partition was applied: begin anew if nobody counts on it any more."""
        found_in = self._epochs.get(partition.key)
        if found_in is None or partition.leader_epoch <= found_in:
            return
        is_out = partition.node_id not in (*assigned.isr, *assigned.elr)
        if is_out and partition.role is PartitionRole.FOLLOWER:
            self.forget(partition.key)
            partition.begin_anew()
        elif not is_out:
            self._epochs[partition.key] = partition.leader_epoch
