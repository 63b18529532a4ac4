"""Random cluster histories against the controller, with a ghost of the data that it must not lose.

The ghost: per partition a count of committed records, and per replica how many of them it holds. A
record is committed only as the rules allow: by a live leader, on the committed ISR and whatever is
proposed to join it, when that ISR has its minimum. A crash may take records from a replica exactly
where the controller must know it: unsynced ones (flush=async), another disk, damage.

Then, at every moment and whatever the order of crashes, registrations, elections of controllers:
each member of ISR and ELR holds every committed record, unless it has lost its data and not yet
registered again. From that it follows that no election loses an acknowledged record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import NodeConfig
from broker.quorum.answers import Answer, Commit, ControllerResponse, Decision
from broker.quorum.controller import Controller
from broker.quorum.image import MetadataImage, PartitionImage, TopicImage
from broker.quorum.records import decode_entry, encode_entry
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    AlterPartitionPart,
    AlterPartitionRequest,
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    CreateTopicRequest,
    DeleteTopicRequest,
    IsrMember,
    ReplicaName,
    Setting,
)

CONFIG = NodeConfig(node_id=1, cluster_id="trial", data_dir="data", broker_session_timeout_ms=1_500)
BROKERS = (1, 2, 3)
broker_ids = st.sampled_from(BROKERS)
Name = tuple[str, int]


@dataclass
class Process:
    """One broker as the world sees it. `broker_epoch` is -1 until its registration is answered."""

    alive: bool = False
    life: int = 0
    disk: int = 0
    broker_epoch: int = -1
    clean: bool = True
    damaged: list[Name] = field(default_factory=list)
    # Data was lost, and no registration since then is committed.
    lossy: bool = False

    @property
    def incarnation(self) -> str:
        return f"life-{self.life}"


@dataclass
class Ghost:
    committed_count: int = 0
    held: dict[int, int] = field(default_factory=dict)
    ever_lost: bool = False
    # Whom the leader has proposed in its epoch: with them it may not commit without them.
    proposed_epoch: int = -1
    proposed: set[int] = field(default_factory=set)


class ClusterHistory:
    """Each step of a history is a method and its arguments; `STEPS` says which are drawn."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.term = 1
        self.committed = MetadataImage()
        self.appended: list[tuple[bytes, ControllerResponse | None]] = []
        self.processes = {node_id: Process() for node_id in BROKERS}
        self.ghosts: dict[Name, Ghost] = {}
        self.holding = False
        self.topic_count = 0
        self.producer_ids: list[int] = []
        self.in_flight: list[AlterPartitionRequest] = []
        self.controller = Controller(CONFIG, lambda label, low, high: low)
        self.elect()

    # -- the controller's log ----------------------------------------------------------------------

    @property
    def next_index(self) -> int:
        return self.committed.index + len(self.appended) + 1

    @property
    def pending(self) -> MetadataImage:
        image = self.controller.pending_image
        assert image is not None
        return image

    def elect(self) -> None:
        self.committed, _ = self.committed.apply_entry(self.committed.index + 1, self.term, ())
        self.controller.activate(self.committed, self.now_ms)

    def carry_out(self, decision: Decision | None) -> ControllerResponse | None:
        if isinstance(decision, Answer):
            assert decision.after_index == self.next_index - 1
            return decision.body
        if isinstance(decision, Commit):
            self.appended.append((encode_entry(decision.records), decision.answer))
            assert self.pending.index == self.next_index - 1
            if not self.holding:
                self.commit(len(self.appended))
        return None

    def hold(self) -> None:
        """From now on entries stay appended for a while, until commit or a new controller."""
        self.holding = True

    def commit(self, count: int) -> None:
        self.holding = self.holding and count < len(self.appended)
        for _ in range(min(count, len(self.appended))):
            data, answer = self.appended.pop(0)
            before = self.committed
            self.committed, _ = before.apply_entry(before.index + 1, self.term, decode_entry(data))
            self.compare(before, self.committed)
            self.on_answer(answer)
        if not self.appended:
            assert self.committed == self.pending

    def on_answer(self, answer: ControllerResponse | None) -> None:
        if isinstance(answer, BrokerRegistrationResponse):
            self.on_registered(answer.broker_epoch)
        if isinstance(answer, AllocateProducerIdsResponse):
            assert answer.first_producer_id not in self.producer_ids
            self.producer_ids.append(answer.first_producer_id)

    def on_registered(self, broker_epoch: int) -> None:
        for broker in self.committed.brokers.values():
            process = self.processes[broker.node_id]
            if broker.broker_epoch != broker_epoch or broker.incarnation != process.incarnation:
                continue
            process.broker_epoch = broker_epoch
            process.lossy = False
            process.damaged = []

    def new_controller(self) -> None:
        """Leadership moves; what was appended and not committed is lost."""
        self.controller.deactivate()
        self.appended.clear()
        self.holding = False
        self.term += 1
        self.elect()

    # -- brokers -----------------------------------------------------------------------------------

    def start_all(self, flush: str, factor: int, low: int) -> None:
        for node_id in BROKERS:
            self.restart(node_id)
            self.heartbeat(node_id, 0, False)
        self.create_topic(flush, factor, low)
        self.create_topic("ack", 3, 2)

    def quiet_time(self) -> None:
        """Everybody who lives is heard of, catches up and is taken into the ISR; then a record."""
        for node_id in BROKERS:
            self.register(node_id)
            self.heartbeat(node_id, 0, False)
        self.propose_isr(set(BROKERS), late=False)
        self.produce()

    def start(self, node_id: int) -> None:
        process = self.processes[node_id]
        process.alive = True
        process.life += 1
        process.broker_epoch = -1

    def lose(self, node_id: int, name: Name, keep: int) -> None:
        ghost = self.ghosts[name]
        if node_id in ghost.held:
            ghost.held[node_id] = min(keep, ghost.held[node_id])
            ghost.ever_lost = True
            self.processes[node_id].lossy = True

    def crash(self, node_id: int, keep: int, wiped: bool, at: int) -> None:
        """Power loss: unsynced records vanish; or the disk does; or one replica is damaged."""
        process = self.processes[node_id]
        process.alive, process.clean = False, False
        process.disk += int(wiped)
        for position, (topic, number, partition) in enumerate(self.committed.all_partitions()):
            name = (topic.topic_id, number)
            if node_id not in partition.replicas:
                continue
            if wiped:
                self.lose(node_id, name, 0)
            elif topic.config.flush == "async":
                self.lose(node_id, name, keep)
            elif at == position:
                process.damaged.append(name)
                self.lose(node_id, name, keep)

    def stop(self, node_id: int) -> None:
        """A clean stop counts only in a life whose own registration was accepted."""
        process = self.processes[node_id]
        if process.alive:
            process.alive = False
            process.clean = process.broker_epoch != -1 or process.clean

    def restart(self, node_id: int) -> None:
        """Start a process and let it register."""
        if not self.processes[node_id].alive:
            self.start(node_id)
            self.register(node_id)

    def register(self, node_id: int) -> None:
        """Also as a retry: the answer may have been lost with a controller."""
        process = self.processes[node_id]
        if not process.alive:
            return
        request = BrokerRegistrationRequest(
            "trial",
            node_id,
            f"disk-{process.disk}",
            process.incarnation,
            "localhost",
            9092,
            process.clean,
            tuple(ReplicaName(*name) for name in process.damaged),
        )
        self.carry_out(self.controller.register(request, self.next_index, self.now_ms))

    def heartbeat(self, node_id: int, behind: int, want_fence: bool) -> None:
        process = self.processes[node_id]
        if process.alive and process.broker_epoch != -1:
            index = self.committed.index - behind
            request = BrokerHeartbeatRequest(node_id, process.broker_epoch, index, want_fence, ())
            decision = self.controller.heartbeat(request, self.next_index, self.now_ms)
            body = self.carry_out(decision)
            assert body is None or body.error is ErrorCode.NONE

    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        while (decision := self.controller.tick(self.now_ms, self.next_index)) is not None:
            self.carry_out(decision)

    # -- topics and data ---------------------------------------------------------------------------

    def create_topic(self, flush: str, replication_factor: int, minimum: int) -> None:
        self.topic_count += 1
        if len(self.committed.topics) >= 4:
            return
        request = CreateTopicRequest(
            f"t{self.topic_count}",
            2,
            replication_factor,
            (),
            (Setting("flush", flush), Setting("min_insync_replicas", str(minimum))),
            1_000,
        )
        self.carry_out(self.controller.create_topic(request, self.next_index, self.now_ms))

    def delete_topic(self, at: int) -> None:
        topics = sorted(self.pending.topics.values(), key=lambda topic: topic.name)
        if at < len(topics):
            request = DeleteTopicRequest(topics[at].name, 1_000)
            self.carry_out(self.controller.delete_topic(request, self.next_index, self.now_ms))

    def allocate(self, node_id: int) -> None:
        process = self.processes[node_id]
        request = AllocateProducerIdsRequest(node_id, process.broker_epoch)
        decision = self.controller.allocate_producer_ids(request, self.next_index, self.now_ms)
        self.carry_out(decision)

    def leads(self, partition: PartitionImage) -> bool:
        """Whether the committed leader is a live process that knows of its leadership."""
        if partition.leader == -1:
            return False
        process = self.processes[partition.leader]
        epoch = self.committed.brokers[partition.leader].broker_epoch
        return process.alive and process.broker_epoch == epoch

    def produce(self) -> None:
        """Commit one record wherever the rules of replication allow it."""
        for topic, number, partition in self.committed.all_partitions():
            ghost = self.ghosts[topic.topic_id, number]
            members = set(partition.isr)
            if ghost.proposed_epoch == partition.leader_epoch:
                members |= ghost.proposed
            if (
                self.leads(partition)
                and len(partition.isr) >= topic.config.min_insync_replicas
                and all(self.processes[member].alive for member in members)
            ):
                ghost.committed_count += 1
                for member in sorted(members):
                    ghost.held[member] = ghost.committed_count

    def propose_isr(self, chosen: set[int], late: bool) -> None:
        """Each live leader proposes those of `chosen` who have caught up."""
        for topic, number, partition in self.committed.all_partitions():
            name = (topic.topic_id, number)
            if not self.leads(partition):
                continue
            ghost = self.ghosts[name]
            if ghost.proposed_epoch != partition.leader_epoch:
                ghost.proposed_epoch, ghost.proposed = partition.leader_epoch, set()
            members = []
            for node_id in partition.replicas:
                process = self.processes[node_id]
                wanted = node_id == partition.leader or node_id in chosen
                if wanted and process.alive and process.broker_epoch != -1:
                    ghost.held[node_id] = ghost.committed_count
                    ghost.proposed.add(node_id)
                    members.append(IsrMember(node_id, process.broker_epoch))
            part = AlterPartitionPart(
                *name, partition.leader_epoch, partition.partition_epoch, tuple(members)
            )
            epoch = self.processes[partition.leader].broker_epoch
            self.in_flight.append(AlterPartitionRequest(partition.leader, epoch, (part,)))
            if not late:
                self.deliver_proposal()

    def deliver_proposal(self) -> None:
        """The last one; an older one may stay behind for long."""
        if not self.in_flight:
            return
        request = self.in_flight.pop()
        self.carry_out(self.controller.alter_partition(request, self.next_index, self.now_ms))

    # -- what must hold ----------------------------------------------------------------------------

    def compare(self, before: MetadataImage, after: MetadataImage) -> None:
        """One step of the committed image: epochs only grow."""
        assert after.next_producer_id >= before.next_producer_id
        for node_id, broker in before.brokers.items():
            assert after.brokers[node_id].broker_epoch >= broker.broker_epoch
        for topic, number, partition in after.all_partitions():
            old = before.partition(topic.topic_id, number)
            if old is None:
                held = dict.fromkeys(partition.replicas, 0)
                self.ghosts[topic.topic_id, number] = Ghost(held=held)
            elif old != partition:
                assert partition.replicas == old.replicas
                assert partition.partition_epoch == old.partition_epoch + 1
                moved = int(partition.leader != old.leader)
                assert partition.leader_epoch == old.leader_epoch + moved

    def images_are_sound(self) -> None:
        for image in (self.committed, self.pending):
            for topic, _, partition in image.all_partitions():
                self.check_partition(image, topic, partition)

    def check_partition(
        self, image: MetadataImage, topic: TopicImage, partition: PartitionImage
    ) -> None:
        isr, elr = set(partition.isr), set(partition.elr)
        assert isr | elr <= set(partition.replicas)
        assert not isr & elr
        if partition.leader == -1:
            assert not any(image.is_active(node_id) for node_id in isr | elr)
        else:
            assert partition.leader in isr
            assert image.is_active(partition.leader)
        assert len(isr) == 1 or all(image.is_active(node_id) for node_id in isr)
        assert not elr or len(isr) < topic.config.min_insync_replicas

    def nothing_committed_is_lost(self) -> None:
        for topic, number, partition in self.committed.all_partitions():
            ghost = self.ghosts[topic.topic_id, number]
            members = (*partition.isr, *partition.elr)
            assert members or ghost.ever_lost
            for node_id in members:
                if not self.processes[node_id].lossy:
                    assert ghost.held[node_id] == ghost.committed_count, (node_id, partition)


def steps(weight: int, name: str, *arguments: st.SearchStrategy[Any]) -> list[Any]:
    return [st.tuples(st.just(name), *arguments)] * weight


FLUSH = st.sampled_from(("ack", "async"))
STEPS = st.one_of(
    *steps(3, "quiet_time"),
    *steps(
        3,
        "crash",
        broker_ids,
        st.integers(0, 3),
        st.sampled_from((True, False, False)),
        st.integers(0, 4),
    ),
    *steps(2, "stop", broker_ids),
    *steps(4, "restart", broker_ids),
    *steps(4, "heartbeat", broker_ids, st.integers(0, 2), st.sampled_from((True, False, False))),
    *steps(1, "register", broker_ids),
    *steps(2, "time_passes", st.sampled_from((1, 700, 1_500))),
    *steps(2, "propose_isr", st.sets(broker_ids), st.booleans()),
    *steps(1, "deliver_proposal"),
    *steps(2, "produce"),
    *steps(1, "hold"),
    *steps(1, "commit", st.integers(1, 4)),
    *steps(1, "new_controller"),
    *steps(1, "create_topic", FLUSH, st.integers(1, 3), st.integers(1, 3)),
    *steps(1, "delete_topic", st.integers(0, 30)),
    *steps(1, "allocate", broker_ids),
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(FLUSH, st.integers(2, 3), st.integers(1, 2), st.lists(STEPS, min_size=20, max_size=60))
def test_no_history_loses_what_was_committed(
    flush: str, replication_factor: int, minimum: int, history: list[Any]
) -> None:
    cluster = ClusterHistory()
    cluster.start_all(flush, replication_factor, minimum)
    for name, *arguments in history:
        getattr(cluster, name)(*arguments)
        cluster.images_are_sound()
        cluster.nothing_committed_is_lost()
