"""Requests on their way: correlation ids, time-outs, and which peers can be asked now.

A request ends in one of three ways: answered, its connection broke, or its time is over; the last
closes the connection, so that nothing queued on it leaves later. Whoever sent it gets it back as
`Ended` and judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from client.config import ClientConfig
from client.events import (
    NEVER_MS,
    Answered,
    Buffer,
    CloseConnection,
    Disconnected,
    Draw,
    Effect,
    Send,
    bootstrap_peer,
    is_bootstrap,
)
from client.metadata import ClusterMetadata
from client.retry import backoff_ms


@dataclass(slots=True)
class Request:
    """One request that waits for its answer. `context` is the sender's own."""

    peer: int
    correlation_id: int
    body: object
    deadline_ms: int
    context: object


@dataclass(slots=True)
class Ended:
    """How a request ended: `answer` is None when none came; `sent`: bytes may have left."""

    request: Request
    answer: object | None
    payload: Sequence[Buffer]
    sent: bool


@dataclass(slots=True)
class _Peer:
    address: str = ""
    """Where the last request went."""
    failures: int = 0
    """Connections that failed in a row; an answer sets it to 0."""
    down_until_ms: int = 0
    requests: dict[int, Request] = field(default_factory=dict)


class RequestRouter:
    """Numbers, remembers and times out requests to any number of peers."""

    def __init__(self, config: ClientConfig, metadata: ClusterMetadata, draw: Draw) -> None:
        self._config = config
        self._metadata = metadata
        self._draw = draw
        self._peers: dict[int, _Peer] = {}
        self._next_correlation_id = 1
        self._turn = draw("first bootstrap server", 0, len(config.addresses) - 1)
        """Whom to prefer among equals; moves on with each choice."""

    def send(
        self,
        peer: int,
        body: object,
        payload: Sequence[Buffer],
        context: object,
        timeout_ms: int,
        now_ms: int,
    ) -> Send:
        """Remember a request to a peer that `is_ready`; the effect to carry out."""
        address = self.address(peer)
        assert address is not None, "a peer that is ready has an address"
        request = Request(peer, self._next_correlation_id, body, now_ms + timeout_ms, context)
        self._next_correlation_id += 1
        state = self._peer(peer)
        state.address = address
        state.requests[request.correlation_id] = request
        return Send(peer, address, request.correlation_id, body, payload)

    def send_one_way(self, peer: int, body: object, payload: Sequence[Buffer]) -> Send:
        """A request that nobody answers."""
        address = self.address(peer)
        assert address is not None, "a peer that is ready has an address"
        self._peer(peer).address = address
        correlation_id = self._next_correlation_id
        self._next_correlation_id += 1
        return Send(peer, address, correlation_id, body, payload, one_way=True)

    def on_answered(self, event: Answered) -> Ended | None:
        """The request that is answered; None for one given up before."""
        peer = self._peer(event.peer)
        request = peer.requests.pop(event.correlation_id, None)
        if request is None:
            return None
        peer.failures = 0
        return Ended(request, event.body, event.payload, sent=True)

    def on_disconnected(self, event: Disconnected, now_ms: int) -> list[Ended]:
        """All requests to the peer end without an answer, and the peer rests for a while."""
        peer = self._peer(event.peer)
        self._rest(peer, now_ms)
        requests = list(peer.requests.values())
        peer.requests.clear()
        return [
            Ended(request, None, (), sent=request.correlation_id not in event.unsent)
            for request in requests
        ]

    def expire(self, now_ms: int) -> tuple[list[Ended], list[Effect]]:
        """Close each connection with an overdue request; all requests on it end unanswered."""
        ended: list[Ended] = []
        effects: list[Effect] = []
        for peer_id, peer in self._peers.items():
            if any(request.deadline_ms <= now_ms for request in peer.requests.values()):
                effects.append(CloseConnection(peer_id))
                ended += [Ended(request, None, (), True) for request in peer.requests.values()]
                peer.requests.clear()
                self._rest(peer, now_ms)
        return ended, effects

    def close_moved(self) -> tuple[list[Ended], list[Effect]]:
        """Close connections to nodes that listen elsewhere now: restarted, they never answer."""
        ended: list[Ended] = []
        effects: list[Effect] = []
        for peer_id, peer in self._peers.items():
            if peer.address and self.address(peer_id) not in (None, peer.address):
                effects.append(CloseConnection(peer_id))
                ended += [Ended(request, None, (), True) for request in peer.requests.values()]
                peer.requests.clear()
                peer.address = ""
                peer.failures = 0
                peer.down_until_ms = 0
        return ended, effects

    def close_all(self) -> tuple[list[Ended], list[Effect]]:
        """Give up everything: for a client that closes."""
        ended: list[Ended] = []
        effects: list[Effect] = []
        for peer_id, peer in self._peers.items():
            ended += [Ended(request, None, (), True) for request in peer.requests.values()]
            peer.requests.clear()
            effects.append(CloseConnection(peer_id))
        return ended, effects

    def close_idle_bootstrap(self) -> list[Effect]:
        """Drop bootstrap connections that nothing waits for: the same brokers have ids now."""
        idle = [
            peer_id
            for peer_id, peer in self._peers.items()
            if is_bootstrap(peer_id) and not peer.requests and not peer.failures
        ]
        for peer_id in idle:
            del self._peers[peer_id]
        return [CloseConnection(peer_id) for peer_id in idle]

    def any_peer(self, now_ms: int, avoid: Sequence[int] = ()) -> int | None:
        """Someone to ask what everybody knows; None if all rest or are to be avoided.

        Unfenced brokers before fenced ones, idle before busy, bootstrap addresses last: they serve
        again when all known brokers are unreachable (KIP-899).
        """
        candidates = [peer for peer in self._all_peers() if peer not in avoid]
        ready = [peer for peer in candidates if self.is_ready(peer, now_ms)]
        if not ready:
            return None
        self._turn += 1
        turns = len(ready)
        return min(
            ((self._reluctance(peer), (place + self._turn) % turns, peer))
            for place, peer in enumerate(ready)
        )[2]

    def any_peer_ready_ms(self) -> int:
        """When the first peer may be asked again."""
        return min(self.ready_ms(peer) for peer in self._all_peers())

    def is_ready(self, peer: int, now_ms: int) -> bool:
        """Whether a request may go to the peer now: its address is known and it does not rest."""
        return self.address(peer) is not None and self.ready_ms(peer) <= now_ms

    def ready_ms(self, peer: int) -> int:
        """When the peer's rest after a failed connection is over."""
        known = self._peers.get(peer)
        return known.down_until_ms if known else 0

    def in_flight(self, peer: int) -> int:
        known = self._peers.get(peer)
        return len(known.requests) if known else 0

    def address(self, peer: int) -> str | None:
        """ "host:port" of a bootstrap address or node; None for a node nobody told us about."""
        if is_bootstrap(peer):
            return self._config.addresses[bootstrap_peer(peer)]
        return self._config.address_overrides.get(peer) or self._metadata.address(peer)

    def next_deadline_ms(self) -> int:
        """When the next request is overdue."""
        return min(
            (
                request.deadline_ms
                for peer in self._peers.values()
                for request in peer.requests.values()
            ),
            default=NEVER_MS,
        )

    def _all_peers(self) -> list[int]:
        nodes = sorted(self._metadata.brokers)
        return nodes + [bootstrap_peer(i) for i in range(len(self._config.addresses))]

    def _reluctance(self, peer: int) -> tuple[int, int]:
        if is_bootstrap(peer):
            return (2, self.in_flight(peer))
        return (int(self._metadata.brokers[peer].fenced), self.in_flight(peer))

    def _peer(self, peer: int) -> _Peer:
        return self._peers.setdefault(peer, _Peer())

    def _rest(self, peer: _Peer, now_ms: int) -> None:
        peer.failures += 1
        rest_ms = backoff_ms(
            peer.failures,
            self._config.reconnect_backoff_ms,
            self._config.reconnect_backoff_max_ms,
            self._draw,
        )
        peer.down_until_ms = now_ms + rest_ms
