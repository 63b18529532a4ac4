"""Does a link carry bytes? Asked of the link itself, by one short ZMTP handshake.

A ZeroMQ server greets every connection at once with a signature of 10 bytes, and sends the rest of
its 64-byte greeting only after it has read ours. So one connection tells both streams apart:
nothing comes back: the node's bytes are lost (or nobody is there); only the signature: ours are.
Frames of the greeting: ZMTP 3.1 (rfc.zeromq.org/spec/37).
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass

SIGNATURE_BYTES = 10
GREETING_BYTES = 64
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING = (SIGNATURE + b"\x03\x00" + b"NULL").ljust(GREETING_BYTES, b"\0")
CUT_TIMEOUT_MS = 400
"""A healthy link on one machine answers within a few ms; so long a silence means cut."""


@dataclass(frozen=True, slots=True)
class LinkCheck:
    """What one connection through a link showed."""

    is_open: bool
    """Somebody accepted the connection (a proxy does so for a dead node, too)."""
    received_bytes: int
    duration_ms: int = 0

    @property
    def downstream_flows(self) -> bool:
        """Bytes of the node arrive."""
        return self.received_bytes > 0

    @property
    def upstream_flows(self) -> bool:
        """Bytes to the node arrive; can be told only while its own do."""
        return self.received_bytes > SIGNATURE_BYTES

    def describe(self) -> str:
        if not self.is_open:
            return "closed"
        if self.upstream_flows:
            return "flows"
        return "cut upstream" if self.downstream_flows else "silent"


def probe_link(address: str, timeout_ms: int = CUT_TIMEOUT_MS) -> LinkCheck:
    """Connect to `address` ("host:port") and count the bytes of the greeting that come back.

    Returns as soon as all have come; a link without answer costs the whole timeout.
    """
    host, port = address.rsplit(":", 1)
    start_ns = time.monotonic_ns()
    deadline_ns = start_ns + timeout_ms * 1_000_000
    try:
        connection = socket.create_connection((host, int(port)), timeout_ms / 1000)
    except OSError:
        return LinkCheck(False, 0)
    with connection:
        received = _count_greeting(connection, deadline_ns)
    return LinkCheck(True, received, (time.monotonic_ns() - start_ns) // 1_000_000)


def _count_greeting(connection: socket.socket, deadline_ns: int) -> int:
    received = 0
    # Silence (a time-out) and a connection that ends are answers, too.
    with suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
        connection.sendall(GREETING)
        while received < GREETING_BYTES:
            left_ns = deadline_ns - time.monotonic_ns()
            if left_ns <= 0:
                break
            connection.settimeout(left_ns / 1e9)
            chunk = connection.recv(GREETING_BYTES)
            if not chunk:
                break
            received += len(chunk)
    return received


def wait_until_flows(address: str, timeout_ms: int) -> LinkCheck:
    """Probe until both streams flow or the time is over; the last probe."""
    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    while True:
        check = probe_link(address)
        if check.upstream_flows or time.monotonic_ns() >= deadline_ns:
            return check
        time.sleep(0.02)


class Watcher:
    """A connection through a link that only waits for its own end."""

    def __init__(self, address: str) -> None:
        """Connect to `address`; `is_open` is false if the node does not greet."""
        host, port = address.rsplit(":", 1)
        self._connection: socket.socket | None = None
        self.is_open = False
        with suppress(OSError):
            self._connection = socket.create_connection((host, int(port)), CUT_TIMEOUT_MS / 1000)
            self._connection.settimeout(CUT_TIMEOUT_MS / 1000)
            self.is_open = len(self._connection.recv(SIGNATURE_BYTES)) > 0

    def is_broken(self, timeout_ms: int) -> bool:
        """Whether the connection ends within so long."""
        assert self._connection is not None
        deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        try:
            while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
                self._connection.settimeout(left_ns / 1e9)
                if not self._connection.recv(GREETING_BYTES):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
