"""ZeroMQ: two ROUTER listeners, one DEALER to each peer and plane, drained without blocking.

A connection is only a pipe. Loss is silent, so every request has a correlation id and whoever sent
it a deadline; what cannot be sent now is dropped, counted and, where we asked, reported as Unsent.
Each setting of a socket is there for a trap:

* IMMEDIATE: no queue to a peer that is not connected. Late deliveries would be stale ones.
* LINGER 0: a closed connection takes what it had queued with it.
* HANDSHAKE_IVL: a partition during the handshake would else hold a link up for 30 s after it heals.
* HEARTBEAT_*: finds dead links; says nothing of the process behind them.
* ROUTER_MANDATORY: an answer to a peer that is gone raises instead of vanishing.
* MAXMSGSIZE and explicit high-water marks: bounds in bytes and messages per peer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import zmq

from broker.config import NodeConfig
from broker.events import (
    Answered,
    Connection,
    Event,
    Link,
    Plane,
    Received,
    Reply,
    ResetLink,
    Send,
    Unsent,
)
from broker.ports import Buffer
from broker.runtime.reply_memory import ReplyMemory, Tracker
from broker.wire import frames
from broker.wire.bounded_msgpack import MalformedMessage

COPY_BELOW_BYTES = 16_384
"""Smaller frames are copied: a small zero-copy frame pins its whole receive buffer."""
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.SNDMORE) | int(zmq.NOBLOCK)
"""As plain integers: combining the enumeration's members anew for each frame costs as much as the
call."""
MESSAGES_PER_TURN_MAX = 512
BYTES_PER_TURN_MAX = 8 * 1_048_576
FRAME_BYTES_MAX = 64 * 1_048_576
FRAMES_MAX = 4_096
RECEIVE_QUEUE_MAX = 1_000
SEND_QUEUE_MAX = 256


def _listener(context: zmq.Context[zmq.Socket[bytes]], connections_max: int) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    socket.set(zmq.HANDSHAKE_IVL, 1_000)
    socket.set(zmq.HEARTBEAT_IVL, 500)
    socket.set(zmq.HEARTBEAT_TIMEOUT, 1_500)
    socket.set(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.set(zmq.RCVHWM, RECEIVE_QUEUE_MAX)
    socket.set(zmq.SNDHWM, SEND_QUEUE_MAX)
    socket.set(zmq.BACKLOG, connections_max)
    return socket


def _dealer(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.IMMEDIATE, 1)
    socket.set(zmq.HANDSHAKE_IVL, 1_000)
    socket.set(zmq.HEARTBEAT_IVL, 500)
    socket.set(zmq.HEARTBEAT_TIMEOUT, 1_500)
    socket.set(zmq.CONNECT_TIMEOUT, 2_000)
    socket.set(zmq.RECONNECT_IVL, 50)
    socket.set(zmq.RECONNECT_IVL_MAX, 500)
    socket.set(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.set(zmq.RCVHWM, RECEIVE_QUEUE_MAX)
    socket.set(zmq.SNDHWM, SEND_QUEUE_MAX)
    return socket


class Count(Protocol):
    """Adds to a counter of the node."""

    def __call__(self, name: str, by: int = 1, /) -> None: ...


@dataclass(slots=True)
class _PeerLink:
    address: str
    socket: zmq.Socket[bytes]


class PortTaken(Exception):
    """A listener's address is in use; says which and what to do."""


class Network:
    """All sockets of one node, used by one thread."""

    def __init__(self, config: NodeConfig, count: Count) -> None:
        self._count = count
        self._overrides = dict(config.connect)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4_096)
        self._poller = zmq.Poller()
        self._listeners: dict[Plane, zmq.Socket[bytes]] = {}
        self._peers: dict[tuple[int, Plane], _PeerLink] = {}
        self._replies: dict[Connection, list[list[Buffer]]] = {}
        self._memory = ReplyMemory(config.response_bytes_max)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, zmq.POLLIN)
        if config.is_controller:
            self._listen(Plane.CONTROLLER, config.host, config.controller_port, config)
        if config.is_broker:
            self._listen(Plane.BROKER, config.host, config.broker_port, config)

    def _listen(self, plane: Plane, host: str, port: int, config: NodeConfig) -> None:
        socket = _listener(self._context, config.connections_max)
        try:
            socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            socket.close()
            self.close()
            raise PortTaken(
                f"{plane.value}_port {port} on {host} cannot be bound ({error.strerror}): "
                "end what listens there, or choose another port"
            ) from error
        self._listeners[plane] = socket
        self._poller.register(socket, zmq.POLLIN)

    # -- in ----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make a waiting `poll` return. Safe from any thread."""
        try:
            os.write(self._wake_write, b"w")
        except BlockingIOError:
            return  # the pipe is full: it wakes all the same

    def poll(self, timeout_ms: int) -> list[Event]:
        """Wait until something arrives or the timeout; give all that has arrived, within bounds.

        The controller plane is emptied wholly: its timers may only fire on an empty inbox.
        """
        events: list[Event] = []
        ready = dict(self._poller.poll(timeout_ms))
        if self._wake_read in ready:
            os.read(self._wake_read, 4_096)  # the rest, if any, ends the next wait
        for plane in (Plane.CONTROLLER, Plane.BROKER):
            listener = self._listeners.get(plane)
            if listener is not None and listener in ready:
                self._drain_listener(plane, listener, events)
            for (peer, link_plane), link in self._peers.items():
                if link_plane is plane and link.socket in ready:
                    self._drain_peer(peer, plane, link.socket, events)
        return events

    def _drain_listener(self, plane: Plane, socket: zmq.Socket[bytes], events: list[Event]) -> None:
        size_bytes = 0
        for _ in range(MESSAGES_PER_TURN_MAX if plane is Plane.BROKER else 100_000):
            parts = _receive(socket) if size_bytes < BYTES_PER_TURN_MAX else None
            if parts is None:
                return
            size_bytes += sum(map(len, parts))
            connection = Connection(plane, bytes(parts[0]))
            for message in self._decode(parts[1:]):
                if message.kind is not frames.Kind.RESPONSE:
                    events.append(
                        Received(connection, message.correlation_id, message.body, message.payload)
                    )

    def _drain_peer(
        self, peer: int, plane: Plane, socket: zmq.Socket[bytes], events: list[Event]
    ) -> None:
        for _ in range(MESSAGES_PER_TURN_MAX):
            parts = _receive(socket)
            if parts is None:
                return
            for message in self._decode(parts):
                if message.kind is frames.Kind.RESPONSE:
                    events.append(
                        Answered(peer, plane, message.correlation_id, message.body, message.payload)
                    )

    def _decode(self, parts: Sequence[Buffer]) -> list[frames.Message]:
        """The messages; none of what is malformed: dropped and counted, the connection stays."""
        try:
            return frames.decode_bundle(parts)
        except MalformedMessage:
            self._count("malformed_messages")
            return []

    # -- out ---------------------------------------------------------------------------------------

    def reply(self, effect: Reply) -> None:
        """Queue an answer; it leaves with the next `flush`."""
        parts = frames.encode(
            frames.Kind.RESPONSE, effect.correlation_id, effect.body, effect.payload
        )
        self._replies.setdefault(effect.connection, []).append(parts)

    def flush(self) -> None:
        """Send the queued answers, those to one connection together."""
        replies, self._replies = self._replies, {}
        for connection, messages in replies.items():
            for bundle in frames.bundles(messages):
                self._send_bundle(connection, bundle)

    def _send_bundle(self, connection: Connection, bundle: list[Sequence[Buffer]]) -> None:
        socket = self._listeners[connection.plane]
        parts = [part for message in bundle for part in message]
        uncopied_bytes = sum(len(part) for part in parts if len(part) >= COPY_BELOW_BYTES)
        if uncopied_bytes and not self._memory.admits(connection, uncopied_bytes):
            self._count("replies_dropped_memory", len(bundle))
            return
        try:
            socket.send(connection.routing_id, _MORE)
            trackers = _send_parts(socket, parts, track=bool(uncopied_bytes))
            if trackers:
                self._memory.hold(connection, uncopied_bytes, trackers)
        except zmq.Again:
            self._count("replies_dropped_slow_peer", len(bundle))
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._count("replies_dropped_peer_gone", len(bundle))

    def send(self, effect: Send) -> Unsent | None:
        """Send a request; what certainly did not leave comes back as an event."""
        link = self._peers.get((effect.peer, effect.plane))
        if link is not None:
            kind = frames.Kind.ONEWAY if effect.one_way else frames.Kind.REQUEST
            try:
                _send_parts(link.socket, frames.encode(kind, effect.correlation_id, effect.body))
                return None
            except zmq.Again:
                self._count("requests_unsent")
        return None if effect.one_way else Unsent(effect.peer, effect.plane, effect.correlation_id)

    # -- links -------------------------------------------------------------------------------------

    def link(self, effect: Link) -> None:
        key = (effect.peer, effect.plane)
        old = self._peers.pop(key, None)
        if old is not None:
            self._close(old.socket)
        if effect.address is not None:
            override = self._overrides.get(f"{effect.plane.value}:{effect.peer}")
            address = override or f"{effect.address[0]}:{effect.address[1]}"
            self._peers[key] = self._connect(address)

    def reset_link(self, effect: ResetLink) -> None:
        link = self._peers.get((effect.peer, effect.plane))
        if link is not None:
            self._close(link.socket)
            self._peers[effect.peer, effect.plane] = self._connect(link.address)

    def _connect(self, address: str) -> _PeerLink:
        socket = _dealer(self._context)
        socket.connect(f"tcp://{address}")
        self._poller.register(socket, zmq.POLLIN)
        return _PeerLink(address, socket)

    def _close(self, socket: zmq.Socket[bytes]) -> None:
        self._poller.unregister(socket)
        socket.close()

    def close(self, linger_ms: int = 0) -> None:
        for link in self._peers.values():
            link.socket.close()
        for listener in self._listeners.values():
            listener.close(linger_ms)
        self._context.term()
        os.close(self._wake_read)
        os.close(self._wake_write)


def _receive(socket: zmq.Socket[bytes]) -> list[Buffer] | None:
    """One message's frames, or None when nothing is there. Too many frames are cut off: the codec
    refuses the rest, but all of them must leave the queue."""
    try:
        frame = socket.recv(_NOBLOCK, copy=False)
    except zmq.Again:
        return None
    parts: list[Buffer] = [_contents(frame)]
    while frame.more:
        frame = socket.recv(_NOBLOCK, copy=False)
        if len(parts) <= FRAMES_MAX:
            parts.append(_contents(frame))
    return parts


def _contents(frame: zmq.Frame) -> Buffer:
    return frame.bytes if len(frame) < COPY_BELOW_BYTES else frame.buffer


def _send_parts(
    socket: zmq.Socket[bytes], parts: Sequence[Buffer], *, track: bool = False
) -> list[Tracker]:
    """Hand over one multipart; with `track` the trackers of the frames that were not copied."""
    trackers: list[Tracker] = []
    last = len(parts) - 1
    for index, part in enumerate(parts):
        flags = _NOBLOCK if index == last else _MORE
        if len(part) < COPY_BELOW_BYTES:
            socket.send(part, flags)
        else:
            tracker = socket.send(part, flags, copy=False, track=track)
            if tracker is not None:
                trackers.append(tracker)
    return trackers
