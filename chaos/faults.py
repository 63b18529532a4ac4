"""The vocabulary of faults, and seeded schedules of them: for the simulator and for real processes.

A fault says *what* in terms of roles ("the leader of the first partition"), because who that is
shows only when the time has come; `Fault.pick` settles what is still open, so that the same seed
and the same cluster state give the same victim. Pure: integers, tuples, and the one source of
randomness is handed in.

Times are ms from the start of the load. At any time at most one fault holds; between two there is a
pause in which the cluster can become whole again, as the guarantees promise it for that time only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

Draw = Callable[[str, int, int], int]
"""draw(label, low, high): an integer in [low, high]."""


class FaultKind(Enum):
    """What is asked for with --nemesis; the values are the words of the report."""

    KILL = "kill"
    """The process dies at once (kill -9) and is started again at the end. Its disk stays."""
    KILL_MAJORITY = "kill-majority"
    """As kill, of so many nodes that the others are no majority."""
    KILL_ALL = "kill-all"
    """As kill, of all nodes; what they had written stays."""
    STOP = "stop"
    """The process is asked to stop, hands over what it leads, ends, and is started at the end."""
    ROLLING = "rolling"
    """One node after the other is stopped and started, each when the cluster is whole again."""
    POWER_LOSS = "power-loss"
    """All nodes die at once and what they had not synced is gone; all are started at the end."""
    PAUSE = "pause"
    """The process does nothing for longer than every timeout, then goes on as if nothing was."""
    PARTITION = "partition"
    """Bytes between some endpoints are swallowed; connections seem to stand."""
    STALL = "stall"
    """Bytes of one node's links wait; none is lost."""
    SLOW = "slow"
    """Bytes of one node's links come late, in order."""
    RESET = "reset"
    """All connections of one node's links break, once."""


class Victim(Enum):
    """Which node is meant."""

    ANY = "any"
    LEADER = "leader"
    """Leader of the watched partition; any node while there is none."""
    CONTROLLER = "controller"
    """The active controller; any node while there is none."""


class Shape(Enum):
    """How a partition divides. Clients are endpoints too."""

    ISOLATE = "isolate"
    """The victim loses all other nodes, clients reach it: the classic deposed leader."""
    ISOLATE_WHOLLY = "isolate-wholly"
    """The victim loses all other nodes and all clients."""
    HALVES = "halves"
    """A majority and a minority, the victim in the minority; clients reach both."""
    MUTE = "mute"
    """One way: the victim hears the other nodes, they do not hear it."""
    DEAF = "deaf"
    """One way: the victim is heard by the other nodes, it does not hear them."""
    CLIENTS = "clients"
    """The victim loses all clients; the nodes are whole."""


@dataclass(frozen=True, slots=True)
class Fault:
    start_ms: int
    duration_ms: int
    kind: FaultKind
    victim: Victim
    pick: int
    """Settles what `victim` and `shape` leave open; any integer from 0 on."""
    shape: Shape | None = None
    """Of a PARTITION only."""
    latency_ms: int = 0
    """Of SLOW only."""

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.duration_ms

    def describe(self) -> str:
        """One line for a log: "partition isolate of the leader, 3000 ms"."""
        shape = f" {self.shape.value}" if self.shape else ""
        amount = f" by {self.latency_ms} ms" if self.kind is FaultKind.SLOW else ""
        whom = "any node" if self.victim is Victim.ANY else f"the {self.victim.value}"
        if self.kind in EVERYBODYS_KINDS:
            whom = "all nodes"
        elif self.kind is FaultKind.KILL_MAJORITY:
            whom = f"{whom} and others"
        return f"{self.kind.value}{shape}{amount} of {whom}, {self.duration_ms} ms"


@dataclass(frozen=True, slots=True)
class Timing:
    """Bounds of a schedule. The defaults suit the local timing profile of brokers.

    A pause or cut must outlast the broker session (1.5 s) and the election time-out (1 s) to force
    a change of leaders; the gap leaves time for a failover and for the ISR to fill again.
    """

    first_ms: int = 2_000
    duration_min_ms: int = 2_500
    duration_max_ms: int = 4_000
    deposing_min_ms: int = 3_800
    """A leader may be the controller too: then an election (up to 1 s) and a fresh session (1.5 s)
    come one after the other before anybody else leads."""
    deposing_max_ms: int = 4_300
    gap_min_ms: int = 2_000
    gap_max_ms: int = 3_500
    restart_ms: int = 1_500
    """Added to the gap after the restart of a process: it takes so long to open its logs."""
    outage_min_ms: int = 500
    outage_max_ms: int = 1_500
    """Without a majority nobody leads, however short it was."""
    outage_restart_ms: int = 8_000
    """Added to the gap after an outage: processes, quorum, registrations, and only then leaders;
    the rest is for acks."""
    tail_ms: int = 1_000
    """No fault holds during the last so many ms of the load."""

    def restart_of(self, kind: FaultKind) -> int:
        """What is added to the gap after such a fault."""
        if kind in OUTAGE_KINDS:
            return self.outage_restart_ms
        return self.restart_ms if kind in RESTARTING_KINDS else 0


OUTAGE_KINDS = (FaultKind.KILL_MAJORITY, FaultKind.KILL_ALL, FaultKind.POWER_LOSS)
"""Nobody leads while they hold, so they are short, and what follows them takes long."""
RESTARTING_KINDS = (*OUTAGE_KINDS, FaultKind.KILL, FaultKind.STOP, FaultKind.ROLLING)
EVERYBODYS_KINDS = (FaultKind.KILL_ALL, FaultKind.POWER_LOSS, FaultKind.ROLLING)
DEFAULT_KINDS = (FaultKind.KILL, FaultKind.PAUSE, FaultKind.PARTITION)


PROFILES: dict[str, tuple[FaultKind, ...]] = {
    "quick": DEFAULT_KINDS,
    "process": tuple(kind for kind in RESTARTING_KINDS if kind is not FaultKind.POWER_LOSS),
    "partition": (FaultKind.PARTITION, FaultKind.RESET, FaultKind.STALL, FaultKind.SLOW),
    "disk": (FaultKind.POWER_LOSS, FaultKind.KILL),
    "nightly": tuple(FaultKind),
}
"""Fault kinds by what somebody is after."""


def parse_kinds(text: str) -> tuple[FaultKind, ...]:
    """ "kill,pause" -> kinds, each once, in the order given; "" or "none" -> (). ValueError."""
    kinds = []
    for word in text.split(","):
        name = word.strip()
        if name in ("", "none"):
            continue
        try:
            kind = FaultKind(name)
        except ValueError:
            known = ", ".join(kind.value for kind in FaultKind)
            raise ValueError(f"unknown fault {name}: take {known}, or none") from None
        if kind not in kinds:
            kinds.append(kind)
    return tuple(kinds)


def seeded_draw(seed: int) -> Draw:
    """Integers by a rule of our own: the same on every machine and version of Python.

    Draw number n with a label is BLAKE2b(seed, n, label) reduced to the range; for ranges far below
    2^64 the bias is beneath notice.
    """
    count = 0

    def draw(label: str, low: int, high: int) -> int:
        nonlocal count
        count += 1
        digest = hashlib.blake2b(f"{seed}/{count}/{label}".encode(), digest_size=8).digest()
        return low + int.from_bytes(digest, "big") % (high - low + 1)

    return draw


def shuffled(draw: Draw, label: str, items: Sequence[FaultKind]) -> tuple[FaultKind, ...]:
    """Fisher and Yates's shuffle."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = draw(label, 0, last)
        order[last], order[other] = order[other], order[last]
    return tuple(order)


def schedule(
    draw: Draw, load_ms: int, kinds: Sequence[FaultKind], timing: Timing | None = None
) -> tuple[Fault, ...]:
    """Faults for a load of `load_ms`, by start time, never overlapping.

    Kinds come in shuffled rounds, so each has its turn before any has two. The first
    DEPOSING_FAULTS hit a leader for so long that another one is elected: a run without changes of
    leaders proves little. Later victims are mostly the leader and the controller.
    """
    timing = timing or Timing()
    faults: list[Fault] = []
    round_kinds: list[FaultKind] = []
    now_ms = timing.first_ms
    while kinds:
        deposes = len(faults) < DEPOSING_FAULTS
        if deposes:
            duration_ms = draw("deposing", timing.deposing_min_ms, timing.deposing_max_ms)
        else:
            duration_ms = draw("fault duration", timing.duration_min_ms, timing.duration_max_ms)
        if now_ms + duration_ms + timing.tail_ms > load_ms:
            break
        if not round_kinds:
            round_kinds = list(shuffled(draw, "fault order", kinds))
        kind = round_kinds.pop(0)
        if kind in OUTAGE_KINDS:
            duration_ms = draw("outage", timing.outage_min_ms, timing.outage_max_ms)
        faults.append(_fault(draw, now_ms, duration_ms, kind, deposes))
        now_ms += duration_ms + draw("fault gap", timing.gap_min_ms, timing.gap_max_ms)
        now_ms += timing.restart_of(faults[-1].kind)
    return tuple(faults)


DEPOSING_FAULTS = 3
_VICTIMS = (Victim.LEADER, Victim.LEADER, Victim.CONTROLLER, Victim.ANY)
_SHAPES = (
    Shape.ISOLATE,
    Shape.ISOLATE,
    Shape.ISOLATE_WHOLLY,
    Shape.HALVES,
    Shape.MUTE,
    Shape.DEAF,
    Shape.CLIENTS,
)
_DEPOSING_SHAPES = (Shape.ISOLATE, Shape.ISOLATE_WHOLLY, Shape.HALVES, Shape.MUTE)
"""Who is deaf, or loses only its clients, still tells the controller that it lives."""


def _fault(draw: Draw, start_ms: int, duration_ms: int, kind: FaultKind, deposes: bool) -> Fault:
    victim = _VICTIMS[draw("fault victim", 0, len(_VICTIMS) - 1)]
    if deposes:
        victim = Victim.LEADER
    shape = None
    if kind is FaultKind.PARTITION:
        shapes = _DEPOSING_SHAPES if deposes else _SHAPES
        shape = shapes[draw("partition shape", 0, len(shapes) - 1)]
    latency_ms = draw("latency", 20, 200) if kind is FaultKind.SLOW else 0
    pick = draw("fault pick", 0, 2**31 - 1)
    return Fault(start_ms, duration_ms, kind, victim, pick, shape, latency_ms)


# --- who is meant, when the time has come ---------------------------------------------------------


def choose_victim(
    fault: Fault, node_ids: Sequence[int], leader: int | None, controller: int | None
) -> int:
    """The node that a fault means, given who leads now (None: nobody, or unknown)."""
    named = {Victim.LEADER: leader, Victim.CONTROLLER: controller, Victim.ANY: None}[fault.victim]
    if named in node_ids:
        assert named is not None
        return named
    ordered = sorted(node_ids)
    return ordered[fault.pick % len(ordered)]


def victims_of(kind: FaultKind, victim: int, node_ids: Sequence[int]) -> tuple[int, ...]:
    """All whom a fault of this kind hits, given the first of them; the victim comes first."""
    ordered = sorted(node_ids)
    start = ordered.index(victim)
    turned = (*ordered[start:], *ordered[:start])
    if kind in EVERYBODYS_KINDS:
        return turned
    return turned[: len(ordered) // 2 + 1] if kind is FaultKind.KILL_MAJORITY else (victim,)


def lost_pairs(
    shape: Shape, victim: int, node_ids: Sequence[int], clients: Sequence[str], pick: int
) -> tuple[tuple[str, str], ...]:
    """Ordered pairs (from, to) whose bytes vanish, on all planes; endpoints as text.

    Nodes are their ids, clients their names. Sorted.
    """
    me = str(victim)
    others = [str(node_id) for node_id in sorted(node_ids) if node_id != victim]
    pairs: set[tuple[str, str]] = set()
    if shape in (Shape.ISOLATE, Shape.ISOLATE_WHOLLY, Shape.MUTE):
        pairs |= {(me, other) for other in others}
    if shape in (Shape.ISOLATE, Shape.ISOLATE_WHOLLY, Shape.DEAF):
        pairs |= {(other, me) for other in others}
    if shape in (Shape.ISOLATE_WHOLLY, Shape.CLIENTS):
        pairs |= {(me, client) for client in clients} | {(client, me) for client in clients}
    if shape is Shape.HALVES:
        start = pick % len(others) if others else 0
        turned = others[start:] + others[:start]
        minority = [me, *turned[: (len(node_ids) - 1) // 2 - 1]]
        majority = [other for other in others if other not in minority]
        for one in minority:
            for two in majority:
                pairs |= {(one, two), (two, one)}
    return tuple(sorted(pairs))
