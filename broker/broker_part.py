"""The broker in a node: recovery, standing with the controller, replicas, clients' requests.

One of the two parts of `core.NodeCore`; the other is the voter. Dispatch and order only: the rules
are in `lifecycle`, `replica`, `handlers` and `purgatory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from broker.config import NodeConfig
from broker.controller_channel import Call, ControllerChannel
from broker.events import (
    FAR_MS,
    Answered,
    Connection,
    Continue,
    Fact,
    Halt,
    Link,
    Plane,
    Received,
    Resume,
    Store,
    SyncToken,
    Unsent,
)
from broker.handlers.delete_records import DeleteRecordsHandler
from broker.handlers.fetch import FetchHandler
from broker.handlers.list_offsets import ListOffsetsHandler
from broker.handlers.metadata import describe
from broker.handlers.produce import ProduceHandler
from broker.handlers.producer_ids import ProducerIdHandler
from broker.lifecycle import BrokerLifecycle, Phase
from broker.log.log_manager import LogManager
from broker.outbox import Outbox
from broker.ports import Disk
from broker.purgatory import Purgatory
from broker.quorum.answers import refuse
from broker.quorum.image import MetadataDelta, MetadataImage
from broker.replica.replica_manager import ReplicaManager, sync_effect
from broker.upkeep import Upkeep
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AllocateProducerIdsResponse,
    AlterPartitionRequest,
    AlterPartitionResponse,
    AlterTopicRequest,
    AlterTopicResponse,
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteRecordsRequest,
    DeleteTopicRequest,
    DeleteTopicResponse,
    FetchRequest,
    FetchResponse,
    InitProducerIdRequest,
    ListOffsetsRequest,
    MetadataRequest,
    ProduceRequest,
)

RECOVERY = "recovery"
SHUTDOWN_PATH = "last-shutdown"
RUNNING, CLEAN = b"running\n", b"clean\n"
EARLY_REQUESTS_MAX = 1_000
TopicRequest = CreateTopicRequest | DeleteTopicRequest | AlterTopicRequest | CreatePartitionsRequest
"""What is for the active controller; any broker passes it on."""
QUESTIONS = MetadataRequest | InitProducerIdRequest | TopicRequest
"""What any serving broker can answer: clients may as well wait for this one."""


def shutdown_was_clean(disk: Disk) -> bool:
    """Whether the process before this one stopped with everything on disk."""
    return disk.exists(SHUTDOWN_PATH) and disk.read_whole(SHUTDOWN_PATH) == CLEAN


class BrokerPart:
    def __init__(
        self,
        config: NodeConfig,
        logs: LogManager,
        lifecycle: BrokerLifecycle,
        channel: ControllerChannel,
        outbox: Outbox,
        wall_ms: Callable[[], int],
    ) -> None:
        self.config = config
        self.logs = logs
        self.lifecycle = lifecycle
        self.channel = channel
        self.outbox = outbox
        self.image = MetadataImage()
        self.replicas = ReplicaManager(config, logs, outbox, self.image)
        self.purgatory = Purgatory()
        self.produce = ProduceHandler(self.replicas, self.purgatory, outbox, wall_ms)
        self.fetch = FetchHandler(self.replicas, self.purgatory, outbox)
        self.list_offsets = ListOffsetsHandler(self.replicas, outbox)
        self.producer_ids = ProducerIdHandler(config.node_id, channel, outbox)
        self.delete_records = DeleteRecordsHandler(self.replicas, outbox)
        self.upkeep = Upkeep(config, logs, self.replicas, outbox, wall_ms)
        self._recovery: Iterator[None] | None = None
        self._is_marked_running = False
        self._is_stopping = False
        self.is_stopped = False
        self.is_failed = False
        """The disk is not to be trusted: only requests are refused and the controller is told."""
        self._early: list[Received] = []
        """Clients' requests that came before this broker may serve."""
        self._alter_in_flight = False
        self._next_alter_ms = 0
        self._is_last_checkpoint_begun = False
        self._on_answer: dict[type, Callable[[Call, object, int], None]] = {
            BrokerRegistrationResponse: self._on_registered,
            BrokerHeartbeatResponse: self._on_heartbeat,
            AlterPartitionResponse: self._on_altered,
            AllocateProducerIdsResponse: self._on_allocated,
            CreateTopicResponse: self._on_forwarded,
            DeleteTopicResponse: self._on_forwarded,
            AlterTopicResponse: self._on_forwarded,
            CreatePartitionsResponse: self._on_forwarded,
        }

    # -- start: recover, make durable, register --------------------------------------------------

    def start(self) -> None:
        self._recovery = self.logs.recover()
        self.outbox.add(Store(SHUTDOWN_PATH, 0, RUNNING))
        self.outbox.add(Resume(RECOVERY))

    def on_continue(self, event: Continue, now_ms: int) -> None:
        """One slice of recovery; at its end everything kept is synced before it counts."""
        if event.work != RECOVERY or self._recovery is None:
            return
        for _ in self._recovery:
            self.outbox.add(Resume(RECOVERY))
            return
        self._recovery = None
        for log, request in self.logs.recovery_sync_requests():
            self.outbox.add(sync_effect((log.topic_id, log.partition), request))
        self._maybe_recovered(now_ms)

    def _maybe_recovered(self, now_ms: int) -> None:
        if self.lifecycle.phase is not Phase.RECOVERING or self._recovery is not None:
            return
        if not self._is_marked_running:
            return
        if any(log.synced_end < log.log_end_offset for log in self.logs.all()):
            return
        self.lifecycle.on_recovered(self.logs.damaged, now_ms)
        for log in self.logs.all():
            fact = Fact("Recovered", log.topic_id, log.partition, log_end_offset=log.log_end_offset)
            self.outbox.fact(fact)

    # -- metadata --------------------------------------------------------------------------------

    def on_image(self, image: MetadataImage, delta: MetadataDelta, now_ms: int) -> None:
        before, self.image = self.image, image
        for node_id in delta.brokers_changed:
            self._link_to(node_id, before, image)
        if self.is_failed:
            return
        if self.replicas.is_active:
            self.replicas.apply(image, delta, now_ms)
        self.check_activation(now_ms)

    def check_activation(self, now_ms: int) -> None:
        """Take up the roles once the image has reached our registration."""
        if self.lifecycle.on_image(self.image.index, now_ms):
            self.replicas.activate(self.image, self.lifecycle.broker_epoch, now_ms)
            early, self._early = self._early, []
            for event in early:
                self.on_request(event, now_ms)

    def _link_to(self, node_id: int, before: MetadataImage, image: MetadataImage) -> None:
        if node_id == self.config.node_id:
            return
        old, new = before.brokers.get(node_id), image.brokers[node_id]
        if old is None or (old.host, old.port) != (new.host, new.port):
            self.outbox.add(Link(node_id, Plane.BROKER, (new.host, new.port)))

    # -- requests of clients and followers -------------------------------------------------------

    def on_request(self, event: Received, now_ms: int) -> bool:
        """True when the request is one that brokers answer."""
        connection, correlation_id, body = event.connection, event.correlation_id, event.body
        if not self.replicas.is_active or self._is_stopping:
            return self._keep_early(event)
        match body:
            case ProduceRequest():
                self.produce.handle(connection, correlation_id, body, event.payload, now_ms)
            case FetchRequest():
                self.fetch.handle(connection, correlation_id, body, now_ms)
            case ListOffsetsRequest():
                self.list_offsets.handle(connection, correlation_id, body)
            case MetadataRequest():
                response = describe(
                    body, self.image, self.config.cluster_id, self.channel.controller_id
                )
                self.outbox.reply(connection, correlation_id, response)
            case InitProducerIdRequest():
                self.producer_ids.handle(connection, correlation_id, body, now_ms)
            case DeleteRecordsRequest():
                self.delete_records.handle(connection, correlation_id, body, now_ms)
            case (
                CreateTopicRequest()
                | DeleteTopicRequest()
                | AlterTopicRequest()
                | CreatePartitionsRequest()
            ):
                self._forward(connection, correlation_id, body, now_ms)
            case _:
                return False
        return True

    def _keep_early(self, event: Received) -> bool:
        """Before our registration is applied we know nothing fit to tell. Questions wait; produces
        and fetches get no answer, and their senders turn to whom the metadata names."""
        if isinstance(event.body, QUESTIONS):
            if len(self._early) < EARLY_REQUESTS_MAX:
                self._early.append(event)
            return True
        return isinstance(
            event.body, ProduceRequest | FetchRequest | ListOffsetsRequest | DeleteRecordsRequest
        )

    def _forward(
        self,
        connection: Connection,
        correlation_id: int,
        request: TopicRequest,
        now_ms: int,
    ) -> None:
        if not self.channel.call(request, now_ms, origin=(connection, correlation_id)):
            detail = "no active controller is known"
            answer = refuse(request, ErrorCode.NOT_CONTROLLER, detail)
            self.outbox.reply(connection, correlation_id, answer)

    # -- answers of the controller and of leaders ------------------------------------------------

    def on_answered(self, event: Answered, now_ms: int) -> None:
        if isinstance(event.body, FetchResponse):
            if self._is_stopping or self.is_failed:
                return  # nothing is appended behind the mark of a clean stop
            self.replicas.on_fetch_response(
                event.peer, event.correlation_id, event.body, tuple(event.payload), now_ms
            )
            return
        call = self.channel.take(event.correlation_id)
        handler = self._on_answer.get(type(event.body))
        if call is not None and handler is not None:
            handler(call, event.body, now_ms)

    def on_unsent(self, event: Unsent, now_ms: int) -> None:
        """A request of ours did not leave: as if lost, but known at once."""
        if event.plane is Plane.BROKER:
            self.replicas.on_unsent(event.peer, event.correlation_id, now_ms)
            return
        call = self.channel.take(event.correlation_id)
        if call is None:
            return
        if isinstance(call.request, TopicRequest):
            assert call.origin is not None
            detail = "the active controller is not connected"
            answer = refuse(call.request, ErrorCode.NOT_CONTROLLER, detail)
            self.outbox.reply(*call.origin, answer)
        else:
            self._on_lost(call, now_ms)

    def _on_registered(self, call: Call, body: object, now_ms: int) -> None:
        assert isinstance(body, BrokerRegistrationResponse)
        was_registering = self.lifecycle.phase is Phase.REGISTERING
        self._halt_if(self.lifecycle.on_registered(body, now_ms))
        if was_registering and self.lifecycle.phase is Phase.CATCHING_UP:
            self.logs.on_damage_reported()
        self.check_activation(now_ms)

    def _on_heartbeat(self, call: Call, body: object, now_ms: int) -> None:
        assert isinstance(body, BrokerHeartbeatResponse)
        self._halt_if(self.lifecycle.on_heartbeat(body, now_ms))

    def _on_altered(self, call: Call, body: object, now_ms: int) -> None:
        assert isinstance(body, AlterPartitionResponse)
        assert isinstance(call.request, AlterPartitionRequest)
        self._alter_in_flight = False
        if body.error is ErrorCode.NONE:
            if self.replicas.on_alter_response(body):
                self._next_alter_ms = now_ms + self.config.replica_fetch_backoff_ms
        else:
            self._retry_alter(call.request, now_ms)

    def _retry_alter(self, request: AlterPartitionRequest, now_ms: int) -> None:
        self._alter_in_flight = False
        self._next_alter_ms = now_ms + self.config.replica_fetch_backoff_ms
        self.replicas.repropose(request)

    def _on_allocated(self, call: Call, body: object, now_ms: int) -> None:
        assert isinstance(body, AllocateProducerIdsResponse)
        self.producer_ids.on_allocated(body)

    def _on_forwarded(self, call: Call, body: object, now_ms: int) -> None:
        assert call.origin is not None
        self.outbox.reply(*call.origin, body)

    def _on_lost(self, call: Call, now_ms: int) -> None:
        """A call to the controller timed out: its outcome is unknown."""
        request = call.request
        if isinstance(request, BrokerRegistrationRequest | BrokerHeartbeatRequest):
            self.lifecycle.on_lost(now_ms)
        elif isinstance(request, AlterPartitionRequest):
            self._retry_alter(request, now_ms)
        elif isinstance(request, TopicRequest):
            assert call.origin is not None
            answer = refuse(request, ErrorCode.REQUEST_TIMED_OUT, maybe_done=True)
            self.outbox.reply(*call.origin, answer)
        else:
            self.producer_ids.on_lost()

    def _halt_if(self, reason: str | None) -> None:
        if reason is not None:
            self.outbox.add(Halt(reason))

    # -- disk ------------------------------------------------------------------------------------

    def on_synced(self, token: SyncToken, now_ms: int) -> None:
        self.replicas.on_synced(token)
        self._maybe_recovered(now_ms)
        self._maybe_stopped()

    def fail(self, reason: str, now_ms: int) -> None:
        """A write or a sync failed, or a file does not hold what it must: what is on disk is
        unknown. Answer who waits; from now on lead nothing, follow nobody, write nothing."""
        if self.is_failed:
            return
        self.is_failed = True
        self.outbox.fact(Fact("DiskFailed", details={"reason": reason}))
        partitions = tuple(self.replicas.partitions.values())
        self.produce.fail_all(partitions, ErrorCode.STORAGE_ERROR)
        self.replicas.retire()
        self.fetch.on_settled(partitions, now_ms)

    # -- a stop in good order --------------------------------------------------------------------

    @property
    def has_left(self) -> bool:
        """Nobody counts on us, as far as our image says; or nobody ever did."""
        if self.lifecycle.phase is not Phase.SERVING:
            return True
        broker = self.image.brokers.get(self.config.node_id)
        return broker is None or broker.fenced

    def stop(self) -> None:
        """Sync every log; when all is on disk, say so for the next process. Nothing new is taken.

        A process that never registered may not call clean what it found unclean: its registration
        is what tells the controller of the loss.
        """
        self._is_stopping = True
        self._maybe_stopped()

    def _maybe_stopped(self) -> None:
        if not self._is_stopping or self.is_stopped:
            return
        if not self._is_last_checkpoint_begun:
            if not self._sync_all() or self.logs.is_checkpointing:
                return
            # The next process then reads next to nothing.
            self._is_last_checkpoint_begun = True
            self.upkeep.begin_checkpoint()
        if self.logs.is_checkpointing:
            return
        if self.lifecycle.broker_epoch >= 0 or self.lifecycle.clean_shutdown:
            self.outbox.add(Store(SHUTDOWN_PATH, 1, CLEAN))
        else:
            self.is_stopped = True

    def _sync_all(self) -> bool:
        """Ask for every sync that is missing; True once none is."""
        logs = self.logs.all()
        for log in logs:
            # Again after each sync: what was written while one was under way needs its own.
            request = log.sync_request(force=True)
            if request is not None:
                self.outbox.add(sync_effect((log.topic_id, log.partition), request))
        return all(log.synced_end >= log.log_end_offset for log in logs)

    def on_store_failed(self, path: str, reason: str) -> None:
        """A checkpoint that was not written leaves the older one, which is as true; without the
        mark that we run, the next process could take a crash for a clean stop."""
        if path != SHUTDOWN_PATH:
            self.logs.on_store_failed(path)
            self._maybe_stopped()
        elif not self._is_stopping:
            self.outbox.add(Halt(f"{path} cannot be written: {reason}"))

    def on_stored(self, path: str, generation: int, now_ms: int) -> None:
        if path == SHUTDOWN_PATH:
            self._is_marked_running = True
            self.is_stopped = generation == 1
            self._maybe_recovered(now_ms)
            return
        for request in self.logs.on_stored(path):
            self.outbox.add(Store(request.path, generation, request.data))
        self._maybe_stopped()

    # -- time and the end of a turn --------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        for call in self.channel.expired(now_ms):
            self._on_lost(call, now_ms)
        if self.lifecycle.is_due(now_ms):
            damaged = self.replicas.damages.reports()
            request = self.lifecycle.make_request(self.image.index, damaged)
            self.lifecycle.on_sent(self.channel.call(request, now_ms), now_ms)
        self.producer_ids.tick(self.lifecycle.broker_epoch, now_ms)
        produces, fetches = self.purgatory.expired(now_ms)
        for produce in produces:
            self.produce.on_expired(produce)
        for fetch in fetches:
            self.fetch.answer(fetch)
        self.delete_records.tick(now_ms)
        if self.replicas.is_active and not self.is_failed:
            self.upkeep.tick(now_ms, is_stopping=self._is_stopping)

    def settle(self, now_ms: int) -> None:
        """The end of a turn: everything that it touched is acted upon once."""
        if not self.replicas.is_active or self.is_failed:
            return
        settled = self.replicas.settle(now_ms)
        for partition in settled.touched:
            self.produce.on_settled(partition)
            self.delete_records.on_settled(partition)
        self.fetch.on_settled(settled.touched, now_ms)
        if not self._alter_in_flight and now_ms >= self._next_alter_ms:
            request = self.replicas.make_alter_request()
            if request is not None:
                self._alter_in_flight = self.channel.call(request, now_ms)
                if not self._alter_in_flight:
                    self._retry_alter(request, now_ms)

    def next_deadline_ms(self) -> int:
        if self.replicas.touched:
            return 0
        deadlines = [self.purgatory.next_deadline_ms(), self.lifecycle_deadline_ms()]
        if self.replicas.is_active and not self.is_failed:
            deadlines += [self.replicas.next_deadline_ms(), self.upkeep.next_deadline_ms()]
            if self.replicas.isr_change_wanted() and not self._alter_in_flight:
                deadlines.append(self._next_alter_ms)
        for optional in (
            self.channel.next_deadline_ms(),
            self.producer_ids.next_deadline_ms(),
            self.delete_records.next_deadline_ms(),
        ):
            if optional is not None:
                deadlines.append(optional)
        return min(deadlines)

    def lifecycle_deadline_ms(self) -> int:
        waiting = self.lifecycle.phase is Phase.RECOVERING or self.lifecycle.in_flight
        return FAR_MS if waiting else self.lifecycle.next_request_ms

    def on_pause(self, gap_ms: int) -> None:
        """We were deaf for a while: nobody lagged in that time."""
        for partition in self.replicas.partitions.values():
            for progress in partition.progress.values():
                progress.last_caught_up_ms += gap_ms
