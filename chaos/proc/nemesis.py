"""Carries out a schedule of faults on a wired cluster, and proves of each that it did bite.

What was asked for proves nothing: a kill may miss, a cut may be on the wrong link. So every fault
is confirmed by looking (the process is gone; it is stopped; a greeting sent through the link stays
away) and written down with what was seen. However a run ends, `heal` leaves the cluster whole.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.faults import Fault, FaultKind, choose_victim, lost_pairs, victims_of
from chaos.proc.health import NO_NODE, ClusterView, problems
from chaos.proc.layout import ClusterError
from chaos.proc.links import BOTH, Link, ProxyError, Route, Stream
from chaos.proc.probe import (
    CUT_TIMEOUT_MS,
    LinkCheck,
    Watcher,
    probe_link,
    wait_until_flows,
)
from chaos.proc.process import ProcessState
from chaos.proc.wiring import Wiring

RECOVERY_TIMEOUT_MS = 10_000
"""How long a started node, or a healed link, may take to answer a greeting."""


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """A line of faults.jsonl."""

    time_ns: int
    """CLOCK_MONOTONIC; inject: just before, lift: just after."""
    kind: str
    action: str
    """inject or lift."""
    target: str
    confirmed: bool
    detail: str


class FaultLog:
    """faults.jsonl: one object a line, written as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: FaultEvent) -> None:
        self._file.write(json.dumps(asdict(event), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the world showed."""

    confirmed: bool
    detail: str


@dataclass(slots=True)
class Active:
    """A fault that holds now."""

    fault: Fault
    target: str
    undo: Callable[[], Seen]


def cut_streams(
    pairs: Sequence[tuple[str, str]], routes: Sequence[Route]
) -> tuple[tuple[Route, Stream], ...]:
    """The streams of links that carry bytes of the ordered pairs (from, to).

    What `a` sends to `b` travels upstream on links that `a` opened, downstream on those of `b`.
    """
    lost = set(pairs)
    found = []
    for route in routes:
        source, target = route.link.source, str(route.link.target)
        if (source, target) in lost:
            found.append((route, Stream.UPSTREAM))
        if (target, source) in lost:
            found.append((route, Stream.DOWNSTREAM))
    return tuple(found)


class Nemesis:
    """One schedule on one cluster. `observe` says who leads; `record` gets every event."""

    def __init__(
        self,
        wiring: Wiring,
        schedule: Sequence[Fault],
        *,
        observe: Callable[[], ClusterView],
        record: Callable[[FaultEvent], None],
        watched: Sequence[tuple[str, int]] = (),
    ) -> None:
        """`watched`: partitions (topic name, number) among whose leaders LEADER is chosen."""
        self._wiring = wiring
        self._schedule = schedule
        self._observe = observe
        self._record = record
        self._watched = tuple(watched)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.current: Fault | None = None
        """For live progress: the fault that holds now."""
        self.found_dead: list[str] = []
        """Nodes that nobody had killed and that were dead all the same: how they ended."""

    # --- a whole schedule -------------------------------------------------------------------

    def start(self, load_start_ns: int) -> None:
        """Run the schedule in a thread; its times count from `load_start_ns` (monotonic)."""

        def run() -> None:
            try:
                self.run(load_start_ns)
            except BaseException as error:
                self._error = error
                raise

        self._thread = threading.Thread(target=run, name="nemesis", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Lift what holds and end the thread; raises what ended it before its time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def run(self, load_start_ns: int) -> None:
        """The schedule, in this thread, until its end or `finish`."""
        for fault in self._schedule:
            if self._wait_until(load_start_ns + fault.start_ms * 1_000_000):
                return
            active = self.inject(fault)
            try:
                self._wait_until(load_start_ns + fault.end_ms * 1_000_000)
            finally:
                self.lift(active)

    def _wait_until(self, time_ns: int) -> bool:
        """Whether it was cut short."""
        return self._stop.wait(max(0, time_ns - time.monotonic_ns()) / 1e9)

    # --- one fault --------------------------------------------------------------------------

    def inject(self, fault: Fault) -> Active:
        """Make the fault hold, look whether it does, record both."""
        victim = self._choose(fault)
        target, act = self._act(fault, victim)
        self.current = fault
        time_ns = time.monotonic_ns()
        try:
            seen, undo = act()
        except (ClusterError, ProxyError) as error:
            seen, undo = Seen(False, str(error)), lambda: Seen(False, "was never injected")
        detail = f"{fault.describe()}: {seen.detail}"
        self._record(
            FaultEvent(time_ns, fault.kind.value, "inject", target, seen.confirmed, detail)
        )
        return Active(fault, target, undo)

    def lift(self, active: Active) -> None:
        """End the fault, look whether it did, record both."""
        try:
            seen = active.undo()
        except (ClusterError, ProxyError) as error:
            seen = Seen(False, str(error))
        self.current = None
        self._record(
            FaultEvent(
                time.monotonic_ns(),
                active.fault.kind.value,
                "lift",
                active.target,
                seen.confirmed,
                seen.detail,
            )
        )

    def heal(self) -> tuple[int, ...]:
        """Undo everything, whatever state things are in; nodes that would not start.

        Safe at any time after `finish`, and more than once.
        """
        cluster = self._wiring.cluster
        failed = []
        self._wiring.proxies.heal_all()
        for node_id in cluster.node_ids:
            if cluster.state(node_id) is ProcessState.PAUSED:
                cluster.resume(node_id)
            if cluster.state(node_id) is ProcessState.GONE and not self._revive(node_id):
                failed.append(node_id)
        return tuple(failed)

    def _revive(self, node_id: int) -> bool:
        cluster = self._wiring.cluster
        self._note_death(node_id)
        try:
            cluster.start([node_id])
        except ClusterError as error:
            self.found_dead.append(f"node {node_id} does not start: {error}")
            return False
        return self._await_node(node_id).upstream_flows

    def _note_death(self, node_id: int) -> None:
        how = self._wiring.cluster.exit_text(node_id)
        if how and how != "signal SIGKILL":
            last = self._wiring.cluster.log_tail(node_id, 1)
            self.found_dead.append(f"node {node_id} ended by itself ({how}): {last}")

    # --- who --------------------------------------------------------------------------------

    def _choose(self, fault: Fault) -> int:
        view = self._observe()
        leaders = {(part.topic, part.partition): part.leader for part in view.partitions}
        leader = None
        if self._watched:
            leader = leaders.get(self._watched[fault.pick % len(self._watched)])
        controller = view.controller_id
        return choose_victim(
            fault,
            self._wiring.cluster.node_ids,
            None if leader in (None, NO_NODE) else leader,
            None if controller == NO_NODE else controller,
        )

    # --- what -------------------------------------------------------------------------------

    def _act(
        self, fault: Fault, victim: int
    ) -> tuple[str, Callable[[], tuple[Seen, Callable[[], Seen]]]]:
        """The target in words, and what to do."""
        victims = victims_of(fault.kind, victim, self._wiring.cluster.node_ids)
        target = ",".join(map(str, sorted(victims)))
        match fault.kind:
            case (
                FaultKind.KILL | FaultKind.KILL_MAJORITY | FaultKind.KILL_ALL | FaultKind.POWER_LOSS
            ):
                return target, lambda: self._kill(victims)
            case FaultKind.STOP:
                return target, lambda: self._stop_node(victim)
            case FaultKind.ROLLING:
                return target, lambda: self._roll(victims)
            case FaultKind.PAUSE:
                return target, lambda: self._pause(victim)
            case FaultKind.PARTITION:
                return target, lambda: self._partition(fault, victim)
            case FaultKind.RESET:
                return target, lambda: self._reset(victim)
            case FaultKind.STALL | FaultKind.SLOW:
                return target, lambda: self._disturb(fault, victim)

    def _kill(self, victims: Sequence[int]) -> tuple[Seen, Callable[[], Seen]]:
        cluster = self._wiring.cluster
        processes = [cluster.kill(victim) for victim in victims]
        undo = self._close_links(victims)
        are_gone = all(cluster.state(victim) is ProcessState.GONE for victim in victims)
        pids = ", ".join(str(process.pid) for process in processes)
        return Seen(are_gone, f"pid {pids} {'gone' if are_gone else 'still there'}"), undo

    def _close_links(self, victims: Sequence[int]) -> Callable[[], Seen]:
        """Close the links to nodes that are gone: a live proxy would accept connections for them,
        and they would come in storms. Returns what starts the nodes and opens the links again."""
        cluster, proxies = self._wiring.cluster, self._wiring.proxies
        closed = [r.link for r in self._wiring.routes if r.link.target in victims]
        for link in closed:
            proxies.close(link)

        def undo() -> Seen:
            cluster.start(victims)
            checks = {victim: self._await_node(victim) for victim in victims}
            for link in closed:
                proxies.reopen(link)
            for victim, check in checks.items():
                if not check.upstream_flows:
                    return Seen(False, f"does not answer: {cluster.log_tail(victim, 1)}")
            started = [cluster.process(victim) for victim in victims]
            pids = ", ".join(str(process.pid if process else 0) for process in started)
            return Seen(True, f"answers as pid {pids}")

        return undo

    def _stop_node(self, victim: int) -> tuple[Seen, Callable[[], Seen]]:
        cluster = self._wiring.cluster
        forced = cluster.stop([victim])
        undo = self._close_links([victim])
        if forced:
            return Seen(False, "had to be killed"), undo
        is_gone = cluster.state(victim) is ProcessState.GONE
        return Seen(is_gone, f"ended: {cluster.exit_text(victim) or 'by itself'}"), undo

    def _roll(self, victims: Sequence[int]) -> tuple[Seen, Callable[[], Seen]]:
        """Goes on for longer than the fault was to last if the cluster takes its time."""
        for victim in victims:
            seen, undo = self._stop_node(victim)
            started = undo()
            missing = self._await_whole()
            if not (seen.confirmed and started.confirmed) or missing:
                why = "; ".join((seen.detail, started.detail, *missing))
                return Seen(False, f"node {victim}: {why}"), lambda: Seen(True, "nothing to lift")
        order = ", ".join(map(str, victims))
        return Seen(True, f"restarted {order}"), lambda: Seen(True, "nothing to lift")

    def _await_whole(self) -> list[str]:
        """Wait until every node serves and every replica is in sync; what is missing then."""
        deadline_ns = time.monotonic_ns() + RECOVERY_TIMEOUT_MS * 1_000_000
        while missing := problems(self._observe(), self._wiring.cluster.spec):
            if time.monotonic_ns() >= deadline_ns or self._stop.wait(0.1):
                return missing
        return []

    def _reset(self, victim: int) -> tuple[Seen, Callable[[], Seen]]:
        """A connection of our own through each link shows that connections broke."""
        links = self._links_of(victim)
        watchers = [Watcher(route.listen) for route in links]
        try:
            standing = [watcher for watcher in watchers if watcher.is_open]
            for route in links:
                self._wiring.proxies.reset(route.link)
            broken = sum(watcher.is_broken(CUT_TIMEOUT_MS) for watcher in standing)
        finally:
            for watcher in watchers:
                watcher.close()
        bitten = 0 < broken == len(standing)

        def undo() -> Seen:
            silent = [route.link.name for route in _await_all(links)]
            return Seen(not silent, f"{len(links) - len(silent)} links flow")

        return Seen(bitten, f"{broken} of {len(standing)} connections broke"), undo

    def _links_of(self, victim: int) -> list[Route]:
        me = str(victim)
        routes = self._wiring.routes
        return [r for r in routes if me in (r.link.source, str(r.link.target))]

    def _await_node(self, node_id: int) -> LinkCheck:
        address = self._wiring.cluster.spec.node(node_id).broker_address
        return wait_until_flows(address, RECOVERY_TIMEOUT_MS)

    def _pause(self, victim: int) -> tuple[Seen, Callable[[], Seen]]:
        cluster = self._wiring.cluster
        process = cluster.pause(victim)
        is_paused = cluster.state(victim) is ProcessState.PAUSED

        def undo() -> Seen:
            cluster.resume(victim)
            return Seen(cluster.state(victim) is ProcessState.RUNNING, f"pid {process.pid} runs")

        return Seen(is_paused, f"pid {process.pid} {'stopped' if is_paused else 'runs on'}"), undo

    def _partition(self, fault: Fault, victim: int) -> tuple[Seen, Callable[[], Seen]]:
        assert fault.shape is not None
        cluster, wiring = self._wiring.cluster, self._wiring
        pairs = lost_pairs(fault.shape, victim, cluster.node_ids, wiring.clients, fault.pick)
        return self._on_streams(cut_streams(pairs, wiring.routes), wiring.proxies.cut)

    def _disturb(self, fault: Fault, victim: int) -> tuple[Seen, Callable[[], Seen]]:
        proxies = self._wiring.proxies
        streams = [(route, stream) for route in self._links_of(victim) for stream in BOTH]
        if fault.kind is FaultKind.STALL:
            return self._on_streams(streams, proxies.stall)

        def slow(link: Link, stream: Stream) -> None:
            proxies.slow(link, stream, fault.latency_ms)

        return self._on_streams(streams, slow, slowed_by_ms=fault.latency_ms)

    def _on_streams(
        self,
        streams: Sequence[tuple[Route, Stream]],
        apply: Callable[[Link, Stream], None],
        slowed_by_ms: int = 0,
    ) -> tuple[Seen, Callable[[], Seen]]:
        """Apply a fault to streams and probe each of their links before and after."""
        routes = tuple(dict.fromkeys(route for route, _ in streams))
        flowed = [r for r, check in _probe_all(routes) if check.upstream_flows]
        for route, stream in streams:
            apply(route.link, stream)
        lost = {(route, stream) for route, stream in streams}
        # A link that carried nothing before proves nothing by carrying nothing now.
        bitten = [
            route
            for route, check in _probe_all(flowed)
            if _is_bitten(check, route, lost, slowed_by_ms)
        ]
        missed = [route.link.name for route in flowed if route not in bitten]

        def undo() -> Seen:
            for route in routes:
                self._wiring.proxies.heal(route.link)
            silent = [route.link.name for route in _await_all(flowed)]
            detail = f"{len(flowed)} links flow" if not silent else f"silent: {' '.join(silent)}"
            return Seen(not silent, detail)

        detail = f"{len(bitten)} of {len(routes)} links"
        if missed:
            detail += f"; not on {' '.join(missed)}"
        return Seen(bool(bitten) and not missed, detail), undo


def _is_bitten(
    check: LinkCheck, route: Route, lost: set[tuple[Route, Stream]], slowed_by_ms: int
) -> bool:
    if slowed_by_ms:
        return check.duration_ms >= slowed_by_ms
    if (route, Stream.DOWNSTREAM) in lost:
        return not check.downstream_flows
    return not check.upstream_flows


def _probe_all(routes: Sequence[Route]) -> list[tuple[Route, LinkCheck]]:
    """All at once: each silent link costs the whole timeout of a probe."""
    if not routes:
        return []
    with ThreadPoolExecutor(max_workers=len(routes)) as pool:
        return list(zip(routes, pool.map(lambda r: probe_link(r.listen), routes), strict=True))


def _await_all(routes: Sequence[Route]) -> list[Route]:
    """Wait until all flow; those that do not in time."""
    if not routes:
        return []
    with ThreadPoolExecutor(max_workers=len(routes)) as pool:
        checks = pool.map(lambda r: wait_until_flows(r.listen, RECOVERY_TIMEOUT_MS), routes)
        return [
            route for route, check in zip(routes, checks, strict=True) if not check.upstream_flows
        ]
