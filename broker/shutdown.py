"""How a node stops in good order: it leaves first, so that nobody has to wait for it to be missed.

    RUNNING -> LEAVING -> SYNCING -> HANDING_OVER -> STOPPED

LEAVING: the broker asks to be fenced; the controller's one entry takes it out of every ISR and
moves its leaderships (KIP-631; Kafka's controlled shutdown). It goes on serving until its own image
says so. SYNCING: every log, a last checkpoint, the mark of a clean stop. HANDING_OVER: a voter that
leads lets another one stand for election (Raft thesis 3.10). Each step but the second has a
deadline: what it spares others is time, never records.

A disk that fails ends a node by the first step alone: it leaves, so that nobody waits for its
session to end, then halts. Nothing is synced, and the next process finds no mark of a clean stop.
"""

from __future__ import annotations

from enum import Enum

from broker.broker_part import BrokerPart
from broker.config import NodeConfig
from broker.events import FAR_MS, Halt
from broker.outbox import Outbox
from broker.quorum.raft_driver import RaftDriver


class Stage(Enum):
    RUNNING = "running"
    LEAVING = "leaving"
    SYNCING = "syncing"
    HANDING_OVER = "handing over"
    STOPPED = "stopped"


class Shutdown:
    def __init__(
        self,
        config: NodeConfig,
        broker: BrokerPart | None,
        driver: RaftDriver | None,
        outbox: Outbox,
    ) -> None:
        self._config = config
        self._broker = broker
        self._driver = driver
        self._outbox = outbox
        self._failure: str | None = None
        self._deadline_ms = FAR_MS
        self._next_hand_over_ms = 0
        self.stage = Stage.RUNNING

    def begin(self, now_ms: int) -> None:
        if self.stage is Stage.RUNNING:
            self.stage = Stage.LEAVING
            self._deadline_ms = now_ms + self._config.controlled_shutdown_timeout_ms
            if self._broker is not None:
                self._broker.lifecycle.leave(now_ms)

    def fail(self, reason: str, now_ms: int) -> None:
        """The disk failed: leave, then halt."""
        if self._failure is None:
            self._failure = reason
            self.begin(now_ms)

    def advance(self, now_ms: int) -> None:
        """At the end of a turn: go on as far as it goes."""
        broker = self._broker
        is_out = broker is None or broker.has_left or now_ms >= self._deadline_ms
        if self._failure is not None:
            if is_out or self.stage is not Stage.LEAVING:
                self._outbox.add(Halt(f"the disk failed: {self._failure}"))
            return
        if self.stage is Stage.LEAVING and is_out:
            self.stage = Stage.SYNCING
            self._deadline_ms = FAR_MS
            if broker is not None:
                broker.stop()
        if self.stage is Stage.SYNCING and (broker is None or broker.is_stopped):
            self.stage = Stage.HANDING_OVER
            self._deadline_ms = now_ms + self._config.controller_quorum_election_timeout_ms
        if self.stage is Stage.HANDING_OVER and (self._follows() or now_ms >= self._deadline_ms):
            self.stage = Stage.STOPPED
        if self.stage is Stage.HANDING_OVER and now_ms >= self._next_hand_over_ms:
            assert self._driver is not None
            self._driver.hand_over()
            self._next_hand_over_ms = now_ms + self._config.controller_quorum_heartbeat_ms

    def _follows(self) -> bool:
        """Whether nobody would miss us as a leader of the metadata quorum."""
        return self._driver is None or not self._driver.is_leader or len(self._config.voters) == 1

    def next_deadline_ms(self) -> int:
        if self.stage is Stage.HANDING_OVER:
            return min(self._deadline_ms, self._next_hand_over_ms)
        return self._deadline_ms
