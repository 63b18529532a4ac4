"""Hostile bytes for the ports of a node, and a witness that they changed nothing."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import zmq

from broker.wire import frames
from broker.wire.batch_header import Buffer
from chaos.proc.process import ProcessState
from client.consumer import Consumer
from tests.process.stories import Story

PROZESS = (sys.executable, "-m", "client.cli")
Address = tuple[str, int]
ANSWER_MS = 10_000
RESIDENT_BYTES_MAX = 300_000_000

ZMTP_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + struct.pack(">I", len(value)) + value


_READY = b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", b"")
ZMTP_READY = bytes((4, len(_READY))) + _READY


# --- a command and its end ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


def environment(story: Story) -> dict[str, str]:
    return {**os.environ, "PROZESS_BROKERS": story.bootstrap}


def prozess(story: Story, *words: str, stdin: bytes = b"") -> Ended:
    """Run one verb to its end."""
    done = subprocess.run(
        [*PROZESS, *words], input=stdin, capture_output=True, env=environment(story), check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def prozess_in_shell(story: Story, redirections: str, *words: str) -> Ended:
    """The same with what only a shell can say, as `<&-`."""
    line = f'exec "$@" {redirections}'
    done = subprocess.run(
        ["/bin/sh", "-c", line, "sh", *PROZESS, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(story),
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


# --- bytes on a port ------------------------------------------------------------------------------


def pour(address: Address, data: bytes) -> None:
    """Send bytes over TCP, then wait until the other side hangs up or a second has passed.

    The node may hang up in the middle: that is its right.
    """
    with socket.create_connection(address, timeout=5) as stream:
        stream.settimeout(1)
        try:
            stream.sendall(data)
            while stream.recv(65_536):
                continue
        except OSError:
            return


def random_megabyte(address: Address) -> None:
    pour(address, random.Random(7).randbytes(1 << 20))


def http_request(address: Address) -> None:
    pour(address, b"GET / HTTP/1.1\r\nHost: prozess\r\nConnection: keep-alive\r\n\r\n")


def greeting_then_garbage(address: Address) -> None:
    pour(address, ZMTP_GREETING + random.Random(8).randbytes(1 << 16))


def handshake_then_garbage(address: Address) -> None:
    pour(address, ZMTP_GREETING + ZMTP_READY + random.Random(9).randbytes(1 << 16))


def huge_frame_length(address: Address) -> None:
    claim = b"\x02" + struct.pack(">Q", 1 << 31)
    pour(address, ZMTP_GREETING + ZMTP_READY + claim + bytes(1 << 16))


def slow_half_greeting(address: Address) -> None:
    pour(address, ZMTP_GREETING[:11])


def thousand_connections(address: Address) -> None:
    """All open at once; some say nothing, some half a greeting, some all of it."""
    with ExitStack() as stack:
        streams = [
            stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(1_000)
        ]
        for number, stream in enumerate(streams):
            stream.sendall((b"", ZMTP_GREETING[:11], ZMTP_GREETING + ZMTP_READY)[number % 3])


def ask(address: Address, message: Sequence[Buffer], *, answer: bool = False) -> list[bytes] | None:
    """Send one multipart message over ZeroMQ; its answer, if one is wanted."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.set(zmq.LINGER, 5_000)
    try:
        dealer.connect(f"tcp://{address[0]}:{address[1]}")
        dealer.send_multipart(message)
        if not answer:
            return None
        assert dealer.poll(ANSWER_MS), "no answer"
        return dealer.recv_multipart()
    finally:
        dealer.close()
        context.term()


def request(address: Address, body: object, payload: Sequence[Buffer] = ()) -> object:
    """The answer's body to a well-formed request."""
    parts = ask(address, frames.encode(frames.Kind.REQUEST, 1, body, payload), answer=True)
    assert parts is not None
    return frames.decode(parts).body


def bomb(name: str) -> list[bytes]:
    """Messages that claim, nest or repeat more than they should."""
    version = bytes((frames.PROTOCOL_VERSION,))
    return {
        "nested arrays": [version + b"\x91" * 200_000],
        "array of 2^32": [version + b"\xdd\xff\xff\xff\xff"],
        "arrays of 65535": [version + b"\xdc\xff\xff" * 100_000],
        "map of 2^32": [version + b"\xdf\xff\xff\xff\xff"],
        "string of 2^32": [version + b"\xdb\xff\xff\xff\xff"],
        "extension": [version + b"\xc9\xff\xff\xff\xff\x01"],
        "no bytes": [b""],
        "another version": [b"\x63" + b"\x94\x00\x03\x01\x91\xc0"],
        "no such api": [version + b"\x94\x00\xcd\x7f\xff\x01\x90"],
        "header of 32 MiB": [version + bytes(32 << 20)],
        "10,000 frames": [version] * 10_000,
    }[name]


BOMBS = (
    "nested arrays",
    "array of 2^32",
    "arrays of 65535",
    "map of 2^32",
    "string of 2^32",
    "extension",
    "no bytes",
    "another version",
    "no such api",
    "header of 32 MiB",
    "10,000 frames",
)


# --- the witness ----------------------------------------------------------------------------------


class Witness:
    """What must not change: processes, registrations, the bytes of every log, and that it works."""

    def __init__(self, story: Story, topic: str, content: bytes) -> None:
        self.story = story
        self._topic = topic
        self._content = content
        self._pids = self._read_pids()
        self._broker_epochs = self._read_broker_epochs()
        self._logs = self.log_digest()

    def accept_logs(self) -> None:
        """What the logs hold now is what they shall hold: something was written on purpose."""
        self._logs = self.log_digest()

    def _read_pids(self) -> dict[int, int]:
        cluster = self.story.cluster
        return {
            node: process.pid
            for node in cluster.node_ids
            if (process := cluster.process(node)) is not None
            and cluster.state(node) is ProcessState.RUNNING
        }

    def _read_broker_epochs(self) -> dict[int, int]:
        view = self.story.wait_whole()
        return {node.node_id: node.broker_epoch for node in view.nodes}

    def log_digest(self) -> dict[str, str]:
        """Of each log of each node: all its segments, one after the other."""
        directory = self.story.cluster.paths.directory
        digests = {}
        for log in sorted(directory.glob("nodes/*/data/logs/*")):
            hasher = hashlib.sha256()
            for segment in sorted(log.glob("*.log")):
                hasher.update(segment.read_bytes())
            digests[str(log.relative_to(directory))] = hasher.hexdigest()
        return digests

    def _read_back(self) -> bytes:
        """All that the topic holds, a line each."""
        with Consumer(bootstrap_servers=self.story.bootstrap) as consumer:
            place = (self._topic, 0)
            end = consumer.end_offsets([place])[place]
            consumer.assign([place])
            consumer.seek(*place, 0)
            values: list[bytes] = []
            while len(values) < end:
                records = consumer.poll(ANSWER_MS, end)
                assert records, f"nothing after offset {len(values)}"
                values += [record.value or b"" for record in records]
        return b"".join(value + b"\n" for value in values)

    def __call__(self) -> None:
        """Assert that all is as it was."""
        assert self._read_pids() == self._pids
        assert self.log_digest() == self._logs
        assert self._read_back() == self._content
        assert self._read_broker_epochs() == self._broker_epochs, "a broker was fenced meanwhile"
        for node, pid in self._pids.items():
            assert resident_bytes(pid) < RESIDENT_BYTES_MAX, f"node {node}"


def resident_bytes(pid: int) -> int:
    """What the process holds in memory, by /proc."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024
    raise AssertionError(f"no VmRSS of {pid}")
