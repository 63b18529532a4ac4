"""NodeCore: one node without I/O. `handle(events, now_ms) -> effects` is the whole of it.

The real server (`server`) and the simulator are two drivers of this one function and contain no
rule. A call handles everything that had arrived at one wake-up: Raft and controller traffic first
(a heartbeat that is in the inbox must win against a timer), then timers, then partitions, and at
the end, once, syncs, watermarks, answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.broker_part import BrokerPart, shutdown_was_clean
from broker.config import NodeConfig
from broker.controller_channel import ControllerChannel
from broker.controller_host import ControllerHost
from broker.events import (
    FAR_MS,
    Answered,
    Continue,
    Effect,
    Event,
    Fact,
    Halt,
    Link,
    Paused,
    Plane,
    Received,
    Scrubbed,
    ScrubFailed,
    Stored,
    StoreFailed,
    Synced,
    SyncFailed,
    SyncToken,
    Unsent,
)
from broker.handlers.describe import describe_node
from broker.handlers.metadata_fetch import MetadataFetchHandler
from broker.lifecycle import BrokerLifecycle
from broker.log.cold_batches import ColdRead
from broker.log.errors import CorruptFile
from broker.log.log_manager import LogManager
from broker.metadata_feed import MetadataFeed
from broker.outbox import Outbox
from broker.ports import Disk, DiskError
from broker.quorum.image import MetadataImage, difference
from broker.quorum.image_codec import image_of, snapshot_of
from broker.quorum.raft_driver import RAFT_LOG, RaftDriver
from broker.quorum.raft_store import PATH as RAFT_PATH
from broker.quorum.record_text import describe_records
from broker.quorum.records import decode_entry
from broker.shutdown import Shutdown, Stage
from broker.wire.messages import (
    DescribeNodeRequest,
    MetadataFetchRequest,
    MetadataFetchResponse,
    RaftRequest,
)
from raft.types import Entry, Snapshot

Details = dict[str, int | str | bool | tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this data directory belongs to, as written when it was formatted."""

    cluster_id: str
    node_id: int
    disk_id: str


class NodeCore:
    """One incarnation of one node.

    `incarnation` is drawn anew at each start. `draw(label, low, high)` is the only source of
    chance, bounds included; `wall_ms()` tells the time of day, which decides nothing but what is
    too old and when a leader says it appended. Assertion errors of `start` and `handle` mean that
    the process must end; what is on disk is good for a restart. When the disk fails the node
    leaves, then halts.
    """

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        disk: Disk,
        incarnation: str,
        draw: Callable[[str, int, int], int],
        wall_ms: Callable[[], int],
    ) -> None:
        self.config = config
        self.identity = identity
        self.disk = disk
        self.counters: dict[str, int] = {}
        self.image = MetadataImage()
        self.outbox = Outbox(config.node_id, config.facts)
        self.channel = ControllerChannel(self.outbox, config.controller_request_timeout_ms)
        self.driver: RaftDriver | None = None
        self.controller: ControllerHost | None = None
        self.metadata_fetch: MetadataFetchHandler | None = None
        self.feed: MetadataFeed | None = None
        self.broker: BrokerPart | None = None
        self._quorum_moved = True
        """Something reached Raft or the controller since Raft was last pumped."""
        self._quorum_deadline_ms = 0
        """When Raft or the controller want to be called although nothing arrives."""
        if self._is_voter():
            self.driver = RaftDriver(config, identity.disk_id, disk, draw)
            self.controller = ControllerHost(config, self.driver, self.outbox, draw)
            self.metadata_fetch = MetadataFetchHandler(config.cluster_id, self.outbox)
        else:
            self.feed = MetadataFeed(
                config.cluster_id,
                config.node_id,
                tuple(v.node_id for v in config.voters if v.node_id != config.node_id),
                self.outbox,
                config.controller_request_timeout_ms,
            )
        if config.is_broker:
            was_clean = shutdown_was_clean(disk)
            lifecycle = BrokerLifecycle(config, identity.disk_id, incarnation, was_clean)
            logs = LogManager(disk, index_interval_bytes=config.log_index_interval_bytes)
            self.broker = BrokerPart(config, logs, lifecycle, self.channel, self.outbox, wall_ms)
        self._shutdown = Shutdown(config, self.broker, self.driver, self.outbox)
        self._trouble = _DiskTrouble(self._on_disk_failed)

    def _is_voter(self) -> bool:
        """A voter counts only with the disk it was named with: a wiped one takes no part."""
        return self.config.is_controller and any(
            voter.node_id == self.config.node_id and voter.disk_id == self.identity.disk_id
            for voter in self.config.voters
        )

    def start(self, now_ms: int) -> list[Effect]:
        if self.feed is not None and not self.feed.voters:
            reason = (
                f"the voters name node {self.config.node_id} with another disk than "
                f"{self.identity.disk_id}, and there is no other voter to learn the metadata from"
            )
            return [Halt(reason)]
        for voter in self.config.voters:
            if voter.node_id != self.config.node_id:
                self.outbox.add(Link(voter.node_id, Plane.CONTROLLER, (voter.host, voter.port)))
        if self.driver is not None:
            for effect in self.driver.start(now_ms):
                self.outbox.add(effect)
        if self.broker is not None:
            self.broker.start()
        return self.outbox.take()

    # -- one turn ----------------------------------------------------------------------------------

    def handle(self, events: Sequence[Event], now_ms: int) -> list[Effect]:
        """The effects of everything that arrived at one wake-up; no events: a timer is due."""
        later: list[Event] = []
        for event in events:
            if _goes_first(event):
                self._on_event(event, now_ms)
            else:
                later.append(event)
        self._advance_metadata(now_ms)
        for event in later:
            self._on_event(event, now_ms)
        self._tick(now_ms)
        self._advance_metadata(now_ms)
        if self.broker is not None:
            with self._trouble.at(now_ms):
                self.broker.settle(now_ms)
            self._advance_metadata(now_ms)
        if self._shutdown.stage is not Stage.RUNNING:
            with self._trouble.at(now_ms):
                self._shutdown.advance(now_ms)
            self._quorum_moved = True
            self._advance_metadata(now_ms)
        self._maybe_compact(now_ms)
        return self.outbox.take()

    def _on_event(self, event: Event, now_ms: int) -> None:
        with self._trouble.at(now_ms):
            self._dispatch(event, now_ms)

    def _dispatch(self, event: Event, now_ms: int) -> None:
        match event:
            case Received():
                self._on_request(event, now_ms)
            case Answered():
                self._on_answered(event, now_ms)
            case Unsent():
                self._on_unsent(event, now_ms)
            case Synced(token):
                self._on_synced(token, now_ms)
            case SyncFailed(token, reason):
                self._on_sync_failed(token, reason, now_ms)
            case Stored() | StoreFailed() if event.path == RAFT_PATH:
                self._on_replaced(event, now_ms)
            case Stored(path, generation):
                if (broker := self._disk_user) is not None:
                    broker.on_stored(path, generation, now_ms)
            case StoreFailed(path, reason=reason):
                self._count("store_failures")
                if (broker := self._disk_user) is not None:
                    broker.on_store_failed(path, reason)
            case Scrubbed(position, next_offset, problem):
                if (broker := self._disk_user) is not None:
                    broker.upkeep.on_scrubbed(ColdRead(position, next_offset, problem))
            case ScrubFailed():
                if (broker := self._disk_user) is not None:
                    broker.upkeep.on_scrubbed(None)
            case Continue():
                if (broker := self._disk_user) is not None:
                    broker.on_continue(event, now_ms)
            case Paused(gap_ms):
                self._on_pause(gap_ms, now_ms)

    def _on_request(self, event: Received, now_ms: int) -> None:
        body = event.body
        if isinstance(body, RaftRequest):
            if self.driver is not None and event.connection.plane is Plane.CONTROLLER:
                self._quorum_moved = True
                self.driver.step(body, now_ms)
            return
        if isinstance(body, DescribeNodeRequest):
            response = self._describe(body)
            self.outbox.reply(event.connection, event.correlation_id, response)
            return
        if event.connection.plane is Plane.CONTROLLER:
            self._on_controller_request(event, now_ms)
        elif self.broker is None or not self.broker.on_request(event, now_ms):
            self._count("requests_refused")

    def _on_controller_request(self, event: Received, now_ms: int) -> None:
        body = event.body
        if isinstance(body, MetadataFetchRequest):
            if self.metadata_fetch is not None and self.driver is not None:
                self.metadata_fetch.handle(
                    event.connection, event.correlation_id, body, self.driver.node, now_ms
                )
        elif self.controller is not None and self.controller.handles(body):
            self._quorum_moved = True
            self.controller.handle(
                event.connection,
                event.correlation_id,
                body,  # type: ignore[arg-type]
                self.image,
                now_ms,
            )
        else:
            self._count("requests_refused")

    def _on_answered(self, event: Answered, now_ms: int) -> None:
        if isinstance(event.body, MetadataFetchResponse):
            if self.feed is not None:
                response = event.body
                for item in self.feed.on_response(event.correlation_id, response, now_ms):
                    self._apply(item, now_ms)
                if response.leader_id >= 0:
                    self.channel.controller_id = response.leader_id
        elif self.broker is not None:
            self.broker.on_answered(event, now_ms)

    def _on_unsent(self, event: Unsent, now_ms: int) -> None:
        if self.feed is not None:
            self.feed.on_unsent(event.correlation_id, now_ms)
        if self.broker is not None:
            self.broker.on_unsent(event, now_ms)

    # -- metadata ----------------------------------------------------------------------------------

    def _advance_metadata(self, now_ms: int) -> None:
        """Pump Raft, apply what is committed, and serve ourselves until nothing moves."""
        while self._quorum_moved or self.outbox.local:
            if self._quorum_moved and self.driver is not None:
                self._quorum_moved = False
                output = self.driver.pump(now_ms)
                for effect in output.effects:
                    self.outbox.add(effect)
                for item in output.committed:
                    self._apply(item, now_ms)
                self.channel.controller_id = self._known_leader()
                assert self.controller is not None
                self.controller.on_progress(self.image, now_ms)
                self._note_quorum_deadline()
            self._quorum_moved = self._quorum_moved and self.driver is not None
            while self.outbox.local:
                self._on_event(self.outbox.local.popleft(), now_ms)

    def _note_quorum_deadline(self) -> None:
        deadlines = [FAR_MS]
        for part in (self.driver, self.controller):
            deadline_ms = part.next_deadline_ms() if part is not None else None
            if deadline_ms is not None:
                deadlines.append(deadline_ms)
        self._quorum_deadline_ms = min(deadlines)

    def _known_leader(self) -> int:
        node = self.driver.node if self.driver is not None else None
        return -1 if node is None or node.leader_id is None else node.leader_id

    def _apply(self, item: Entry | Snapshot, now_ms: int) -> None:
        if isinstance(item, Snapshot):
            before, self.image = self.image, image_of(item)
            delta = difference(before, self.image)
            details: Details = {"index": item.index, "term": item.term}
            self.outbox.fact(Fact("Restored", details=details))
        else:
            records = decode_entry(item.data) if item.data else ()
            self.image, delta = self.image.apply_entry(item.index, item.term, records)
            if self.outbox.facts_on:
                details = {"index": item.index, "term": item.term}
                details["records"] = describe_records(records)
                self.outbox.fact(Fact("Applied", details=details))
        if self.broker is not None:
            with self._trouble.at(now_ms):
                self.broker.on_image(self.image, delta, now_ms)

    # -- disk --------------------------------------------------------------------------------------

    def _on_synced(self, token: SyncToken, now_ms: int) -> None:
        if token.log == RAFT_LOG:
            if self.driver is not None:
                self._quorum_moved = True
                self.driver.on_synced(token, now_ms)
        elif (broker := self._disk_user) is not None:
            broker.on_synced(token, now_ms)

    @property
    def _disk_user(self) -> BrokerPart | None:
        """The broker, unless its disk has failed: what the device answers then proves nothing."""
        return None if self.broker is None or self.broker.is_failed else self.broker

    def _on_replaced(self, event: Stored | StoreFailed, now_ms: int) -> None:
        """What became of the metadata log's new beginning."""
        if self.driver is None:
            return
        self._quorum_moved = True
        if isinstance(event, Stored):
            self.driver.on_stored(event.path)
        else:
            self._count("store_failures")
            self.driver.on_store_failed(event, now_ms)

    def _maybe_compact(self, now_ms: int) -> None:
        """When the metadata log has grown long, let the image stand for what made it."""
        if self.driver is not None and self.driver.wants_snapshot:
            for effect in self.driver.compact(snapshot_of(self.image), now_ms):
                self.outbox.add(effect)
            self._note_quorum_deadline()

    def _on_sync_failed(self, token: SyncToken, reason: str, now_ms: int) -> None:
        if token.log == RAFT_LOG:
            if self.driver is not None:
                self._quorum_moved = True
                self.driver.on_sync_failed(token, reason)
        else:
            self._on_disk_failed(reason, now_ms)

    def _on_disk_failed(self, reason: str, now_ms: int) -> None:
        """The partitions' part of the disk cannot be trusted any more: claim nothing of it from now
        on, let others lead at once, then halt. The quorum goes on until then."""
        if self.broker is not None:
            self.broker.fail(reason, now_ms)
        self._shutdown.fail(reason, now_ms)

    def stop(self, now_ms: int) -> None:
        """Begin to stop in good order. Go on calling `handle`, at once, until `is_stopped`."""
        self._shutdown.begin(now_ms)

    @property
    def is_stopped(self) -> bool:
        return self._shutdown.stage is Stage.STOPPED

    # -- time --------------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> None:
        if self.driver is not None and now_ms >= self._quorum_deadline_ms:
            assert self.controller is not None
            self._quorum_moved = True
            self.driver.tick(now_ms)
            self.controller.tick(now_ms)
        if self.metadata_fetch is not None:
            self.metadata_fetch.tick(self.driver.node if self.driver else None, now_ms)
        if self.feed is not None:
            self.feed.poll(now_ms)
        if self.broker is not None:
            with self._trouble.at(now_ms):
                self.broker.tick(now_ms)

    def next_deadline_ms(self) -> int:
        """When `handle` must be called although nothing arrives."""
        deadlines = [FAR_MS if self.driver is None else self._quorum_deadline_ms]
        deadlines.append(self._shutdown.next_deadline_ms())
        if self.feed is not None:
            deadlines.append(self.feed.next_deadline_ms())
        if self.broker is not None:
            deadlines.append(self.broker.next_deadline_ms())
        if self.metadata_fetch is not None:
            deadline_ms = self.metadata_fetch.next_deadline_ms()
            if deadline_ms is not None:
                deadlines.append(deadline_ms)
        return min(deadlines)

    def _on_pause(self, gap_ms: int, now_ms: int) -> None:
        self._count("pauses")
        if self.driver is not None and self.controller is not None:
            self._quorum_moved = True
            self.driver.on_pause(gap_ms, now_ms)
            self.controller.controller.shift_sessions(gap_ms)
        if self.broker is not None:
            self.broker.on_pause(gap_ms)

    # -- for people --------------------------------------------------------------------------------

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    def _describe(self, request: DescribeNodeRequest) -> object:
        broker = self.broker
        return describe_node(
            request,
            self.config,
            self.image.index,
            self.channel.controller_id,
            broker.lifecycle if broker else None,
            broker.replicas if broker else None,
            self.driver.node if self.driver else None,
            self.counters,
        )


class _DiskTrouble:
    """Around everything the broker does: a write that failed and left who knows what, or a file
    that does not hold what it must, ends the broker and not the turn."""

    __slots__ = ("_now_ms", "_on_failed")

    def __init__(self, on_failed: Callable[[str, int], None]) -> None:
        self._on_failed = on_failed
        self._now_ms = 0

    def at(self, now_ms: int) -> _DiskTrouble:
        self._now_ms = now_ms
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, DiskError | CorruptFile):
            self._on_failed(str(error), self._now_ms)
            return True
        return False


def _goes_first(event: Event) -> bool:
    """Pauses, Raft and controller traffic before partitions."""
    if isinstance(event, Received):
        return event.connection.plane is Plane.CONTROLLER
    if isinstance(event, Answered | Unsent):
        return event.plane is Plane.CONTROLLER
    return isinstance(event, Paused)
