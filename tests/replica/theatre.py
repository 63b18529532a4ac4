"""The stage of replication scenarios: a simulated cluster in which no fault happens by chance.

Nodes 1 to 3 are the controllers; nodes 4 to 6 are brokers only, and hold the one partition: any of
these may go without touching the metadata quorum. Verbs are methods of `Theatre`:

    topic replicas=4,5,6 min_isr=2      create it and wait until every replica follows
    produce a b [acks=1] [to=4] [pid=7 seq=0] [within=500]
                                        one batch a value: "a ok 0"; the error and whether it may
                                        have been appended; "no answer"
    crash 4 / power-loss 4,5 / restart 4 / pause 4 / resume 4
    cut 4 5,controllers / heal          both directions
    hold 5 4 / release [1]              keep fetches of 5 to 4 back; let (the first of) them arrive
    wait 500                            milliseconds of virtual time
    run-until-quiet                     until nothing changed for two seconds
    status                              what each replica believes
    log / values                        value/epoch, or value, of each record, replica by replica
    facts Truncated [node=4]            how often something became true
"""

from __future__ import annotations

from broker.events import Connection, Fact, Plane
from broker.log.partition_log import PartitionLog
from broker.ports import Buffer
from broker.replica.partition import Partition, PartitionRole
from broker.wire import frames
from broker.wire.messages import (
    ACKS_ALL,
    CreateTopicRequest,
    CreateTopicResponse,
    FetchRequest,
    ProducePart,
    ProduceRequest,
    ProduceResponse,
    Setting,
)
from broker.wire.record_batch import decode_batch, encode_batch, iterate_batches
from chaos.sim.choices import Choices, from_seed
from chaos.sim.cluster import SimCluster, Watcher
from chaos.sim.invariants import Invariants
from chaos.sim.network import Deliver, SimNetwork
from chaos.sim.node import SimNode
from tests.datadriven import Command

BROKERS = (4, 5, 6)
CONTROLLERS = (1, 2, 3)
WAIT_MS_MAX = 30_000
LETTERS = {PartitionRole.LEADER: "L", PartitionRole.FOLLOWER: "F", PartitionRole.OFFLINE: "-"}


class HoldingNetwork(SimNetwork):
    """Keeps some fetches back until they are told to arrive."""

    def __init__(self, network: SimNetwork) -> None:
        super().__init__(network.clock, network.choices)
        self.held_links: dict[tuple[str, str], None] = {}
        self.held: list[tuple[Deliver, list[bytes]]] = []

    def send(
        self,
        source: str,
        target: str,
        channel: str,
        kind: frames.Kind,
        correlation_id: int,
        body: object,
        payload: object,
        deliver: Deliver,
    ) -> None:
        chunks: tuple[Buffer, ...] = tuple(payload)  # type: ignore[call-overload]
        if (source, target) in self.held_links and isinstance(body, FetchRequest):
            message = [bytes(part) for part in frames.encode(kind, correlation_id, body, chunks)]
            self.held.append((deliver, message))
            return
        super().send(source, target, channel, kind, correlation_id, body, chunks, deliver)


class FactNotes(Watcher):
    def __init__(self, facts: list[tuple[int, Fact]]) -> None:
        self._facts = facts

    def on_fact(self, node: SimNode, fact: Fact) -> None:
        self._facts.append((node.config.node_id, fact))


class Theatre:
    def __init__(self) -> None:
        self.cluster = SimCluster(6, Choices(from_seed(1)), voter_count=3)
        self.network = HoldingNetwork(self.cluster.network)
        self.cluster.network = self.network
        self.network.delay_ms_max = 1
        self.cluster.sync_ms_max = 1
        self.facts: list[tuple[int, Fact]] = []
        self.topic_id = ""
        self._requests = 0
        self.cluster.watchers.append(FactNotes(self.facts))
        Invariants(self.cluster)
        self.cluster.start_all()
        self._until(lambda: all(self._serves(node) for node in self.cluster.nodes.values()))

    def handle(self, command: Command) -> str:
        verb = getattr(self, "do_" + command.verb.replace("-", "_"), None)
        if verb is None:
            raise command.error("there is no such verb")
        output: str = verb(command)
        assert not self.cluster.violations, self.cluster.violations
        return output

    # -- time --------------------------------------------------------------------------------------

    def _until(self, done: object) -> bool:
        assert callable(done)
        for _ in range(WAIT_MS_MAX // 10):
            if done():
                return True
            self._run(10)
        return False

    def _run(self, milliseconds: int) -> None:
        self.cluster.clock.run_until(self.cluster.clock.now_ms + milliseconds)

    def do_wait(self, command: Command) -> str:
        self._run(command.word_number(0))
        return ""

    def do_run_until_quiet(self, command: Command) -> str:
        seen, unchanged_ms = "", 0
        for _ in range(WAIT_MS_MAX // 100):
            now = self._status()
            unchanged_ms = unchanged_ms + 100 if now == seen else 0
            seen = now
            if unchanged_ms >= 2_000:
                return ""
            self._run(100)
        raise command.error(f"never quiet:\n{seen}")

    # -- the topic and its records -----------------------------------------------------------------

    def _ask(self, node_id: int, body: object, payload: tuple[Buffer, ...] = ()) -> list[object]:
        """Send a request as a client; answers are put into the list when they come."""
        self._requests += 1
        connection = Connection(Plane.BROKER, f"client.{self._requests}".encode())
        target = self.cluster.nodes[node_id]
        answers: list[object] = []

        def deliver(message: frames.Message) -> None:
            target.on_message("client", connection, message, lambda m: answers.append(m.body))

        self.network.send(
            "client",
            target.name,
            connection.routing_id.decode(),
            frames.Kind.REQUEST,
            self._requests,
            body,
            payload,
            deliver,
        )
        return answers

    def do_topic(self, command: Command) -> str:
        replicas = command.numbers("replicas")
        settings = (
            Setting("min_insync_replicas", str(command.number("min_isr"))),
            Setting("flush", command.text_of("flush", "ack")),
        )
        request = CreateTopicRequest("t", 1, len(replicas), (replicas,), settings, 2_000)
        answers = self._ask(1, request)
        assert self._until(lambda: answers), "no answer"
        answer = answers[0]
        assert isinstance(answer, CreateTopicResponse)
        self.topic_id = answer.topic_id
        self._run(1_000)
        return answer.error.name.lower() if answer.error else ""

    def do_produce(self, command: Command) -> str:
        acks = command.text_of("acks", "all")
        node_id = command.number("to", self._leader())
        pid, sequence = command.number("pid", -1), command.number("seq", -1)
        patience_ms = command.number("within", 2_000)
        waiting: list[tuple[str, list[object]]] = []
        for number, value in enumerate(command.rest()):
            data = encode_batch(
                [(1_000, None, value.encode(), ())],
                producer_id=pid,
                producer_epoch=0 if pid >= 0 else -1,
                base_sequence=sequence + number if pid >= 0 else -1,
            )
            request = ProduceRequest(
                ACKS_ALL if acks == "all" else int(acks),
                patience_ms,
                (ProducePart(self.topic_id, 0, -1),),
            )
            waiting.append((value, self._ask(node_id, request, (data,))))
            self._run(10)
        end_ms = self.cluster.clock.now_ms + patience_ms + 100
        while not all(answers for _, answers in waiting) and self.cluster.clock.now_ms < end_ms:
            self._run(10)
        return "\n".join(f"{value} {self._describe(answers)}" for value, answers in waiting)

    def _describe(self, answers: list[object]) -> str:
        if not answers:
            return "no answer"
        body = answers[0]
        assert isinstance(body, ProduceResponse)
        part = body.parts[0]
        if part.error:
            return f"{part.error.name} appended={part.appended.name.lower()}"
        return f"ok {part.base_offset}"

    # -- faults ------------------------------------------------------------------------------------

    def _nodes(self, command: Command) -> list[SimNode]:
        numbers = [int(number) for number in command.word(0).split(",")]
        return [self.cluster.nodes[number] for number in numbers]

    def do_crash(self, command: Command) -> str:
        for node in self._nodes(command):
            self.cluster.end(node, power_loss=False)
        return ""

    def do_power_loss(self, command: Command) -> str:
        for node in self._nodes(command):
            self.cluster.end(node, power_loss=True)
        return ""

    def do_restart(self, command: Command) -> str:
        for node in self._nodes(command):
            node.start()
        return ""

    def do_pause(self, command: Command) -> str:
        for node in self._nodes(command):
            node.pause()
        return ""

    def do_resume(self, command: Command) -> str:
        for node in self._nodes(command):
            node.resume()
        return ""

    def do_cut(self, command: Command) -> str:
        """Both directions. `controllers` stands for nodes 1 to 3, `client` for who produces."""
        first = self._names(command.word(0))
        for name in first:
            for other in self._names(command.word(1)):
                self.network.set_cut(name, other, True)
                self.network.set_cut(other, name, True)
        return ""

    def _names(self, text: str) -> list[str]:
        names: list[str] = []
        for word in text.split(","):
            if word == "controllers":
                names += [f"n{number}" for number in CONTROLLERS]
            else:
                names.append(word if word == "client" else f"n{int(word)}")
        return names

    def do_heal(self, command: Command) -> str:
        self.network.heal()
        return ""

    def do_hold(self, command: Command) -> str:
        link = (f"n{command.word_number(0)}", f"n{command.word_number(1)}")
        self.network.held_links[link] = None
        return ""

    def do_release(self, command: Command) -> str:
        count = command.word_number(0, len(self.network.held))
        if count == len(self.network.held):
            self.network.held_links.clear()
        for deliver, message in self.network.held[:count]:
            deliver(frames.decode(message))
        del self.network.held[:count]
        self._run(20)
        return ""

    # -- looking -----------------------------------------------------------------------------------

    def _serves(self, node: SimNode) -> bool:
        broker = node.core.broker if node.core is not None else None
        return broker is not None and broker.replicas.is_active and not broker.lifecycle.fenced

    def _replica(self, node_id: int) -> Partition | None:
        core = self.cluster.nodes[node_id].core
        if core is None or core.broker is None:
            return None
        return core.broker.replicas.partitions.get((self.topic_id, 0))

    def _leader(self) -> int:
        """By the newest metadata that any controller has applied."""
        images = [core.image for n in CONTROLLERS if (core := self.cluster.nodes[n].core)]
        image = max(images, key=lambda image: image.index)
        topic = image.topics.get(self.topic_id)
        return topic.partitions[0].leader if topic else -1

    def _status(self) -> str:
        lines = []
        for node_id in BROKERS:
            replica = self._replica(node_id)
            if replica is None:
                core = self.cluster.nodes[node_id].core
                if core is None or core.broker is None:
                    lines.append(f"n{node_id} down")
                elif not core.broker.replicas.is_active:
                    lines.append(f"n{node_id} starting")
                continue
            paused = " paused" if self.cluster.nodes[node_id].paused else ""
            isr = ",".join(map(str, replica.isr)) or "none"
            lines.append(
                f"n{node_id} {LETTERS[replica.role]} e={replica.leader_epoch} "
                f"leo={replica.log.log_end_offset} synced={replica.log.synced_end} "
                f"hw={replica.high_watermark} isr={isr}{paused}"
            )
        return "\n".join(lines)

    def do_status(self, command: Command) -> str:
        return self._status()

    def do_log(self, command: Command) -> str:
        lines = []
        for node_id in BROKERS:
            replica = self._replica(node_id)
            if replica is None:
                continue
            lines.append(f"n{node_id} {' '.join(_records(replica.log)) or 'empty'}")
        return "\n".join(lines)

    def do_values(self, command: Command) -> str:
        """As `log`, without the epochs, where these depend on who was back first."""
        return "\n".join(
            " ".join(word.partition("/")[0] for word in line.split())
            for line in self.do_log(command).splitlines()
        )

    def do_facts(self, command: Command) -> str:
        kind, node_id = command.word(0), command.number("node", 0)
        count = sum(1 for at, fact in self.facts if fact.kind == kind and node_id in (0, at))
        return str(count)


def _records(log: PartitionLog) -> list[str]:
    records: list[str] = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = log.read(offset, 2**30, log.log_end_offset)
        for header, batch in iterate_batches(data):
            offset = header.next_offset
            for record in decode_batch(batch):
                records.append(f"{(record.value or b'').decode()}/{header.leader_epoch}")
    return records
