"""Faults on real processes and links (stand-ins for brokers): each bites, is proven, and ends."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chaos.faults import Fault, FaultKind, Shape, Victim
from chaos.proc.ask import Asker, observe
from chaos.proc.cluster import Plan, Programs
from chaos.proc.health import NO_NODE, ClusterView, NodeView, PartitionView, problems
from chaos.proc.layout import ClusterError
from chaos.proc.links import BROKER_PLANE, CONTROLLER_PLANE, Link, Route, Stream
from chaos.proc.nemesis import FaultEvent, FaultLog, Nemesis, cut_streams
from chaos.proc.probe import probe_link, wait_until_flows
from chaos.proc.process import ProcessState, send_signal
from chaos.proc.provision import Provisioned
from chaos.proc.supervisor import wait_ready
from chaos.proc.wiring import Wiring, wire

pytestmark = pytest.mark.process

STANDIN = (sys.executable, str(Path(__file__).with_name("standin.py")))
PROGRAMS = Programs(node=STANDIN, format=(*STANDIN, "--format"))
OWN_PROXY = Provisioned(None, "built-in", "", ())
CLIENTS = ("client-1",)


@pytest.fixture(scope="module")
def wiring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiring]:
    """Three nodes and a client, all links through proxies. Every test leaves it whole."""
    made = wire(
        tmp_path_factory.mktemp("wired") / "cluster",
        Plan(name="wired"),
        CLIENTS,
        programs=PROGRAMS,
        found=OWN_PROXY,
    )
    made.cluster.start()
    for node in made.cluster.spec.nodes:
        assert wait_until_flows(node.broker_address, 10_000).upstream_flows
        assert wait_until_flows(node.controller_address, 10_000).upstream_flows
    yield made
    assert made.close() == ()


@pytest.fixture
def events() -> list[FaultEvent]:
    return []


@pytest.fixture
def nemesis(wiring: Wiring, events: list[FaultEvent]) -> Iterator[Nemesis]:
    made = Nemesis(
        wiring,
        (),
        observe=lambda: observe(wiring.cluster.spec),
        record=events.append,
        watched=[("t", 0)],
    )
    yield made
    assert made.heal() == ()
    states = [wiring.cluster.state(node) for node in wiring.cluster.node_ids]
    assert states == [ProcessState.RUNNING] * 3
    for route in wiring.routes:
        assert wait_until_flows(route.listen, 5_000).upstream_flows


def fault(kind: FaultKind, victim: Victim = Victim.ANY, pick: int = 1, **more: object) -> Fault:
    return Fault(0, 100, kind, victim, pick, **more)  # type: ignore[arg-type]


def flowing(wiring: Wiring) -> set[str]:
    with ThreadPoolExecutor(len(wiring.routes)) as pool:
        checks = pool.map(lambda route: probe_link(route.listen, 300), wiring.routes)
        pairs = zip(wiring.routes, checks, strict=True)
        return {route.link.name for route, check in pairs if check.upstream_flows}


def test_every_ordered_pair_and_plane_has_its_own_link(wiring: Wiring) -> None:
    names = {route.link.name for route in wiring.routes}
    expected = {
        f"{plane}-{a}-{b}"
        for plane in (BROKER_PLANE, CONTROLLER_PLANE)
        for a in (1, 2, 3)
        for b in (1, 2, 3)
        if a != b
    }
    assert names == expected | {f"broker-client-1-{node}" for node in (1, 2, 3)}
    assert len({route.listen for route in wiring.routes}) == len(names)
    assert set(wiring.client_addresses("client-1")) == {1, 2, 3}
    assert flowing(wiring) == names


def test_the_view_is_each_nodes_own_answer(wiring: Wiring) -> None:
    with Asker(wiring.cluster.spec) as asker:
        for _ in range(2):
            view = asker.view()
            assert problems(view, wiring.cluster.spec) == []
            assert [node.raft_role for node in view.nodes] == ["leader", "follower", "follower"]
            assert view.controller_id == 1
            (part,) = view.partitions
            assert (part.topic, part.leader, part.isr) == ("t", 1, (1, 2))
            assert (part.high_watermark, part.log_end_offset) == (7, 9)
        wiring.cluster.pause(2)
        view = asker.view(timeout_ms=200)
        assert problems(view, wiring.cluster.spec) == ["node 2 does not answer"]
        wiring.cluster.resume(2)
        assert problems(asker.view(timeout_ms=10_000), wiring.cluster.spec) == []


def test_ready_means_whole(wiring: Wiring) -> None:
    def no_quorum(spec: object) -> ClusterView:
        nodes = tuple(NodeView(n, answered=True, fenced=False) for n in (1, 2, 3))
        return ClusterView(nodes, (), has_metadata=True)

    assert wait_ready(wiring.cluster, observe, timeout_ms=10_000).controller_id == 1
    with pytest.raises(ClusterError, match="not whole after 0 s: the quorum has no leader; `proz"):
        wait_ready(wiring.cluster, no_quorum, timeout_ms=1)


def test_problems_are_told_in_words(wiring: Wiring) -> None:
    nodes = (
        NodeView(1, answered=True, fenced=False, raft_term=3, raft_leader_id=1),
        NodeView(2, answered=True, fenced=True, raft_term=3, raft_leader_id=1),
        NodeView(3, answered=True, fenced=False, raft_term=2, raft_leader_id=3),
    )
    parts = (
        PartitionView("t", "id", 0, 1, 4, 2, (1, 2, 3), (1,)),
        PartitionView("t", "id", 1, NO_NODE, 4, 2, (2,), (2,)),
    )
    view = ClusterView(nodes, parts, has_metadata=True)
    assert view.controller_id == 1
    assert problems(view, wiring.cluster.spec) == [
        "broker 2 is fenced",
        "t-0 is under-replicated: 2, 3 not in sync",
        "t-1 has no leader",
    ]


def test_kill_closes_the_links_and_lifting_restarts(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent]
) -> None:
    before = wiring.cluster.process(2)
    active = nemesis.inject(fault(FaultKind.KILL))
    assert wiring.cluster.state(2) is ProcessState.GONE
    assert not any(name.endswith("-2") for name in flowing(wiring))
    assert probe_link(wiring.client_addresses("client-1")[2]).describe() == "closed"
    nemesis.lift(active)
    after = wiring.cluster.process(2)
    assert after not in (None, before)
    assert [(event.kind, event.action, event.target, event.confirmed) for event in events] == [
        ("kill", "inject", "2", True),
        ("kill", "lift", "2", True),
    ]
    assert before is not None
    assert events[0].detail == f"kill of any node, 100 ms: pid {before.pid} gone"
    assert events[0].time_ns < events[1].time_ns


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (FaultKind.POWER_LOSS, "1,2,3"),
        (FaultKind.KILL_ALL, "1,2,3"),
        (FaultKind.KILL_MAJORITY, "2,3"),
        (FaultKind.STOP, "2"),
    ],
)
def test_who_is_ended_and_started(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent], kind: FaultKind, target: str
) -> None:
    before = {node: wiring.cluster.process(node) for node in wiring.cluster.node_ids}
    active = nemesis.inject(fault(kind))
    gone = {node for node in before if wiring.cluster.state(node) is ProcessState.GONE}
    assert ",".join(map(str, sorted(gone))) == target
    assert not {name for name in flowing(wiring) if int(name[-1]) in gone}
    nemesis.lift(active)
    after = {node: wiring.cluster.process(node) for node in before}
    assert {node for node in before if before[node] != after[node]} == gone
    assert [(e.kind, e.target, e.confirmed) for e in events] == [(kind.value, target, True)] * 2


def test_a_rolling_restart_is_one_at_a_time(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent]
) -> None:
    before = [wiring.cluster.process(node) for node in wiring.cluster.node_ids]
    nemesis.lift(nemesis.inject(fault(FaultKind.ROLLING)))
    assert not {*before} & {wiring.cluster.process(node) for node in wiring.cluster.node_ids}
    assert [(e.target, e.confirmed) for e in events] == [("1,2,3", True)] * 2
    assert events[0].detail.endswith("restarted 2, 3, 1")


def test_a_reset_breaks_what_stands(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent]
) -> None:
    nemesis.lift(nemesis.inject(fault(FaultKind.RESET)))
    assert [(e.target, e.confirmed) for e in events] == [("2", True)] * 2
    assert events[0].detail.endswith("9 of 9 connections broke")


def test_pause_and_resume(wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent]) -> None:
    active = nemesis.inject(fault(FaultKind.PAUSE, Victim.LEADER))
    assert active.target == "1"
    assert wiring.cluster.state(1) is ProcessState.PAUSED
    nemesis.lift(active)
    assert wiring.cluster.state(1) is ProcessState.RUNNING
    assert [event.confirmed for event in events] == [True, True]


SHAPES = [
    (Shape.ISOLATE, {"broker-client-1-2"}),
    (Shape.ISOLATE_WHOLLY, set()),
    (Shape.CLIENTS, {f"{p}-{a}-{b}" for p in ("broker", "controller") for a, b in ("12", "21")}),
]


@pytest.mark.parametrize(("shape", "alive"), SHAPES, ids=[shape.value for shape, _ in SHAPES])
def test_partitions_cut_exactly_their_links(
    wiring: Wiring,
    nemesis: Nemesis,
    events: list[FaultEvent],
    shape: Shape,
    alive: set[str],
) -> None:
    active = nemesis.inject(fault(FaultKind.PARTITION, shape=shape))
    assert active.target == "2"
    touching = {name for name in flowing(wiring) if "2" in name.split("-")}
    assert {name for name in touching if "3" not in name.split("-")} == alive
    assert {"broker-1-3", "controller-3-1", "broker-client-1-1"} <= flowing(wiring)
    nemesis.lift(active)
    assert [event.confirmed for event in events] == [True, True]
    assert len(flowing(wiring)) == len(wiring.routes)


def test_one_way_cuts_take_one_stream_of_each_link(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent]
) -> None:
    active = nemesis.inject(fault(FaultKind.PARTITION, shape=Shape.MUTE))
    seen = {
        route.link.name: probe_link(route.listen, 150).describe()
        for route in wiring.routes
        if route.link.name in ("broker-2-1", "broker-1-2", "broker-1-3")
    }
    # What node 2 sends is lost: upstream where it connects, downstream where others do.
    assert seen == {"broker-2-1": "cut upstream", "broker-1-2": "silent", "broker-1-3": "flows"}
    nemesis.lift(active)
    assert [event.confirmed for event in events] == [True, True]


@pytest.mark.parametrize("kind", [FaultKind.STALL, FaultKind.SLOW])
def test_disturbed_links_are_proven_too(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent], kind: FaultKind
) -> None:
    active = nemesis.inject(fault(kind, latency_ms=60))
    nemesis.lift(active)
    assert [event.confirmed for event in events] == [True, True]


def test_a_fault_that_does_not_bite_is_not_confirmed(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring.proxies, "cut", lambda link, stream: None)
    active = nemesis.inject(fault(FaultKind.PARTITION, shape=Shape.ISOLATE))
    nemesis.lift(active)
    assert [event.confirmed for event in events] == [False, True]
    assert "0 of 8 links; not on " in events[0].detail


def test_a_dead_victim_is_not_confirmed_and_healed(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent]
) -> None:
    process = wiring.cluster.process(2)
    assert process is not None
    send_signal(process, signal.SIGABRT)  # the node falls over by itself
    while wiring.cluster.state(2) is not ProcessState.GONE:
        time.sleep(0.01)
    nemesis.lift(nemesis.inject(fault(FaultKind.PAUSE)))
    assert [event.confirmed for event in events] == [False, False]
    assert "node 2 is not running" in events[0].detail
    assert nemesis.heal() == ()
    assert wiring.cluster.state(2) is ProcessState.RUNNING
    assert len(nemesis.found_dead) == 1
    assert nemesis.found_dead[0].startswith("node 2 ended by itself (signal SIGABRT)")


def test_a_schedule_runs_and_is_written_down(wiring: Wiring, tmp_path: Path) -> None:
    log = FaultLog(tmp_path / "faults.jsonl")
    steps = [
        Fault(0, 50, FaultKind.PAUSE, Victim.ANY, 0),
        Fault(200, 50, FaultKind.PARTITION, Victim.ANY, 2, Shape.DEAF),
    ]
    nemesis = Nemesis(wiring, steps, observe=lambda: observe(wiring.cluster.spec), record=log)
    start_ns = time.monotonic_ns()
    nemesis.run(start_ns)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["action"], line["target"]) for line in lines] == [
        ("pause", "inject", "1"),
        ("pause", "lift", "1"),
        ("partition", "inject", "3"),
        ("partition", "lift", "3"),
    ]
    assert all(line["confirmed"] for line in lines)
    assert list(lines[0]) == ["time_ns", "kind", "action", "target", "confirmed", "detail"]
    assert start_ns <= lines[0]["time_ns"] <= lines[1]["time_ns"] <= lines[2]["time_ns"]
    assert lines[2]["time_ns"] >= start_ns + 200_000_000


def test_finish_lifts_what_holds(
    wiring: Wiring, nemesis: Nemesis, events: list[FaultEvent]
) -> None:
    injected = threading.Event()

    def record(event: FaultEvent) -> None:
        events.append(event)
        injected.set()

    endless = Nemesis(
        wiring,
        [Fault(0, 3_600_000, FaultKind.PAUSE, Victim.ANY, 2)],
        observe=lambda: observe(wiring.cluster.spec),
        record=record,
    )
    endless.start(time.monotonic_ns())
    assert injected.wait(20)
    assert wiring.cluster.state(3) is ProcessState.PAUSED
    endless.finish()
    assert wiring.cluster.state(3) is ProcessState.RUNNING
    assert [event.action for event in events] == ["inject", "lift"]


def test_a_broken_nemesis_is_not_silent(wiring: Wiring) -> None:
    class Broken(BaseException):
        pass

    def observe_nothing() -> ClusterView:
        raise Broken

    steps = [Fault(0, 50, FaultKind.PAUSE, Victim.ANY, 0)]
    nemesis = Nemesis(wiring, steps, observe=observe_nothing, record=lambda event: None)
    with pytest.raises(Broken):
        nemesis.run(0)


def test_streams_of_pairs() -> None:
    routes = [
        Route(Link("1", 2, BROKER_PLANE), "a", "x"),
        Route(Link("2", 1, BROKER_PLANE), "b", "x"),
        Route(Link("1", 2, CONTROLLER_PLANE), "c", "x"),
        Route(Link("c", 1, BROKER_PLANE), "d", "x"),
    ]
    assert [
        (route.listen, stream) for route, stream in cut_streams([("1", "2"), ("1", "c")], routes)
    ] == [
        ("a", Stream.UPSTREAM),
        ("b", Stream.DOWNSTREAM),
        ("c", Stream.UPSTREAM),
        ("d", Stream.DOWNSTREAM),
    ]
