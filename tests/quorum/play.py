"""The stage on which controller scenarios are played: one controller, its log, a clock by hand.

Entries are committed at once unless `hold` was said; then they stay appended until `commit`.
"""

from __future__ import annotations

from broker.config import NodeConfig
from broker.quorum.answers import Answer, Commit, ControllerResponse, Decision
from broker.quorum.controller import Controller
from broker.quorum.image import MetadataDelta, MetadataImage, PartitionImage
from broker.quorum.records import (
    BrokerFenced,
    PartitionChanged,
    PartitionCreated,
    ProducerIdsAllocated,
    Record,
    RegisterBroker,
    TopicConfigured,
    TopicCreated,
    TopicDeleted,
    decode_entry,
    encode_entry,
)
from broker.wire.messages import (
    AllocateProducerIdsRequest,
    AlterPartitionPart,
    AlterPartitionRequest,
    AlterPartitionResponse,
    AlterTopicRequest,
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    CreatePartitionsRequest,
    CreateTopicRequest,
    DamagedReplica,
    DeleteTopicRequest,
    IsrMember,
    ReplicaName,
    Setting,
)
from tests.datadriven import Command

CONFIG = NodeConfig(node_id=1, cluster_id="trial", data_dir="data", broker_session_timeout_ms=1_500)


def ids(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers)) or "none"


def partition_line(partition: PartitionImage | PartitionChanged) -> str:
    leader = "none" if partition.leader == -1 else str(partition.leader)
    elr = f" elr={ids(partition.elr)}" if partition.elr else ""
    epochs = f"le={partition.leader_epoch} pe={partition.partition_epoch}"
    return f"leader={leader} {epochs} isr={ids(partition.isr)}{elr}"


class Play:
    """Each verb of a scenario is a method; it returns what was said and written."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.term = 1
        self.holding = False
        self.committed = MetadataImage()
        self.appended: list[bytes] = []
        self.draws: list[int] = []
        self.names: dict[str, str] = {}
        self.controller = Controller(CONFIG, self._draw)
        self.become_controller()

    def _draw(self, label: str, low: int, high: int) -> int:
        drawn = self.draws.pop(0) if self.draws and label == "placement" else low
        assert low <= drawn <= high
        return drawn

    @property
    def next_index(self) -> int:
        return self.committed.index + len(self.appended) + 1

    @property
    def pending(self) -> MetadataImage:
        return self.controller.pending_image or self.committed

    def become_controller(self) -> None:
        self.committed, _ = self.committed.apply_entry(self.next_index, self.term, ())
        self.controller.activate(self.committed, self.now_ms)

    def commit_all(self) -> MetadataDelta:
        delta = MetadataDelta()
        while self.appended:
            index = self.committed.index + 1
            records = decode_entry(self.appended.pop(0))
            self.committed, delta = self.committed.apply_entry(index, self.term, records)
        assert self.committed == self.controller.pending_image
        return delta

    # -- what is shown -----------------------------------------------------------------------------

    def topic_name(self, topic_id: str) -> str:
        return self.names[topic_id]

    def record_line(self, record: Record) -> str:
        match record:
            case RegisterBroker():
                return f"broker {record.node_id} registered epoch={record.broker_epoch}"
            case BrokerFenced():
                return f"broker {record.node_id} {'fenced' if record.fenced else 'unfenced'}"
            case TopicCreated():
                self.names[record.topic_id] = record.name
                settings = f"min={record.min_insync_replicas} flush={record.flush}"
                return f"topic {record.name} created {settings}"
            case TopicConfigured():
                return f"topic {self.topic_name(record.topic_id)} {record.name}={record.value}"
            case TopicDeleted():
                return f"topic {self.topic_name(record.topic_id)} deleted"
            case PartitionCreated():
                name = self.topic_name(record.topic_id)
                who = f"replicas={ids(record.replicas)} isr={ids(record.isr)}"
                return f"{name}/{record.partition} created {who} leader={record.leader}"
            case PartitionChanged():
                name = self.topic_name(record.topic_id)
                return f"{name}/{record.partition} {partition_line(record)}"
            case ProducerIdsAllocated():
                return f"producer ids below {record.next_producer_id} given away"

    def answer_line(self, body: ControllerResponse) -> str:
        said = [body.error.name]
        for name in ("fenced", "caught_up", "broker_epoch", "first_producer_id"):
            value = getattr(body, name, None)
            if value is not None and body.error == 0:
                said.append(f"{name}={str(value).lower()}")
        if getattr(body, "detail", ""):
            said.append(f"({getattr(body, 'detail', '')})")
        lines = ["answer " + " ".join(said)]
        if isinstance(body, AlterPartitionResponse):
            for part in body.parts:
                lines.append(f"  {part.topic_id and self.part_name(part.topic_id, part.partition)}")
                lines[-1] += f" {part.error.name}"
                if part.error == 0:
                    lines[-1] += f" le={part.leader_epoch} pe={part.partition_epoch}"
                    lines[-1] += f" isr={ids(part.isr)}"
        return "\n".join(lines)

    def part_name(self, topic_id: str, partition: int) -> str:
        return f"{self.names.get(topic_id, topic_id)}/{partition}"

    def decided(self, decision: Decision | None) -> str:
        """Carry out a decision; show the entry and the answer."""
        if decision is None:
            return ""
        if isinstance(decision, Answer):
            waits = decision.after_index > self.committed.index
            when = f" after entry {decision.after_index}" if waits else ""
            return self.answer_line(decision.body) + when
        assert isinstance(decision, Commit)
        lines = [f"entry {self.next_index}"]
        lines += ["  " + self.record_line(record) for record in decision.records]
        self.appended.append(encode_entry(decision.records))
        if not self.holding:
            self.commit_all()
        if decision.answer is not None:
            lines.append(self.answer_line(decision.answer))
        return "\n".join(lines)

    # -- verbs -------------------------------------------------------------------------------------

    def handle(self, command: Command) -> str:
        verb = getattr(self, "do_" + command.verb.replace("-", "_"), None)
        if verb is None:
            raise command.error("no such verb")
        shown = verb(command)
        assert isinstance(shown, str)
        return shown

    def do_up(self, command: Command) -> str:
        """up IDS…: register brokers and unfence them, silently."""
        for position in range(len(command.rest())):
            node_id = command.word_number(position)
            self.register(node_id, f"i{node_id}", f"d{node_id}")
            self.heartbeat(node_id)
        return ""

    def register(self, node_id: int, incarnation: str, disk_id: str) -> str:
        return self.decided(
            self.controller.register(
                BrokerRegistrationRequest(
                    "trial", node_id, disk_id, incarnation, "localhost", 9092, True, ()
                ),
                self.next_index,
                self.now_ms,
            )
        )

    def heartbeat(self, node_id: int) -> str:
        request = BrokerHeartbeatRequest(
            node_id, self.pending.brokers[node_id].broker_epoch, self.pending.index, False, ()
        )
        return self.decided(self.controller.heartbeat(request, self.next_index, self.now_ms))

    def do_register(self, command: Command) -> str:
        """register ID incarnation= [disk=] [clean=yes|no] [damaged=t/0,…] [cluster=]"""
        node_id = command.word_number(0)
        damaged = [name.split("/") for name in command.text_of("damaged", "").split(",") if name]
        request = BrokerRegistrationRequest(
            cluster_id=command.text_of("cluster", "trial"),
            node_id=node_id,
            disk_id=command.text_of("disk", f"d{node_id}"),
            incarnation=command.text_of("incarnation"),
            host="localhost",
            port=9092,
            clean_shutdown=command.text_of("clean", "yes") == "yes",
            damaged=tuple(
                ReplicaName(self.pending.ids_by_name[topic], int(partition))
                for topic, partition in damaged
            ),
        )
        return self.decided(self.controller.register(request, self.next_index, self.now_ms))

    def broker_epoch(self, command: Command, node_id: int) -> int:
        broker = self.pending.brokers.get(node_id)
        return command.number("epoch", broker.broker_epoch if broker else 0)

    def do_heartbeat(self, command: Command) -> str:
        """heartbeat ID [epoch=] [index=] [want_fence=yes] [damaged=t/0:LE,…]"""
        node_id = command.word_number(0)
        damaged = []
        for place in filter(None, command.text_of("damaged", "").split(",")):
            name, _, leader_epoch = place.partition(":")
            topic, number = name.split("/")
            topic_id = self.pending.ids_by_name[topic]
            damaged.append(DamagedReplica(topic_id, int(number), int(leader_epoch)))
        request = BrokerHeartbeatRequest(
            node_id,
            self.broker_epoch(command, node_id),
            command.number("index", self.committed.index),
            command.text_of("want_fence", "no") == "yes",
            tuple(damaged),
        )
        return self.decided(self.controller.heartbeat(request, self.next_index, self.now_ms))

    def do_configure(self, command: Command) -> str:
        """configure NAME setting=value …"""
        settings = tuple(Setting(name, command.text_of(name)) for name in command.options)
        request = AlterTopicRequest(command.word(0), settings, 1_000)
        return self.decided(self.controller.alter_topic(request, self.next_index, self.now_ms))

    def do_grow(self, command: Command) -> str:
        """grow NAME COUNT [replicas=1,2;2,3]"""
        text = command.text_of("replicas", "")
        assignments = tuple(
            tuple(int(node_id) for node_id in row.split(",")) for row in text.split(";") if row
        )
        request = CreatePartitionsRequest(
            command.word(0), command.word_number(1), assignments, 1_000
        )
        return self.decided(
            self.controller.create_partitions(request, self.next_index, self.now_ms)
        )

    def do_alter(self, command: Command) -> str:
        """alter LEADER t/0 isr=1,2:8 [le=] [pe=] [epoch=]; `2:8` names the member's broker epoch"""
        node_id, name = command.word_number(0), command.word(1)
        topic, number = name.split("/")
        topic_id = self.pending.ids_by_name.get(topic, topic)
        partition = self.pending.partition(topic_id, int(number))
        members = []
        for text in command.text_of("isr").split(","):
            member, _, epoch = text.partition(":")
            broker = self.pending.brokers.get(int(member))
            members.append(
                IsrMember(int(member), int(epoch or (broker.broker_epoch if broker else 0)))
            )
        part = AlterPartitionPart(
            topic_id,
            int(number),
            command.number("le", partition.leader_epoch if partition else 0),
            command.number("pe", partition.partition_epoch if partition else 0),
            tuple(members),
        )
        request = AlterPartitionRequest(node_id, self.broker_epoch(command, node_id), (part,))
        return self.decided(self.controller.alter_partition(request, self.next_index, self.now_ms))

    def do_create(self, command: Command) -> str:
        """create NAME [partitions=] [rf=] [replicas=1,2;2,3] [min=] [flush=] [start=]"""
        given = command.text_of("replicas", "")
        settings = [
            Setting(setting, command.text_of(option))
            for option, setting in (("min", "min_insync_replicas"), ("flush", "flush"))
            if command.has(option)
        ]
        if command.has("start"):
            self.draws.append(command.number("start"))
        request = CreateTopicRequest(
            command.word(0),
            command.number("partitions", -1),
            command.number("rf", -1),
            tuple(tuple(map(int, row.split(","))) for row in given.split(";") if row),
            tuple(settings),
            1_000,
        )
        return self.decided(self.controller.create_topic(request, self.next_index, self.now_ms))

    def do_delete(self, command: Command) -> str:
        request = DeleteTopicRequest(command.word(0), 1_000)
        return self.decided(self.controller.delete_topic(request, self.next_index, self.now_ms))

    def do_producer_ids(self, command: Command) -> str:
        node_id = command.word_number(0)
        request = AllocateProducerIdsRequest(node_id, self.broker_epoch(command, node_id))
        return self.decided(
            self.controller.allocate_producer_ids(request, self.next_index, self.now_ms)
        )

    def do_wait(self, command: Command) -> str:
        """wait MS, then one tick"""
        self.now_ms += command.word_number(0)
        return self.decided(self.controller.tick(self.now_ms, self.next_index))

    def do_tick(self, command: Command) -> str:
        return self.decided(self.controller.tick(self.now_ms, self.next_index))

    def do_pause(self, command: Command) -> str:
        """pause MS: the controller's process stood still; then one tick"""
        gap_ms = command.word_number(0)
        self.now_ms += gap_ms
        self.controller.shift_sessions(gap_ms)
        return self.decided(self.controller.tick(self.now_ms, self.next_index))

    def do_fence(self, command: Command) -> str:
        """fence IDS…: each asks for it in a heartbeat"""
        lines = []
        for position in range(len(command.rest())):
            node_id = command.word_number(position)
            epoch = self.pending.brokers[node_id].broker_epoch
            request = BrokerHeartbeatRequest(node_id, epoch, self.committed.index, True, ())
            decision = self.controller.heartbeat(request, self.next_index, self.now_ms)
            assert isinstance(decision, Commit)
            lines.append(self.decided(Commit(decision.records, None)))
        return "\n".join(lines)

    def do_hold(self, command: Command) -> str:
        self.holding = True
        return ""

    def do_commit(self, command: Command) -> str:
        self.holding = False
        self.commit_all()
        return f"committed up to {self.committed.index}"

    def do_depose(self, command: Command) -> str:
        """Leadership is lost, and with it what was appended but not committed."""
        self.controller.deactivate()
        lost, self.appended = len(self.appended), []
        return f"{lost} appended entries lost"

    def do_elect(self, command: Command) -> str:
        """This node leads again, in a new term."""
        self.term += 1
        self.holding = False
        self.become_controller()
        return f"active in term {self.term} from entry {self.committed.index}"

    def do_show(self, command: Command) -> str:
        """show [committed]: brokers and partitions of the pending (or committed) image"""
        image = self.committed if command.word(0, "pending") == "committed" else self.pending
        lines = []
        for node_id in sorted(image.brokers):
            broker = image.brokers[node_id]
            state = "fenced" if broker.fenced else "active"
            lines.append(f"broker {node_id} epoch={broker.broker_epoch} {state}")
        for topic, number, partition in image.all_partitions():
            lines.append(f"{topic.name}/{number} {partition_line(partition)}")
        return "\n".join(lines)
