"""One simulated node: the second driver of NodeCore, with a disk that outlives its processes.

Contains no rule. A process may end or be stopped between any two effects and at any call of its
disk; what was written and not synced is the disk's to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.config import NodeConfig
from broker.core import Identity, NodeCore
from broker.events import Answered as NodeAnswered
from broker.events import (
    Connection,
    Continue,
    Effect,
    Event,
    Fact,
    Halt,
    Link,
    Paused,
    Plane,
    Received,
    Remove,
    Reply,
    ResetLink,
    Resume,
    Scrub,
    Scrubbed,
    ScrubFailed,
    Send,
    Store,
    Stored,
    StoreFailed,
    Sync,
    Synced,
    SyncFailed,
)
from broker.log.cold_batches import look
from broker.log.errors import CorruptFile
from broker.ports import DiskError
from broker.wire import frames
from chaos.sim.clock import NodeClock
from chaos.sim.disk import Crash, SimDisk

if TYPE_CHECKING:
    from chaos.sim.cluster import SimCluster

ReplyTo = Callable[[frames.Message], None]
TURN_MS_MAX = 100
"""As the real loop does, a node turns at least this often."""


class SimNode:
    def __init__(self, cluster: SimCluster, config: NodeConfig, identity: Identity) -> None:
        self.cluster = cluster
        self.config = config
        self.identity = identity
        self.name = f"n{config.node_id}"
        self.disk = SimDisk()
        self.clock = NodeClock(cluster.clock)
        self.core: NodeCore | None = None
        self.incarnation = 0
        self.wipe_count = 0
        self.paused = False
        self.sync_ms_max = -1
        """How long its disk takes for a sync at most; -1: as long as any."""
        self.hangs_until_ms = 0
        """Syncs asked for before this moment hang until it."""
        self.disk_fails_until_ms = -1
        """A fault makes its disk fail: until then, and only then, the process may give up."""
        self.leaves_since = 0
        """The incarnation that said that its disk has failed, when it did."""
        self._countdown: tuple[int, Callable[[], None]] | None = None
        """(effects from now, what happens then)"""
        self._unfinished: list[Effect] = []
        """What the process was about to do when it was stopped in the middle of a turn."""
        self._is_stopping = False
        self.starts_again = False
        """To be started once it has stopped."""
        self._inbox: list[Event] = []
        self._wake_ms = -1
        self._last_turn_ms = 0
        self._link_versions: dict[tuple[int, Plane], int] = {}
        self._reply_to: dict[Connection, tuple[str, ReplyTo]] = {}

    @property
    def is_up(self) -> bool:
        return self.core is not None

    @property
    def disk_fails(self) -> bool:
        return self.cluster.clock.now_ms <= self.disk_fails_until_ms

    @property
    def starts_on_full_disk(self) -> bool:
        """Then it may say that it cannot, as nobody counts on it yet."""
        broker = self.core.broker if self.core is not None else None
        is_new = broker is None or broker.lifecycle.broker_epoch < 0
        return is_new and self.disk.capacity_bytes < 2**62

    # -- processes -------------------------------------------------------------------------------

    def start(self) -> None:
        assert self.core is None
        self.incarnation += 1
        self._is_stopping = False
        self.starts_again = False
        self._inbox = []
        self._reply_to = {}
        self._wake_ms = -1
        try:
            self.core = NodeCore(
                self.config,
                self.identity,
                self.disk,
                f"{self.name}.{self.incarnation}",
                self.cluster.choices.draw,
                lambda: self.clock.now_ms,
            )
            self._last_turn_ms = self.clock.now_ms
            effects = self.core.start(self.clock.now_ms)
        except (DiskError, CorruptFile) as error:
            self.core = None
            self.cluster.on_halt(self, f"does not start: {error}")
            return
        self._execute(effects)
        self.wake()

    def crash(self, *, power_loss: bool) -> None:
        """The process ends at once; with a power loss the disk forgets what was not synced."""
        self.core = None
        self.paused = False
        self._unfinished = []
        self._countdown = None
        if power_loss:
            self.disk.power_loss(self.cluster.choices.draw)
        else:
            self.disk.process_crash()

    def wipe(self) -> None:
        """The process ends and its disk is lost; the next start finds a new, empty one."""
        self.crash(power_loss=False)
        self.wipe_count += 1
        self.disk = SimDisk()
        disk_id = f"disk{self.config.node_id}.{self.wipe_count}"
        self.identity = replace(self.identity, disk_id=disk_id)

    def stop(self) -> None:
        """Ask the process to stop in good order; it is down once it has."""
        assert self.core is not None
        self._is_stopping = True
        self.starts_again = False
        self.core.stop(self.clock.now_ms)
        self.wake()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        if self.core is None or not self.paused:
            return
        self.paused = False
        effects, self._unfinished = self._unfinished, []
        self._execute(effects)
        self.wake()

    def after_effects(self, count: int, action: Callable[[], None]) -> None:
        """Do something to the process when it has carried out `count` more effects."""
        self._countdown = (count, action)

    def repair(self) -> None:
        """The disk and the clock are sound again, nothing waits to befall the process."""
        self.sync_ms_max = -1
        self.hangs_until_ms = 0
        self.disk.forget_plans()
        self.disk.capacity_bytes = 2**62
        self.clock.set_rate(1_000)
        self._countdown = None

    # -- turns -----------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        if self.core is not None:
            self._inbox.append(event)
            self.wake()

    def wake(self, delay_ms: int = 0) -> None:
        """Ask for a turn; only the earliest one asked for counts."""
        at_ms = self.cluster.clock.now_ms + delay_ms
        if self._wake_ms >= self.cluster.clock.now_ms and self._wake_ms <= at_ms:
            return
        self._wake_ms = at_ms
        incarnation = self.incarnation

        def turn() -> None:
            if self.incarnation == incarnation and self._wake_ms == at_ms:
                self._wake_ms = -1
                self._turn()

        self.cluster.clock.at(at_ms, turn)

    def _turn(self) -> None:
        if self.core is None or self.paused:
            return
        now_ms = self.clock.now_ms
        events, self._inbox = self._inbox, []
        gap_ms = now_ms - self._last_turn_ms
        if gap_ms > self.config.pause_ms:
            events.insert(0, Paused(gap_ms))
        self._last_turn_ms = now_ms
        self.cluster.event_count += len(events) + 1
        incarnation = self.incarnation
        try:
            effects = self.core.handle(events, now_ms)
        except Crash:
            self.cluster.crash_as_drawn(self)
            return
        except AssertionError as error:
            # An impossible state ends the process; here it is what we are looking for.
            self.cluster.on_assertion(self, error)
            return
        self._execute(effects)
        if self.core is None or self.incarnation != incarnation:
            return
        self.cluster.after_turn(self)
        if self._is_stopping and self.core.is_stopped:
            self.cluster.lose_what_rots(self)
            self.core = None
            self.disk.process_crash()
            if self.starts_again:
                self.cluster.start(self)
            return
        until_ms = min(max(self.core.next_deadline_ms() - now_ms, 1), TURN_MS_MAX)
        # Never twice in one millisecond.
        self.wake(self.clock.true_delay_ms(until_ms) if not self._inbox else 1)

    def _execute(self, effects: list[Effect]) -> None:
        """Carry out effects in order; the process may end, or be stopped, before any of them."""
        incarnation = self.incarnation
        for position, effect in enumerate(effects):
            if self._countdown is not None:
                count, action = self._countdown
                self._countdown = (count - 1, action)
                if count <= 0:
                    self._countdown = None
                    action()
            if self.core is None or self.incarnation != incarnation:
                return
            if self.paused:
                self._unfinished = effects[position:]
                return
            try:
                self._carry_out(effect)
            except Crash:
                self.cluster.crash_as_drawn(self)
            if self.core is None or self.incarnation != incarnation:
                return

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Fact():
                self.cluster.on_fact(self, effect)
            case Reply():
                self._reply(effect)
            case Send():
                self._send(effect)
            case Sync():
                self._sync(effect)
            case Store(path, generation, data):
                self._later("disk: store", lambda: self._stored(path, generation, data))
            case Scrub():
                self._later("disk: scrub", lambda: self._scrub(effect))
            case Remove(path):
                self.disk.remove(path)
            case Resume(work):
                self._inbox.append(Continue(work))
            case Link() | ResetLink():
                key = (effect.peer, effect.plane)
                self._link_versions[key] = self._link_versions.get(key, 0) + 1
            case Halt(reason):
                self.cluster.on_halt(self, reason)

    # -- disk ------------------------------------------------------------------------------------

    def _later(self, label: str, action: Callable[[], None]) -> int:
        """Do something on the disk after a drawn delay, if the process still lives then. Returns
        the delay."""
        incarnation = self.incarnation

        def due() -> None:
            if self.core is not None and self.incarnation == incarnation:
                try:
                    action()
                except Crash:
                    self.cluster.crash_as_drawn(self)

        slowest_ms = self.cluster.sync_ms_max if self.sync_ms_max < 0 else self.sync_ms_max
        delay_ms = self.cluster.choices.draw(label, 0, slowest_ms)
        delay_ms += max(0, self.hangs_until_ms - self.cluster.clock.now_ms)
        self.cluster.clock.after(delay_ms, due)
        return delay_ms

    def _sync(self, effect: Sync) -> None:
        """What the device threads do: the answer comes when all is durable, or it failed, or it
        took so long that they have given it up."""
        paths = [*effect.files, *effect.directories]
        try:
            for path in paths:
                self.disk.fail_if_told("sync", path)
            pending = self.disk.prepare_sync(effect.files, effect.directories)
        except DiskError as error:
            self.receive(SyncFailed(effect.token, str(error)))
            return
        answered = False

        def answer(event: Event) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self.receive(event)

        def synced() -> None:
            pending.complete()
            answer(Synced(effect.token))

        delay_ms = self._later("disk: sync", synced)
        if delay_ms > self.config.disk_stall_ms_max:
            incarnation = self.incarnation

            def stalled() -> None:
                if self.incarnation == incarnation:
                    answer(SyncFailed(effect.token, "the disk hangs"))

            self.cluster.clock.after(self.config.disk_stall_ms_max, stalled)

    def _stored(self, path: str, generation: int, data: bytes) -> None:
        try:
            self.disk.store(path, data)
        except DiskError as error:
            self.receive(StoreFailed(path, generation, str(error)))
            return
        self.receive(Stored(path, generation))

    def _scrub(self, effect: Scrub) -> None:
        try:
            read = self.disk.open(effect.path).read
            seen = look(
                read, effect.position, effect.end_position, effect.next_offset, effect.epochs
            )
        except DiskError:
            self.receive(ScrubFailed())
            return
        self.receive(Scrubbed(*seen))

    # -- messages --------------------------------------------------------------------------------

    def _send(self, effect: Send) -> None:
        target = self.cluster.nodes[effect.peer]
        key = (effect.peer, effect.plane)
        version = self._link_versions.get(key, 0)
        incarnation = self.incarnation
        connection = Connection(
            effect.plane, f"{self.name}.{incarnation}.{effect.plane.value}.{version}".encode()
        )

        def answered(message: frames.Message) -> None:
            if self.incarnation == incarnation and self._link_versions.get(key, 0) == version:
                self.receive(
                    NodeAnswered(
                        effect.peer,
                        effect.plane,
                        message.correlation_id,
                        message.body,
                        message.payload,
                    )
                )

        kind = frames.Kind.ONEWAY if effect.one_way else frames.Kind.REQUEST
        self.cluster.network.send(
            self.name,
            target.name,
            connection.routing_id.decode(),
            kind,
            effect.correlation_id,
            effect.body,
            (),
            lambda message: target.on_message(self.name, connection, message, answered),
        )

    def on_message(
        self, source: str, connection: Connection, message: frames.Message, reply_to: ReplyTo
    ) -> None:
        """A request arrived; answers to its connection go through `reply_to`."""
        if self.core is None:
            return
        self._reply_to[connection] = (source, reply_to)
        self.receive(Received(connection, message.correlation_id, message.body, message.payload))

    def _reply(self, effect: Reply) -> None:
        target, deliver = self._reply_to[effect.connection]
        self.cluster.network.send(
            self.name,
            target,
            effect.connection.routing_id.decode(),
            frames.Kind.RESPONSE,
            effect.correlation_id,
            effect.body,
            effect.payload,
            deliver,
        )
