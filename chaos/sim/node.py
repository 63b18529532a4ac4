"""One simulated node: the second driver of NodeCore, with a disk that outlives its processes.

Contains no rule. A process may end between any two effects; what was written and not synced is the
disk's to judge.
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
    Send,
    Store,
    Stored,
    StoreFailed,
    Sync,
    Synced,
    SyncFailed,
)
from broker.ports import DiskError
from broker.wire import frames
from chaos.sim.disk import SimDisk

if TYPE_CHECKING:
    from chaos.sim.cluster import SimCluster

ReplyTo = Callable[[frames.Message], None]


class SimNode:
    def __init__(self, cluster: SimCluster, config: NodeConfig, identity: Identity) -> None:
        self.cluster = cluster
        self.config = config
        self.identity = identity
        self.name = f"n{config.node_id}"
        self.disk = SimDisk()
        self.core: NodeCore | None = None
        self.incarnation = 0
        self.wipe_count = 0
        self.paused = False
        self.halted: str | None = None
        self._is_stopping = False
        self._inbox: list[Event] = []
        self._wake_ms = -1
        self._last_turn_ms = 0
        self._link_versions: dict[tuple[int, Plane], int] = {}
        self._reply_to: dict[Connection, tuple[str, ReplyTo]] = {}

    @property
    def is_up(self) -> bool:
        return self.core is not None

    # -- processes -------------------------------------------------------------------------------

    def start(self) -> None:
        assert self.core is None
        self.incarnation += 1
        self.halted = None
        self._is_stopping = False
        self._inbox = []
        self._reply_to = {}
        self._wake_ms = -1
        name = f"{self.name}.{self.incarnation}"
        self.core = NodeCore(self.config, self.identity, self.disk, name, self.cluster.choices.draw)
        self._last_turn_ms = self.cluster.clock.now_ms
        self._execute(self.core.start(self.cluster.clock.now_ms))
        self.wake()

    def crash(self, *, power_loss: bool) -> None:
        """The process ends at once; with a power loss the disk forgets what was not synced."""
        self.core = None
        self.paused = False
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
        self._execute(self.core.stop())
        self.wake()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.wake()

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
        now_ms = self.cluster.clock.now_ms
        events, self._inbox = self._inbox, []
        gap_ms = now_ms - self._last_turn_ms
        if gap_ms > self.config.pause_ms:
            events.insert(0, Paused(gap_ms))
        self._last_turn_ms = now_ms
        self.cluster.steps += len(events) + 1
        try:
            effects = self.core.handle(events, now_ms)
        except AssertionError as error:
            # An impossible state ends the process; here it is what we are looking for.
            self.cluster.on_halt(self, f"assertion: {error}")
            return
        self._execute(effects)
        if self._is_stopping and self.core is not None and self.core.is_stopped:
            self.core = None
            self.disk.process_crash()
        if self.core is not None:
            until_ms = self.core.next_deadline_ms() - now_ms
            # As the real loop does, turn at least every 100 ms; never twice in one millisecond.
            self.wake(min(max(until_ms, 1), 100) if not self._inbox else 1)

    def _execute(self, effects: list[Effect]) -> None:
        """Carry out effects in order; a crash may come before any of them."""
        incarnation = self.incarnation
        for effect in effects:
            if self.cluster.maybe_crash_between(self):
                return
            self._carry_out(effect)
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
                self._later("store", lambda: self._stored(path, generation, data))
            case Remove(path):
                self.disk.remove(path)
            case Resume(work):
                self._inbox.append(Continue(work))
            case Link() | ResetLink():
                key = (effect.peer, effect.plane)
                self._link_versions[key] = self._link_versions.get(key, 0) + 1
            case Halt(reason):
                self.halted = reason
                self.cluster.on_halt(self, reason)

    # -- disk ------------------------------------------------------------------------------------

    def _later(self, label: str, action: Callable[[], None]) -> None:
        """Do something on the disk after a drawn delay, if the process still lives then."""
        incarnation = self.incarnation

        def due() -> None:
            if self.core is not None and self.incarnation == incarnation:
                action()

        self.cluster.clock.after(self.cluster.choices.draw(label, 0, self.cluster.sync_ms_max), due)

    def _sync(self, effect: Sync) -> None:
        try:
            pending = self.disk.prepare_sync(effect.files, effect.directories)
        except DiskError as error:
            self.receive(SyncFailed(effect.token, str(error)))
            return

        def synced() -> None:
            pending.complete()
            self.receive(Synced(effect.token))

        self._later("sync", synced)

    def _stored(self, path: str, generation: int, data: bytes) -> None:
        try:
            self.disk.store(path, data)
        except DiskError as error:
            self.receive(StoreFailed(path, generation, str(error)))
            return
        self.receive(Stored(path, generation))

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
