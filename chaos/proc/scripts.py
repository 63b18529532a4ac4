"""Scripted sequences of faults, for bugs that random schedules meet too seldom.

A script runs in the nemesis's thread in place of its schedule, with the same faults, probes and
records.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from chaos.faults import Fault, FaultKind, Shape, Victim
from chaos.proc.health import NO_NODE, ClusterView, PartitionView
from chaos.proc.links import BOTH, BROKER_PLANE, Route, Stream
from chaos.proc.nemesis import Active, FaultEvent, Nemesis

WARM_UP_S = 2.0
STEP_LIMIT_S = 12.0
SLOW_MS = 200
SLOW_LOAD_S = 1.0
SCRIPT_KINDS = (FaultKind.KILL, FaultKind.PARTITION)
SCRIPT_GATES = {"acked_seconds_percent_min": 10, "leader_epoch_changes_min": 2}
"""A script leaves the cluster without a majority for a while, on purpose."""
SCRIPT_MS = 60_000
"""The duration written into the faults of a script: they end when the script says so."""


class ScriptedNemesis(Nemesis):
    """A nemesis whose `run` is a script; it may take longer than the load was to last."""

    script: Callable[[ScriptedNemesis], None] = staticmethod(lambda nemesis: None)

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def run(self, load_start_ns: int) -> None:
        if self._wait_until(load_start_ns + int(WARM_UP_S * 1e9)):
            return
        self.script(self)

    # -- words that scripts are written in -------------------------------------------------------

    def watched_partition(self) -> PartitionView:
        topic, number = self._watched[0]
        for part in self._observe().partitions:
            if (part.topic, part.partition) == (topic, number):
                return part
        raise AssertionError(f"nobody knows {topic}-{number}")

    def kill_node(self, node_id: int) -> Active:
        pick = sorted(self._wiring.cluster.node_ids).index(node_id)
        return self.inject(Fault(0, SCRIPT_MS, FaultKind.KILL, Victim.ANY, pick))

    def cut_replication(self, one: int, other: int) -> None:
        """Neither of the two brokers gets a byte of the other's log; controllers still talk."""
        for route in self._between(one, other):
            for stream in BOTH:
                self._wiring.proxies.cut(route.link, stream)
        self._note("inject", one, f"{Shape.HALVES.value} replication between {one} and {other}")

    def slow_answers(self, of: int, to: tuple[int, ...]) -> None:
        """What the leader `of` answers to followers comes late; what they say comes at once."""
        for follower in to:
            for route in self._between(of, follower):
                if route.link.source == str(follower):
                    self._wiring.proxies.slow(route.link, Stream.DOWNSTREAM, SLOW_MS)

    def pass_time(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _between(self, one: int, other: int) -> list[Route]:
        ends = ({str(one), other}, {str(other), one})
        return [
            route
            for route in self._wiring.routes
            if route.link.plane == BROKER_PLANE and {route.link.source, route.link.target} in ends
        ]

    def mend_links(self) -> None:
        self._wiring.proxies.heal_all()
        self._note("lift", 0, "all links")

    def _note(self, action: str, target: int, detail: str) -> None:
        kind = FaultKind.PARTITION.value
        self._record(FaultEvent(time.monotonic_ns(), kind, action, str(target), True, detail))

    def wait_for(self, is_true: Callable[[ClusterView], bool]) -> bool:
        """Whether it became true within the step's limit."""
        deadline = time.monotonic() + STEP_LIMIT_S
        while time.monotonic() < deadline and not self._stop.is_set():
            if is_true(self._observe()):
                return True
            self._stop.wait(0.05)
        return False

    def wait_for_leader(self, other_than: int) -> int:
        self.wait_for(lambda _: self.watched_partition().leader not in (NO_NODE, other_than))
        return self.watched_partition().leader


def double_failover(nemesis: ScriptedNemesis) -> None:
    """Two leaders die one after the other, and the third replica cannot fetch in between.

    It holds everything that was acknowledged, as far as it does not throw it away by itself: a
    follower that truncates to its own high watermark does (KIP-101). The watermark lags by one
    answer of the leader; slow answers make sure that something was acknowledged meanwhile.
    """
    first = nemesis.watched_partition().leader
    second, third = (n for n in nemesis.watched_partition().replicas if n != first)
    nemesis.slow_answers(of=first, to=(second, third))
    nemesis.cut_replication(second, third)
    nemesis.pass_time(SLOW_LOAD_S)
    dead_first = nemesis.kill_node(first)
    successor = nemesis.wait_for_leader(other_than=first)
    for other in (second, third):
        nemesis.cut_replication(first, other)
    nemesis.lift(dead_first)  # its vote is needed; its log stays out of it
    dead_second = nemesis.kill_node(successor)
    nemesis.wait_for_leader(other_than=successor)
    nemesis.mend_links()
    nemesis.lift(dead_second)


SCRIPTS: dict[str, Callable[[ScriptedNemesis], None]] = {"double-failover": double_failover}
"""What `prozess chaos run --script` takes."""
