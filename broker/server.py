"""The only loop: one node as one process. Drives NodeCore with sockets, disk and clock; no rule.

A turn: wait, take everything that arrived, handle it, execute the effects in their order. Facts of
a turn are written before its first message leaves.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from random import Random
from types import FrameType

from broker.config import NodeConfig
from broker.core import Identity, NodeCore
from broker.events import (
    Continue,
    Effect,
    Event,
    Fact,
    Halt,
    Link,
    Paused,
    Remove,
    Reply,
    ResetLink,
    Resume,
    Scrub,
    Send,
    Store,
    Sync,
)
from broker.log.errors import CorruptFile
from broker.ports import DiskError
from broker.quorum.raft_driver import RAFT_LOG
from broker.quorum.raft_store import PATH as RAFT_PATH
from broker.runtime import clock
from broker.runtime.disk import RealDisk
from broker.runtime.identity import IdentityError, open_data_dir
from broker.runtime.network import Network, PortTaken
from broker.runtime.workers import Workers

logger = logging.getLogger("prozess.node")

POLL_MS_MAX = 100
"""The loop turns at least this often, so that a longer gap proves a pause of the process."""
WORKERS = 3
STOP_MS_MAX = 5_000
STALL_CHECK_MS = 500
GIVE_UP_S = 0.2
"""How long a node that halts waits for each device thread."""


class FactLog:
    """facts.jsonl: one JSON object a line, written to the file before the turn's messages leave."""

    def __init__(self, path: Path, node_id: int, incarnation: str) -> None:
        self._file = path.open("ab", buffering=0)
        if self._file.tell():
            self._file.write(b"\n")  # a line that a crash tore must not swallow the next one
        self._node_id = node_id
        self._incarnation = incarnation
        self._number = 0

    def write(self, facts: list[Fact]) -> None:
        lines = []
        time_ns = clock.now_ns()
        for fact in facts:
            self._number += 1
            row = {
                "n": self._number,
                "t": time_ns,
                "node": self._node_id,
                "incarnation": self._incarnation,
                "kind": fact.kind,
                "topic": fact.topic_id,
                "p": fact.partition,
                "le": fact.leader_epoch,
                "pe": fact.partition_epoch,
                "leo": fact.log_end_offset,
                "synced": fact.synced_end,
                "hw": fact.high_watermark,
                **fact.details,
            }
            lines.append(json.dumps(row, separators=(",", ":")))
        self._file.write(("\n".join(lines) + "\n").encode())

    def close(self) -> None:
        self._file.close()


class Server:
    """One incarnation of one node, until it is told to stop or cannot go on."""

    def __init__(self, config: NodeConfig, identity: Identity, disk: RealDisk) -> None:
        self.incarnation = secrets.token_hex(8)
        seed = int.from_bytes(os.urandom(8), "big")
        logger.info("incarnation %s seed %d", self.incarnation, seed)
        random = Random(seed)
        self.core = NodeCore(
            config,
            identity,
            disk,
            self.incarnation,
            lambda label, low, high: random.randint(low, high),
            lambda: clock.now_ns() // 1_000_000,
        )
        self.config = config
        self.disk = disk
        self.network = Network(config, self._count)
        self.workers = Workers(WORKERS, self.network.wake)
        self.quorum_worker = Workers(1, self.network.wake)
        """The metadata log's own: its syncs do not wait behind those of a thousand partitions."""
        self.facts: FactLog | None = None
        if config.facts != "off":
            path = Path(config.data_dir) / "facts.jsonl"
            self.facts = FactLog(path, config.node_id, self.incarnation)
        self.pending: list[Event] = []
        """Events that effects of the last turn gave rise to: the next turn comes at once."""
        self._next_stall_check_ms = 0
        self.halted: str | None = None
        self.stop_requested = False
        self.core.counters["pid"] = os.getpid()

    def _count(self, name: str, by: int = 1) -> None:
        self.core.counters[name] = self.core.counters.get(name, 0) + by

    def request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        self.network.wake()

    def run(self) -> int:
        """0 after a clean stop, 1 when the node could not go on."""
        self._execute(self.core.start(clock.now_ms()))
        gc.collect()
        gc.freeze()
        last_turn_ms = clock.now_ms()
        while self.halted is None and not self.stop_requested:
            events = self._wait()
            now_ms = clock.now_ms()
            gap_ms = now_ms - last_turn_ms
            if gap_ms > self.config.pause_ms:
                logger.warning("paused for %d ms", gap_ms)
                events.insert(0, Paused(gap_ms))
            last_turn_ms = now_ms
            self._turn(events, now_ms)
            self._note_turn(clock.now_ms() - now_ms)
        if self.halted is None:
            self._stop_in_good_order()
        if self.halted is not None:
            logger.error("halt: %s", self.halted)
        return 1 if self.halted is not None else 0

    def _stop_in_good_order(self) -> None:
        """Leave, sync, leave a mark; give up after a while, which costs only speed."""
        deadline_ms = clock.now_ms() + STOP_MS_MAX
        self.core.stop(clock.now_ms())
        while self.halted is None and not self.core.is_stopped and clock.now_ms() < deadline_ms:
            self._turn(self._wait(), clock.now_ms())
        logger.info("stopped %s", "cleanly" if self.core.is_stopped else "without a clean mark")

    def _wait(self) -> list[Event]:
        timeout_ms = 0
        if not self.pending:
            until_ms = self.core.next_deadline_ms() - clock.now_ms()
            timeout_ms = min(max(until_ms, 0), POLL_MS_MAX)
        events = self.network.poll(timeout_ms)
        now_ms = clock.now_ms()
        if now_ms >= self._next_stall_check_ms:
            self._next_stall_check_ms = now_ms + STALL_CHECK_MS
            for workers in (self.quorum_worker, self.workers):
                workers.give_up_on_stalled(self.config.disk_stall_ms_max)
        events += self.quorum_worker.completed()
        events += self.workers.completed()
        pending, self.pending = self.pending, []
        return events + pending

    def _turn(self, events: list[Event], now_ms: int) -> None:
        self._execute(self.core.handle(events, now_ms))

    def _note_turn(self, duration_ms: int) -> None:
        counters = self.core.counters
        if duration_ms > counters.get("turn_ms_max", 0):
            counters["turn_ms_max"] = duration_ms

    def _execute(self, effects: list[Effect]) -> None:
        if self.facts is not None:
            facts = [effect for effect in effects if isinstance(effect, Fact)]
            if facts:
                self.facts.write(facts)
        for effect in effects:
            match effect:
                case Reply():
                    self.network.reply(effect)
                case Send():
                    unsent = self.network.send(effect)
                    if unsent is not None:
                        self.pending.append(unsent)
                case Sync() | Store() | Scrub() | Remove():
                    workers = self.quorum_worker if _is_quorums(effect) else self.workers
                    workers.submit(self.disk.prepare(effect))
                case Resume(work):
                    self.pending.append(Continue(work))
                case Link():
                    self.network.link(effect)
                case ResetLink():
                    self.network.reset_link(effect)
                case Fact():
                    if effect.kind in LOGGED_FACTS:
                        logger.info("%s", describe_fact(effect))
                case Halt(reason):
                    self.halted = reason
        self.network.flush()

    def close(self) -> None:
        """End the device threads, then the sockets. A sync under way is finished, unless we give up
        because of it: a device that hangs would keep the process."""
        patience_s = None if self.halted is None else GIVE_UP_S
        self.quorum_worker.close(timeout_s=patience_s)
        self.workers.close(timeout_s=patience_s)
        self.network.close(linger_ms=200)
        if self.facts is not None:
            self.facts.close()


def _is_quorums(effect: Sync | Store | Scrub | Remove) -> bool:
    if isinstance(effect, Sync):
        return effect.token.log == RAFT_LOG
    return isinstance(effect, Store) and effect.path == RAFT_PATH


LOGGED_FACTS = (
    "BecameLeader",
    "BecameFollower",
    "BecameOffline",
    "Truncated",
    "IsrProposed",
    "IsrResult",
    "RaftRole",
    "Restored",
    "Recovered",
    "CommittedLost",
    "DamageFound",
    "BeganAnew",
    "StrayLog",
    "DiskFailed",
)


def describe_fact(fact: Fact) -> str:
    """A fact as one line for the log: what, where, epochs, offsets."""
    where = f" {fact.topic_id[:8]}-{fact.partition}" if fact.partition >= 0 else ""
    epochs = f" LE={fact.leader_epoch} PE={fact.partition_epoch}" if fact.leader_epoch >= 0 else ""
    ends = f" leo={fact.log_end_offset} hw={fact.high_watermark}" if where else ""
    details = "".join(f" {name}={value}" for name, value in fact.details.items())
    return f"{fact.kind}{where}{epochs}{ends}{details}"


def serve(config: NodeConfig, identity: Identity, disk: RealDisk) -> int:
    """Run a node in the foreground until SIGTERM or SIGINT; returns the exit code."""
    server = Server(config, identity, disk)
    signal.signal(signal.SIGTERM, server.request_stop)
    signal.signal(signal.SIGINT, server.request_stop)
    try:
        return server.run()
    finally:
        server.close()


def refuse_optimised() -> None:
    if sys.flags.optimize:
        sys.exit("prozess: python -O removes the assertions that guard the data; run without it")


def run(config: NodeConfig) -> int:
    """A node from its settings to its end. 0 after a clean stop, 1 if it could not go on, 2 if it
    could not start; the reason is one line on standard error."""
    refuse_optimised()
    logging.basicConfig(
        level=config.log_level.upper(),
        format=f"%(asctime)s %(levelname)s node {config.node_id} %(message)s",
        stream=sys.stderr,
    )
    try:
        with open_data_dir(config) as (named, disk):
            identity = Identity(named.cluster_id, named.node_id, named.disk_id)
            return serve(config, identity, disk)
    except (PortTaken, IdentityError, DiskError, CorruptFile) as error:
        print(f"prozess: {error}", file=sys.stderr)
        return 2
