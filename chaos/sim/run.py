"""One simulated run: a seed, a workload, faults, healing, and the judgement.

What it must show: every acknowledged record stands at its offset with its bytes on every replica,
once; what certainly failed stands nowhere; replicas are equal; one leader an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.wire.record_batch import decode_batch, iterate_batches
from chaos.sim.choices import Choices
from chaos.sim.client import SimAdmin, SimProducer, create_request
from chaos.sim.cluster import SimCluster
from chaos.sim.node import SimNode

TOPIC = "t"
START_LIMIT_MS = 30_000
HEAL_LIMIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class RunResult:
    seed: int
    trace_hash: str
    violations: tuple[str, ...]
    acked: int
    failed: int
    unknown: int
    leader_changes: int
    crashes: int
    steps: int
    draws: int
    tail: tuple[str, ...]


def run_seed(seed: int, *, load_ms: int = 8_000, keep_trace: bool = False) -> RunResult:
    """Run one seed from an empty cluster to its judgement. Deterministic."""
    choices = Choices(seed)
    cluster = SimCluster(3, choices)
    cluster.trace.keep_all = keep_trace
    partitions = choices.draw("partitions", 1, 3)
    cluster.start_all()
    admin = SimAdmin(cluster, create_request(TOPIC, partitions, 3, 2, "ack"))
    producers: list[SimProducer] = []
    if cluster.wait(START_LIMIT_MS, "the topic is created", lambda: admin.created):
        for number in range(choices.draw("producers", 1, 3)):
            producers.append(SimProducer(cluster, f"c{number}", TOPIC, partitions))
        _load(cluster, producers, load_ms)
        _heal_and_judge(cluster, producers)
    outcomes = [producer.outcomes() for producer in producers]
    return RunResult(
        seed=seed,
        trace_hash=f"{cluster.trace.checksum:08x}-{cluster.trace.count}",
        violations=tuple(cluster.violations),
        acked=sum(len(acked) for acked, _, _ in outcomes),
        failed=sum(len(failed) for _, failed, _ in outcomes),
        unknown=sum(len(unknown) for _, _, unknown in outcomes),
        leader_changes=cluster.leader_changes,
        crashes=cluster.crashes,
        steps=cluster.steps,
        draws=len(choices.values),
        tail=tuple(cluster.trace.lines if keep_trace else cluster.trace.lines[-60:]),
    )


def _load(cluster: SimCluster, producers: list[SimProducer], load_ms: int) -> None:
    """Send and break things, both as drawn."""
    choices, clock = cluster.choices, cluster.clock
    cluster.crash_between_effects = choices.chance("crash_between_effects", 50)
    end_ms = clock.now_ms + load_ms
    next_fault_ms = clock.now_ms + 500
    while clock.now_ms < end_ms:
        for producer in producers:
            producer.send_some(choices.draw("burst", 0, 6))
        clock.run_until(clock.now_ms + choices.draw("gap", 5, 60))
        if clock.now_ms >= next_fault_ms:
            _fault(cluster)
            next_fault_ms = clock.now_ms + choices.draw("fault_gap", 100, 1_500)


def _fault(cluster: SimCluster) -> None:
    choices, clock = cluster.choices, cluster.clock
    nodes = tuple(cluster.nodes)
    node = cluster.nodes[choices.pick("node", nodes)]
    kind = choices.draw("fault", 0, 5)
    lasting_ms = choices.draw("lasting", 50, 3_000)
    if kind <= 1:
        _crash_and_restart(cluster, node, power_loss=kind == 1, down_ms=lasting_ms)
    elif kind == 2 and node.is_up:
        cluster.trace.add(f"{clock.now_ms} {node.name} pauses for {lasting_ms} ms")
        node.pause()
        clock.after(lasting_ms, node.resume)
    elif kind == 3:
        _cut_between(cluster, node, lasting_ms)
    elif kind == 4:
        other = cluster.nodes[choices.pick("other", nodes)]
        cluster.trace.add(f"{clock.now_ms} cut {node.name} -> {other.name} one way")
        cluster.network.set_cut(node.name, other.name, True)
        clock.after(lasting_ms, lambda: cluster.network.set_cut(node.name, other.name, False))
    else:
        cluster.network.loss_percent = choices.draw("loss_percent", 1, 10)
        clock.after(lasting_ms, lambda: setattr(cluster.network, "loss_percent", 0))


def _crash_and_restart(
    cluster: SimCluster, node: SimNode, *, power_loss: bool, down_ms: int
) -> None:
    if node.is_up:
        cluster.crash(node, power_loss=power_loss)
    cluster.clock.after(down_ms, lambda: None if node.is_up else node.start())


def _cut_between(cluster: SimCluster, node: SimNode, lasting_ms: int) -> None:
    """Isolate a node from the others, or from the clients too."""
    names = [other.name for other in cluster.nodes.values() if other is not node]
    if cluster.choices.chance("clients_too", 50):
        names += ["c0", "c1", "c2"]
    cluster.trace.add(f"{cluster.clock.now_ms} isolate {node.name} from {names}")

    def set_all(is_cut: bool) -> None:
        for name in names:
            cluster.network.set_cut(node.name, name, is_cut)
            cluster.network.set_cut(name, node.name, is_cut)

    set_all(True)
    cluster.clock.after(lasting_ms, lambda: set_all(False))


# -- the end -------------------------------------------------------------------------------------


def _heal_and_judge(cluster: SimCluster, producers: list[SimProducer]) -> None:
    cluster.crash_between_effects = False
    cluster.clock.run_until(cluster.clock.now_ms + 3_100)
    cluster.network.heal()
    for node in cluster.nodes.values():
        if node.paused:
            node.resume()
    cluster.start_all()
    cluster.wait(HEAL_LIMIT_MS, "all sends end", lambda: all(item.all_done() for item in producers))
    for producer in producers:
        producer.stop()
    if cluster.wait(HEAL_LIMIT_MS, "replicas converge", cluster.converged):
        _judge(cluster, producers)


def _judge(cluster: SimCluster, producers: list[SimProducer]) -> None:
    logs = _logs(cluster)
    if any(rows != next(iter(logs.values())) for rows in logs.values()):
        cluster.violations.append("replicas differ after convergence")
    rows = next(iter(logs.values()))
    seen: dict[bytes, tuple[int, int]] = {}
    for place, value in rows.items():
        if value in seen:
            cluster.violations.append(f"{value!r} stands at {seen[value]} and at {place}")
        seen[value] = place
    for producer in producers:
        acked, failed, _ = producer.outcomes()
        for item in acked:
            delivered = item.handle.result(0)
            place = (delivered.partition, delivered.offset)
            if rows.get(place) != item.value:
                cluster.violations.append(
                    f"acked {item.value!r} at {place}: found {rows.get(place)!r}"
                )
        for item in failed:
            if item.value in seen:
                cluster.violations.append(f"{item.value!r} failed for certain, yet is in the log")


def _logs(cluster: SimCluster) -> dict[int, dict[tuple[int, int], bytes]]:
    """Every replica's records, by (partition, offset)."""
    logs: dict[int, dict[tuple[int, int], bytes]] = {}
    for node_id, node in cluster.nodes.items():
        assert node.core is not None
        assert node.core.broker is not None
        rows: dict[tuple[int, int], bytes] = {}
        for key, replica in sorted(node.core.broker.replicas.partitions.items()):
            log = replica.log
            offset = log.log_start_offset
            while offset < log.log_end_offset:
                for header, batch in iterate_batches(log.read(offset, 2**30, log.log_end_offset)):
                    offset = header.next_offset
                    for record in decode_batch(batch):
                        assert record.value is not None
                        rows[key[1], record.offset] = record.value
        logs[node_id] = rows
    return logs
