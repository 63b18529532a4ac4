"""ZeroMQ: one DEALER per broker, used by one thread. The only module of the client that does I/O.

A connection is made by the first `Send` to a peer and lives until it breaks or is closed; it never
comes back by itself, since what was queued on it would come back with it. What each setting is for:

* one DEALER per peer: one with several endpoints would deal requests out in turn.
* IMMEDIATE: nothing is queued to a peer that is not connected; such requests wait here and are
  named as unsent when the connection cannot be made.
* LINGER 0: a closed connection takes what it had queued with it.
* RECONNECT_IVL -1: the core decides when to try again.
* HANDSHAKE_IVL: a partition during the handshake would else be noticed after 30 s.
* HEARTBEAT_*: finds dead links; says nothing of the process behind them.
* MAXMSGSIZE and explicit high-water marks: bounds in bytes and messages.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from broker.wire import frames
from broker.wire.codec import MalformedMessage
from client.config import ClientConfig
from client.events import Answered, Buffer, CloseConnection, Disconnected, Event, Send

COPY_BELOW_BYTES = 16_384
"""Smaller frames are copied: a small zero-copy frame pins its whole receive buffer."""
MESSAGES_PER_TURN_MAX = 256
FRAME_BYTES_MAX = 64 * 1_048_576
QUEUE_MAX = 1_000

BROKEN = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
"""Monitor events after which a connection is of no use."""


def monotonic_ms() -> int:
    """The clock of deadlines."""
    return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class _Link:
    address: str
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    backlog: deque[tuple[int, int, list[Buffer]]] = field(default_factory=deque)
    """What is to be sent: (correlation id, since when, frames)."""
    awaited_events: int = zmq.POLLIN


class Connections:
    """All sockets of one client."""

    def __init__(self, config: ClientConfig) -> None:
        self._setup_timeout_ms = config.socket_connection_setup_timeout_ms
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._links: dict[int, _Link] = {}
        self._events: list[Event] = []
        """Found while sending; given by the next `poll`."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, zmq.POLLIN)

    # --- in ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make a waiting `poll` return. Safe from any thread."""
        try:
            os.write(self._wake_write, b"w")
        except BlockingIOError:
            return  # the pipe is full: it wakes all the same

    def poll(self, timeout_ms: int) -> list[Event]:
        """Wait until something arrives or the time is over; everything that has arrived."""
        wait_ms = 0 if self._events else self._patience_ms(timeout_ms)
        ready = dict(self._poller.poll(wait_ms))
        if self._wake_read in ready:
            self._empty_pipe()
        for peer, link in list(self._links.items()):
            state = ready.get(link.socket, 0)
            if state & zmq.POLLIN:
                self._receive_all(peer, link)
            if state & zmq.POLLOUT and self._is_open(peer, link):
                self._send_backlog(link)
            if link.monitor in ready and self._is_open(peer, link) and self._has_broken(link):
                self._receive_all(peer, link)
                if self._is_open(peer, link):
                    self._drop(peer, link)
        self._drop_overdue()
        events, self._events = self._events, []
        return events

    def _is_open(self, peer: int, link: _Link) -> bool:
        return self._links.get(peer) is link

    def _patience_ms(self, timeout_ms: int) -> int:
        since = [link.backlog[0][1] for link in self._links.values() if link.backlog]
        if not since:
            return timeout_ms
        due_ms = min(since) + self._setup_timeout_ms
        return min(timeout_ms, max(0, due_ms - monotonic_ms()))

    def _empty_pipe(self) -> None:
        try:
            while os.read(self._wake_read, 4_096):
                pass
        except BlockingIOError:
            return

    def _receive_all(self, peer: int, link: _Link) -> None:
        for _ in range(MESSAGES_PER_TURN_MAX):
            parts = _receive(link.socket)
            if parts is None:
                return
            try:
                messages = frames.decode_bundle(parts)
            except MalformedMessage:
                # Nothing on this connection can be trusted any more.
                self._drop(peer, link)
                return
            self._events += [
                Answered(peer, message.correlation_id, message.body, message.payload)
                for message in messages
                if message.kind is frames.Kind.RESPONSE
            ]

    def _has_broken(self, link: _Link) -> bool:
        broken = False
        while (parts := _receive(link.monitor)) is not None:
            event: Any = parse_monitor_message([bytes(part) for part in parts])
            broken = broken or bool(event["event"] & BROKEN)
        return broken

    def _drop_overdue(self) -> None:
        """Give up connections that cannot be made."""
        oldest_ms = monotonic_ms() - self._setup_timeout_ms
        for peer, link in list(self._links.items()):
            if link.backlog and link.backlog[0][1] <= oldest_ms:
                self._drop(peer, link)

    def _drop(self, peer: int, link: _Link) -> None:
        """The connection is gone: tell the core, and which requests have not left."""
        self._events.append(Disconnected(peer, tuple(entry[0] for entry in link.backlog)))
        self._close_link(peer, link)

    # --- out --------------------------------------------------------------------------------------

    def execute(self, effects: Iterable[object]) -> None:
        """Carry out `Send` and `CloseConnection`, in order; others are not ours."""
        queued: dict[int, None] = {}
        for effect in effects:
            if isinstance(effect, Send):
                self._queue(effect)
                queued[effect.peer] = None
            elif isinstance(effect, CloseConnection) and effect.peer in self._links:
                self._close_link(effect.peer, self._links[effect.peer])
        for peer in queued:
            link = self._links.get(peer)
            if link is not None:
                self._send_backlog(link)

    def _queue(self, effect: Send) -> None:
        link = self._links.get(effect.peer)
        assert link is None or link.address == effect.address, "moved: the core closes it first"
        if link is None:
            try:
                link = self._connect(effect.peer, effect.address)
            except zmq.ZMQError:
                # An address of impossible form, or no descriptor left: the same as nobody there.
                self._events.append(Disconnected(effect.peer, (effect.correlation_id,)))
                if effect.peer in self._links:
                    self._close_link(effect.peer, self._links[effect.peer])
                return
        kind = frames.Kind.ONEWAY if effect.one_way else frames.Kind.REQUEST
        parts = frames.encode(kind, effect.correlation_id, effect.body, effect.payload)
        link.backlog.append((effect.correlation_id, monotonic_ms(), parts))

    def _send_backlog(self, link: _Link) -> None:
        """Send what is queued, small requests together; what ZeroMQ does not take now waits."""
        for bundle in frames.bundles([parts for _, _, parts in link.backlog]):
            if not _send_parts(link.socket, [part for parts in bundle for part in parts]):
                break
            for _ in bundle:
                link.backlog.popleft()
        events = zmq.POLLIN | zmq.POLLOUT if link.backlog else zmq.POLLIN
        if events != link.awaited_events:
            link.awaited_events = events
            self._poller.modify(link.socket, events)

    def _connect(self, peer: int, address: str) -> _Link:
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.IMMEDIATE, 1)
        socket.set(zmq.RECONNECT_IVL, -1)
        socket.set(zmq.CONNECT_TIMEOUT, self._setup_timeout_ms)
        socket.set(zmq.HANDSHAKE_IVL, 1_000)
        socket.set(zmq.HEARTBEAT_IVL, 500)
        socket.set(zmq.HEARTBEAT_TIMEOUT, 1_500)
        socket.set(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.set(zmq.SNDHWM, QUEUE_MAX)
        socket.set(zmq.RCVHWM, QUEUE_MAX)
        monitor = socket.get_monitor_socket(BROKEN)
        link = _Link(address, socket, monitor)
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(monitor, zmq.POLLIN)
        self._links[peer] = link
        socket.connect(f"tcp://{address}")
        return link

    def _close_link(self, peer: int, link: _Link) -> None:
        del self._links[peer]
        self._poller.unregister(link.socket)
        self._poller.unregister(link.monitor)
        link.socket.disable_monitor()
        link.monitor.close(0)
        link.socket.close(0)

    def close(self) -> None:
        """Drop all connections with what is queued on them. Once is enough."""
        if self._context.closed:
            return
        for peer, link in list(self._links.items()):
            self._close_link(peer, link)
        # Not term(): it waits for ever for a socket that an error left open.
        self._context.destroy(0)
        os.close(self._wake_read)
        os.close(self._wake_write)


def _receive(socket: zmq.Socket[bytes]) -> list[Buffer] | None:
    """One message's frames, or None when nothing is there."""
    try:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    parts: list[Buffer] = [_contents(frame)]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        parts.append(_contents(frame))
    return parts


def _contents(frame: zmq.Frame) -> Buffer:
    return frame.bytes if len(frame) < COPY_BELOW_BYTES else frame.buffer


def _send_parts(socket: zmq.Socket[bytes], parts: Sequence[Buffer]) -> bool:
    """Hand a message to ZeroMQ; False, and nothing of it handed over, if it takes none now."""
    last = len(parts) - 1
    for index, part in enumerate(parts):
        flags = zmq.NOBLOCK if index == last else zmq.NOBLOCK | zmq.SNDMORE
        try:
            socket.send(part, flags, copy=len(part) < COPY_BELOW_BYTES)
        except zmq.Again:
            # Later than at the first frame: the connection broke in between, the peer never sees
            # the message, and the monitor reports the break.
            return index > 0
    return True
