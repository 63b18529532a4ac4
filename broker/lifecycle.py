"""A broker's standing with the controller: recover, register, catch up, serve (KIP-631).

    RECOVERING -> REGISTERING -> CATCHING_UP -> SERVING

Registration waits until every recovered log is durable. The broker takes no role and serves nothing
until its image has reached its own registration: before that it could append other bytes at the
same (leader epoch, offset) that a follower already has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from broker.config import NodeConfig
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    DamagedReplica,
    ReplicaName,
)

RETRY_MS = 100
REPLACED = "a newer incarnation of this broker has registered"


class Phase(Enum):
    RECOVERING = "recovering"
    REGISTERING = "registering"
    CATCHING_UP = "catching up"
    SERVING = "serving"


@dataclass(slots=True)
class BrokerLifecycle:
    config: NodeConfig
    disk_id: str
    incarnation: str
    clean_shutdown: bool
    phase: Phase = Phase.RECOVERING
    broker_epoch: int = -1
    fenced: bool = True
    damaged: tuple[tuple[str, int], ...] = ()
    next_request_ms: int = 0
    in_flight: bool = False
    """A registration or heartbeat is unanswered."""
    is_leaving: bool = False
    """Asks to be fenced from now on."""

    def leave(self, now_ms: int) -> None:
        """The process is about to end: ask to be fenced, at once."""
        self.is_leaving = True
        if self.phase is Phase.SERVING:
            self.next_request_ms = now_ms

    def on_recovered(self, damaged: tuple[tuple[str, int], ...], now_ms: int) -> None:
        assert self.phase is Phase.RECOVERING
        self.phase = Phase.REGISTERING
        self.damaged = damaged
        self.next_request_ms = now_ms

    def is_due(self, now_ms: int) -> bool:
        return (
            self.phase is not Phase.RECOVERING
            and not self.in_flight
            and now_ms >= self.next_request_ms
        )

    def make_request(
        self, metadata_index: int, damaged: tuple[DamagedReplica, ...]
    ) -> BrokerRegistrationRequest | BrokerHeartbeatRequest:
        if self.phase is Phase.REGISTERING:
            return BrokerRegistrationRequest(
                cluster_id=self.config.cluster_id,
                node_id=self.config.node_id,
                disk_id=self.disk_id,
                incarnation=self.incarnation,
                host=self.config.host,
                port=self.config.broker_port,
                clean_shutdown=self.clean_shutdown,
                damaged=tuple(ReplicaName(*name) for name in self.damaged),
            )
        return BrokerHeartbeatRequest(
            node_id=self.config.node_id,
            broker_epoch=self.broker_epoch,
            metadata_index=metadata_index,
            want_fence=self.is_leaving or self.phase is not Phase.SERVING,
            damaged=damaged,
        )

    def on_sent(self, sent: bool, now_ms: int) -> None:
        self.in_flight = sent
        self.next_request_ms = now_ms + RETRY_MS

    def on_lost(self, now_ms: int) -> None:
        """No answer in time, or it did not leave: ask again soon."""
        self.in_flight = False
        self.next_request_ms = now_ms + RETRY_MS

    def on_registered(self, response: BrokerRegistrationResponse, now_ms: int) -> str | None:
        """Returns why the broker must stop, if it must."""
        self.in_flight = False
        self.next_request_ms = now_ms + RETRY_MS
        if self.phase is not Phase.REGISTERING:
            return None
        if response.error is ErrorCode.NONE:
            self.broker_epoch = response.broker_epoch
            self.phase = Phase.CATCHING_UP
            self.next_request_ms = now_ms
        elif response.error is ErrorCode.INCONSISTENT_CLUSTER_ID:
            return f"the controller refuses the registration: {response.detail}"
        elif response.error is ErrorCode.STALE_BROKER_EPOCH:
            return REPLACED
        return None

    def on_image(self, index: int, now_ms: int) -> bool:
        """True once, when the image has reached the registration."""
        if self.phase is Phase.CATCHING_UP and index >= self.broker_epoch:
            self.phase = Phase.SERVING
            self.next_request_ms = now_ms
            return True
        return False

    def on_heartbeat(self, response: BrokerHeartbeatResponse, now_ms: int) -> str | None:
        """Returns why the broker must stop, if it must."""
        self.in_flight = False
        self.next_request_ms = now_ms + self.config.broker_heartbeat_interval_ms
        if response.error is ErrorCode.STALE_BROKER_EPOCH:
            return REPLACED
        if response.error is ErrorCode.NONE:
            self.fenced = response.fenced
        elif response.error is not ErrorCode.BROKER_ID_NOT_REGISTERED:
            self.next_request_ms = now_ms + RETRY_MS
        return None
