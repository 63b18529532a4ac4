"""What must hold at every step, not only at the end (protocol.md 9).

After each turn of a node the partitions that moved in it are looked at; every 500 steps, and at the
end, all of them. Nothing here trusts what a broker believes of its disk: ends are read from the
bytes (`batches`).

    one-leader       one broker acts as leader of a partition in a leader epoch
    log-matching     equal (leader epoch, offset) means equal bytes, on all replicas, for ever
    acked-durable    whatever was acked is on the disk of every member of the committed ISR and ELR
                     that has not lost its disk since it registered, and there is such a member
    watermark        a leader's high watermark is on the disk of each such member of its maximal ISR
    maximal-isr      a leader's maximal ISR has every member that the controller counts on
    false-refusal    no batch is refused as out of order, or its producer as unknown, while the
                     leader's log holds the producer's preceding sequence, unless it was silent so
                     long that it was forgotten
    failed-disk      a broker whose disk failed leads nothing, follows nobody and acks nothing more
    raft: …          figure 3 of the paper, by `raft.invariants`
    raft-memory      a voter comes back with every term, vote and entry that it vouched for
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.events import Fact
from broker.log.log_manager import directory_of
from broker.log.producer_state import BATCHES_KEPT, SEQUENCE_COUNT, last_sequence_of
from broker.quorum.image import MetadataImage, PartitionImage, TopicImage
from broker.replica.partition import Partition, PartitionRole
from broker.wire.batch_header import BatchHeader
from chaos.sim.batches import BatchReader
from chaos.sim.cluster import SimCluster, Watcher
from chaos.sim.node import SimNode
from client.retry import GAP_ERRORS
from raft import invariants as raft_invariants

FULL_CHECK_STEPS = 500
INVARIANTS = (
    "one-leader",
    "log-matching",
    "acked-durable",
    "watermark",
    "maximal-isr",
    "false-refusal",
    "failed-disk",
    "raft",
    "raft-memory",
    "assertion",
    "halt",
)
"""Names of violations that are no anomalies of the checkers: the invariants above, and a process
that gave up by an assertion of its own or without a failing disk."""
CLAIMS = ("BecameLeader", "BecameFollower", "Appended", "HwAdvanced", "Truncated", "Acked")
"""What only a broker may say whose disk it trusts."""
GAP_ERROR_NAMES = frozenset(error.name for error in GAP_ERRORS)
PartitionKey = tuple[str, int]


@dataclass(slots=True)
class _Vouched:
    """What a voter has on disk by its own word, while it lived."""

    incarnation: int
    term: int
    voted_for: int | None
    log: raft_invariants.LogView


class Invariants(Watcher):
    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._steps = 0
        self._image = MetadataImage()
        """The newest that any node has ever applied: what it says is committed, even if all who
        knew it are down."""
        self._leaders: dict[tuple[str, int, int], int] = {}
        self._acked: dict[PartitionKey, int] = {}
        """End of what was acknowledged to clients that asked for all replicas."""
        self._batches: dict[PartitionKey, dict[tuple[int, int], tuple[int, int]]] = {}
        """(leader epoch, base offset) -> (crc, last offset delta), for ever."""
        self._key: PartitionKey = ("", 0)
        """Whose log is being read."""
        self._seen = BatchReader(durable=False, on_batch=self._on_batch)
        self._durable = BatchReader(durable=True)
        self._moved: dict[tuple[int, PartitionKey], tuple[object, ...]] = {}
        self._lost_at: dict[int, int] = {}
        """Nodes that lost what they vouched for: the broker epoch in which they did."""
        self._disk_failed: dict[int, int] = {}
        """Nodes whose disk failed: the incarnation that said so."""
        self._raft = raft_invariants.History()
        self._raft_views: dict[int, raft_invariants.NodeView] = {}
        self._vouched: dict[int, _Vouched] = {}
        cluster.watchers.append(self)

    # -- what happens ----------------------------------------------------------------------------

    def on_fact(self, node: SimNode, fact: Fact) -> None:
        self._note_image(node)
        if fact.kind == "DiskFailed":
            self._disk_failed[node.config.node_id] = node.incarnation
        elif fact.kind in CLAIMS and self._disk_failed.get(node.config.node_id) == node.incarnation:
            self._cluster.violate(
                "failed-disk",
                f"{node.name}, whose disk has failed, says {fact.kind} {fact.details}",
            )
        if fact.kind == "BecameLeader":
            key = (fact.topic_id, fact.partition, fact.leader_epoch)
            other = self._leaders.setdefault(key, node.config.node_id)
            if other != node.config.node_id:
                self._cluster.violate(
                    "one-leader",
                    f"{fact.topic_id[:6]}-{fact.partition}: n{other} and {node.name} both led in "
                    f"leader epoch {fact.leader_epoch}",
                )
        elif fact.kind == "Acked" and fact.details["acks"] == -1:
            last = fact.details["last"]
            assert isinstance(last, int)
            where = (fact.topic_id, fact.partition)
            if last >= self._acked.get(where, 0):
                self._acked[where] = last + 1
                self._check_partition(where)
        elif fact.kind == "ProduceRefused" and fact.details["error"] in GAP_ERROR_NAMES:
            self._check_refusal(node, fact)

    def _check_refusal(self, node: SimNode, fact: Fact) -> None:
        assert node.core is not None
        assert node.core.broker is not None
        partition = node.core.broker.replicas.partitions.get((fact.topic_id, fact.partition))
        if partition is None:
            return  # deleted in the same turn
        log, refused = partition.log, fact.details
        producer_id = refused["producer_id"]
        assert isinstance(producer_id, int)
        entry = log.producers.get(producer_id)
        if producer_id <= log.producers.forgotten_through and (
            entry is None or len(entry.batches) < BATCHES_KEPT
        ):
            return  # silent for longer than a retry may take, and perhaps heard of again since
        mine = [
            header
            for header in log.headers(log.log_start_offset, fact.log_end_offset)
            if (header.producer_id, header.producer_epoch)
            == (producer_id, refused["producer_epoch"])
        ]
        known = {header.base_sequence for header in mine[-BATCHES_KEPT:]}
        older = {header.base_sequence for header in mine[:-BATCHES_KEPT]}
        followed = {
            (last_sequence_of(header.base_sequence, header.last_offset_delta) + 1) % SEQUENCE_COUNT
            for header in mine
        }
        sequence = refused["sequence"]
        # A batch further back than five is no client's any more: a copy that was long on its way.
        if sequence in known or (sequence in followed and sequence not in older):
            self._cluster.violate(
                "false-refusal",
                f"{node.name} answered {refused['error']} to producer {producer_id} sequence "
                f"{sequence}; {fact.topic_id[:6]}-{fact.partition} holds what precedes it",
            )

    def before_crash(self, node: SimNode) -> None:
        if node.core is not None:
            self._note_image(node)
            self._note_raft(node)

    def _note_image(self, node: SimNode) -> None:
        if node.core is not None and node.core.image.index > self._image.index:
            self._image = node.core.image

    def on_wiped(self, node: SimNode) -> None:
        broker = self._image.brokers.get(node.config.node_id)
        self._lost_at[node.config.node_id] = broker.broker_epoch if broker is not None else -1

    def after_turn(self, node: SimNode) -> None:
        self._steps += 1
        core = node.core
        assert core is not None
        self._note_image(node)
        if core.broker is not None:
            for key, replica in core.broker.replicas.partitions.items():
                now = (
                    replica.log.log_end_offset,
                    replica.log.generation,
                    replica.log.synced_end,
                    replica.high_watermark,
                    replica.leader_epoch,
                    replica.partition_epoch,
                    replica.role,
                    replica.pending_isr,
                )
                if self._moved.get((node.config.node_id, key)) != now:
                    self._moved[node.config.node_id, key] = now
                    self._check_replica(node, replica)
                    self._check_partition(key)
        if core.driver is not None:
            self._check_raft(node)
        if self._steps % FULL_CHECK_STEPS == 0:
            self.check_all()

    def check_all(self) -> None:
        """Everything, whether it moved or not."""
        for node in self._cluster.nodes.values():
            if node.core is not None and node.core.broker is not None:
                for replica in node.core.broker.replicas.partitions.values():
                    self._check_replica(node, replica)
        for topic, number, _ in self._image.all_partitions():
            self._check_partition((topic.topic_id, number))

    # -- replication -----------------------------------------------------------------------------

    def _check_replica(self, node: SimNode, replica: Partition) -> None:
        """Its bytes, and as leader its high watermark and maximal ISR."""
        key = replica.key
        self._key = key
        if self._cluster.rots(node, key):
            return  # what it holds is not what was written
        self._seen.end_offset(node.disk, replica.log.directory)
        if replica.role is not PartitionRole.LEADER:
            return
        assert node.core is not None
        image = self._image
        committed = image.partition(*key)
        if committed is None or committed.leader_epoch != replica.leader_epoch:
            return  # deposed, and does not know it yet
        proposed = replica.pending_isr.isr if replica.pending_isr else ()
        maximal = {*replica.isr, *proposed}
        missing = [member for member in committed.isr if member not in maximal]
        if missing:
            self._cluster.violate(
                "maximal-isr",
                f"{_name(key)}: the controller counts on {committed.isr}, its leader {node.name} "
                f"on {tuple(sorted(maximal))}",
            )
        topic = image.topics[key[0]]
        for member in sorted(maximal):
            # As the leader knows it: a member may have lost its disk and said so to others.
            end = self._vouched_end(node.core.image, topic, key[1], member)
            if end is not None and end < replica.high_watermark:
                self._cluster.violate(
                    "watermark",
                    f"{_name(key)}: the leader {node.name} has high watermark "
                    f"{replica.high_watermark}, n{member} of its maximal ISR holds up to {end}",
                )

    def _check_partition(self, key: PartitionKey) -> None:
        """What was acknowledged is where the next leader may come from."""
        acked = self._acked.get(key, 0)
        image = self._image
        committed = image.partition(*key)
        if not acked or committed is None:
            return
        topic = image.topics[key[0]]
        ends = {
            member: end
            for member in (*committed.isr, *committed.elr)
            if (end := self._vouched_end(image, topic, key[1], member)) is not None
        }
        behind = {member: end for member, end in ends.items() if end < acked}
        if behind:
            self._cluster.violate(
                "acked-durable",
                f"{_name(key)}: acknowledged up to {acked}, but {_ends(behind)}; {_who(committed)}",
            )
        elif not ends:
            self._cluster.violate(
                "acked-durable",
                f"{_name(key)}: acknowledged up to {acked}, and nobody is left who holds it; "
                f"{_who(committed)}",
            )

    def _vouched_end(
        self, image: MetadataImage, topic: TopicImage, number: int, member: int
    ) -> int | None:
        """How far a member's disk holds the log for certain; None if it lost its disk since it last
        registered."""
        lost_at = self._lost_at.get(member)
        if lost_at is not None:
            broker = image.brokers.get(member)
            if broker is None or broker.broker_epoch <= lost_at:
                return None
        node = self._cluster.nodes[member]
        if self._cluster.rots(node, (topic.topic_id, number)):
            return None
        directory = directory_of(topic.name, topic.topic_id, number)
        self._key = (topic.topic_id, number)
        reader = self._seen if topic.config.flush == "async" else self._durable
        return reader.end_offset(node.disk, directory)

    def _on_batch(self, header: BatchHeader) -> None:
        known = self._batches.setdefault(self._key, {})
        what = (header.crc, header.last_offset_delta)
        place = (header.leader_epoch, header.base_offset)
        if known.setdefault(place, what) != what:
            self._cluster.violate(
                "log-matching",
                f"{_name(self._key)}: two different batches of leader epoch {place[0]} at offset "
                f"{place[1]}",
            )

    # -- the quorum ------------------------------------------------------------------------------

    def _check_raft(self, node: SimNode) -> None:
        core = node.core
        assert core is not None
        assert core.driver is not None
        raft_node = core.driver.node
        if raft_node is None:
            return
        node_id = node.config.node_id
        before, known = self._raft_views.get(node_id), self._vouched.get(node_id)
        if (
            before is not None
            and known is not None
            and known.incarnation == node.incarnation
            and known.voted_for == raft_node.durable_hard_state.voted_for
            and before.term == raft_node.term
            and before.is_leader == raft_node.is_leader
            and before.commit_index == raft_node.commit_index
            and before.log.base_index == raft_node.base_index
            and before.log.last_index == raft_node.last_index
            and before.durable.last_index == raft_node.durable_index
        ):
            return
        self._check_memory(node)
        self._note_raft(node)
        views = [self._raft_views[number] for number in sorted(self._raft_views)]
        voters = len(node.config.voters)
        if len(views) == voters:
            for problem in raft_invariants.check(views, voters, self._raft):
                self._cluster.violate("raft", problem)

    def _note_raft(self, node: SimNode) -> None:
        core = node.core
        assert core is not None
        raft_node = core.driver.node if core.driver is not None else None
        if raft_node is None:
            return
        view = raft_invariants.view_of(raft_node)
        self._raft_views[node.config.node_id] = view
        hard_state = raft_node.durable_hard_state
        self._vouched[node.config.node_id] = _Vouched(
            node.incarnation, hard_state.term, hard_state.voted_for, view.durable
        )

    def _check_memory(self, node: SimNode) -> None:
        """Terms and votes are never taken back; entries only by another leader, not by a start."""
        assert node.core is not None
        assert node.core.driver is not None
        raft_node = node.core.driver.node
        known = self._vouched.get(node.config.node_id)
        assert raft_node is not None
        if known is None:
            return
        if raft_node.term < known.term:
            self._cluster.violate(
                "raft-memory", f"{node.name} vouched for term {known.term}, now {raft_node.term}"
            )
        same_term = raft_node.term == known.term
        voted_for = raft_node.voted_for
        if same_term and known.voted_for is not None and voted_for != known.voted_for:
            self._cluster.violate(
                "raft-memory",
                f"{node.name} voted for {known.voted_for} and for {voted_for} in term {known.term}",
            )
        if node.incarnation != known.incarnation:
            now = raft_invariants.view_of(raft_node).log
            count = known.log.last_index
            if now.last_index < count or not all(map(now.holds, known.log.entries)):
                self._cluster.violate(
                    "raft-memory",
                    f"{node.name} comes back without all of the {count} entries it had",
                )


def _name(key: PartitionKey) -> str:
    return f"{key[0][:6]}-{key[1]}"


def _ends(ends: dict[int, int]) -> str:
    return ", ".join(f"n{member} holds up to {end}" for member, end in ends.items())


def _who(committed: PartitionImage) -> str:
    eligible = f", ELR {committed.elr}" if committed.elr else ""
    return f"ISR {committed.isr}{eligible}, leader epoch {committed.leader_epoch}"
