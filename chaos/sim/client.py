"""Simulated clients: the real producer and consumer cores on the simulated network, and the history
of what they saw, as the clients of real runs write it."""

from __future__ import annotations

from collections.abc import Callable

from broker.events import Connection, Plane
from broker.wire import frames
from broker.wire.errors import ApiError
from chaos.history import HistoryWriter, encode_value, payload_crc
from chaos.recording import polled_partitions, write_end, write_position
from chaos.sim.cluster import SimCluster
from chaos.sim.plan import Plan
from chaos.workload import ClientPlan
from client.config import ConsumerConfig, ProducerConfig
from client.delivery import Completed, RecordHandle
from client.errors import ClientError
from client.events import Answered, CloseConnection, Send, Tick, is_bootstrap
from client.fetcher import FetcherCore, PositionChanged
from client.sender import ProducerCore

POLL_RECORDS_MAX = 500
POLL_GAP_MS_MAX = 60
TURN_MS_MAX = 20
NS_PER_MS = 1_000_000


class SimStopwatch:
    """Nanoseconds of virtual time, no two alike: what came first can be told."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._last_ns = 0

    def now_ns(self) -> int:
        self._last_ns = max(self._last_ns + 1, self._cluster.clock.now_ms * NS_PER_MS)
        return self._last_ns


class SimDriver:
    """The driver of one client core: its turns and its connections, until `end`.

    Whatever the core wants done besides sending and closing is told to `on_effect`.
    """

    def __init__(
        self,
        cluster: SimCluster,
        name: str,
        core: ProducerCore | FetcherCore,
        on_effect: Callable[[Completed | PositionChanged], None],
    ) -> None:
        self._cluster = cluster
        self._name = name
        cluster.client_count += 1
        self._identity = f"{name}.{cluster.client_count}"
        """A new client's connections are never an old one's, whatever its name."""
        self._core = core
        self._on_effect = on_effect
        self._versions: dict[int, int] = {}
        """By peer: how often its connection was replaced."""
        self._is_open = True

    def turn(self) -> None:
        """One turn; the next ones come by themselves."""
        if self._is_open:
            self._hand_over(Tick())
            until_ms = self._core.next_deadline_ms() - self._cluster.clock.now_ms
            self._cluster.clock.after(min(max(until_ms, 1), TURN_MS_MAX), self.turn)

    def end(self) -> None:
        self._is_open = False

    def _hand_over(self, event: Tick | Answered) -> None:
        for effect in self._core.handle(event, self._cluster.clock.now_ms):
            match effect:
                case Send():
                    self._send(effect)
                case CloseConnection(peer):
                    self._versions[peer] = self._versions.get(peer, 0) + 1
                case _:
                    self._on_effect(effect)

    def _send(self, effect: Send) -> None:
        cluster = self._cluster
        bootstrapping = is_bootstrap(effect.peer)
        target = cluster.nodes[cluster.node_at(effect.address) if bootstrapping else effect.peer]
        version = self._versions.get(effect.peer, 0)
        channel = f"{self._identity}.{effect.peer}.{version}"
        connection = Connection(Plane.BROKER, channel.encode())

        def answered(message: frames.Message) -> None:
            if self._is_open and self._versions.get(effect.peer, 0) == version:
                self._hand_over(
                    Answered(effect.peer, message.correlation_id, message.body, message.payload)
                )

        cluster.network.send(
            self._name,
            target.name,
            channel,
            frames.Kind.ONEWAY if effect.one_way else frames.Kind.REQUEST,
            effect.correlation_id,
            effect.body,
            effect.payload,
            lambda message: target.on_message(self._name, connection, message, answered),
        )


class SimProducer:
    """Sends bursts and settles them, session by session, as `chaos.proc.worker` does: after an
    unknown outcome its session ends and a new one begins."""

    def __init__(
        self,
        cluster: SimCluster,
        plan: Plan,
        topic: str,
        client: ClientPlan,
        history: HistoryWriter,
        watch: SimStopwatch,
    ) -> None:
        self.name = f"c{client.process}"
        self.counts = {"ok": 0, "fail": 0, "info": 0}
        self._cluster = cluster
        self._plan = plan
        self._topic = topic
        self._client = client
        self._history = history
        self._watch = watch
        self._session = -1
        self._open: list[tuple[int, RecordHandle]] = []
        self._is_sending = True
        self._begin_session()
        self._burst()

    # -- sessions --------------------------------------------------------------------------------

    def _begin_session(self) -> None:
        setup = self._plan.setup
        self._session += 1
        self._counter = 0
        self._is_good = True
        self._uid = self._client.producer_uid(self._session)
        config = ProducerConfig(
            bootstrap_servers=self._cluster.bootstrap,
            client_id=f"{self.name}.{self._session}",
            enable_idempotence=setup.idempotence,
            request_timeout_ms=setup.request_timeout_ms,
            delivery_timeout_ms=setup.delivery_timeout_ms,
            linger_ms=setup.linger_ms,
            batch_size=setup.batch_bytes,
            max_request_size=max(16_384, 2 * setup.batch_bytes),
        )
        settings = {"acks": config.required_acks, "idempotence": setup.idempotence}
        self._history.producer(self._watch.now_ns(), self._client.process, self._uid, settings)
        self._core = ProducerCore(config, self._cluster.choices.draw)
        self._driver = SimDriver(
            self._cluster, self.name, self._core, lambda effect: self._settle()
        )
        self._driver.turn()

    # -- records ---------------------------------------------------------------------------------

    def _burst(self) -> None:
        if not self._is_sending:
            return
        choices, load = self._cluster.choices, self._plan.load
        if not self._is_good:
            if not self._open:
                self._driver.end()
                self._begin_session()
        elif self._core.knows(self._topic, self._cluster.clock.now_ms):
            partition = choices.draw("load: partition", 0, self._plan.setup.partitions - 1)
            for _ in range(choices.draw("load: burst", 1, load.burst_max)):
                self._send(partition)
        self._cluster.clock.after(choices.draw("load: gap", 1, load.gap_ms_max), self._burst)

    def _send(self, partition: int) -> None:
        value = encode_value(self._uid, self._counter, self._plan.load.value_bytes)
        op = self._history.send(
            self._watch.now_ns(),
            self._client.process,
            self._topic,
            partition,
            self._uid,
            self._counter,
            payload_crc(value),
        )
        self._counter += 1
        now_ms = self._cluster.clock.now_ms
        try:
            handle = self._core.send(self._topic, value, partition=partition, now_ms=now_ms)
        except (ClientError, ApiError) as error:
            handle = None
            reason = type(error).__name__
        else:
            reason = "the buffer is full"
        if handle is None:
            # Nothing was queued, so nothing can ever have been written.
            self._history.fail(op, self._watch.now_ns(), reason, ())
            self.counts["fail"] += 1
        else:
            self._open.append((op, handle))

    def _settle(self) -> None:
        still_open = []
        for op, handle in self._open:
            if not handle.done():
                still_open.append((op, handle))
                continue
            outcome = write_end(self._history, op, self._watch.now_ns(), handle)
            self.counts[outcome] += 1
            self._is_good = self._is_good and outcome != "info"
            if outcome == "ok":
                where = handle.result(0)
                place = f"{where.topic}-{where.partition}"
                text = f"offset {where.offset} LE={where.leader_epoch}"
            else:
                place = f"{handle.topic}-{handle.partition}"
                text = str(handle.exception())
            self._cluster.tell(self.name, outcome, text, place)
        self._open = still_open

    # -- the end ---------------------------------------------------------------------------------

    def stop_sending(self) -> None:
        self._is_sending = False

    @property
    def is_settled(self) -> bool:
        return not self._open

    def end(self) -> None:
        self._is_sending = False
        self._driver.end()


class SimConsumer:
    """Reads everything from the beginning, again and again polling at the end."""

    def __init__(
        self,
        cluster: SimCluster,
        plan: Plan,
        topic: str,
        client: ClientPlan,
        history: HistoryWriter,
        watch: SimStopwatch,
    ) -> None:
        self.name = f"c{client.process}"
        self.read_count = 0
        self._cluster = cluster
        self._client = client
        self._history = history
        self._watch = watch
        config = ConsumerConfig(
            bootstrap_servers=cluster.bootstrap,
            client_id=self.name,
            auto_offset_reset="earliest",
            request_timeout_ms=plan.setup.request_timeout_ms,
            max_poll_records=POLL_RECORDS_MAX,
        )
        self._core = FetcherCore(config, cluster.choices.draw)
        self._core.assign((topic, number) for number in range(plan.setup.partitions))
        self._is_open = True
        self._op = history.poll(watch.now_ns(), client.process)
        self._driver = SimDriver(cluster, self.name, self._core, self._on_effect)
        self._driver.turn()
        self._poll()

    def _on_effect(self, effect: Completed | PositionChanged) -> None:
        assert isinstance(effect, PositionChanged), effect
        write_position(self._history, self._watch.now_ns(), self._client.process, effect)

    def _poll(self) -> None:
        """End the poll that is open with what is there, and begin the next one."""
        if not self._is_open:
            return
        try:
            records = self._core.take(POLL_RECORDS_MAX)
        except (ClientError, ApiError) as error:
            self._history.info(self._op, self._watch.now_ns(), type(error).__name__, ())
        else:
            self._history.records(self._op, self._watch.now_ns(), polled_partitions(records))
            self.read_count += len(records)
        self._op = self._history.poll(self._watch.now_ns(), self._client.process)
        gap_ms = self._cluster.choices.draw("load: poll gap", 1, POLL_GAP_MS_MAX)
        self._cluster.clock.after(gap_ms, self._poll)

    def end(self) -> None:
        self._is_open = False
        self._driver.end()
