"""One simulated run: a seed, a workload, faults, healing, and the judgement.

What it must show: every acknowledged record stands at its offset with its bytes on every replica,
once; what certainly failed stands nowhere; replicas are equal; one leader an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.log.partition_log import PartitionLog
from broker.wire.record_batch import decode_batch, iterate_batches
from chaos.sim.choices import Choices
from chaos.sim.client import SimAdmin, SimProducer, TopicChurn, create_request
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


@dataclass(frozen=True, slots=True)
class Setup:
    """What kind of cluster a seed is run on, and what beyond the usual faults befalls it."""

    nodes: int = 3
    voters: int = 3
    flush: str = "ack"
    min_isr: int = 2
    segment_bytes: int = 134_217_728
    duplicate_percent: int = 0
    """Requests between nodes that arrive once more, much later."""
    churns: bool = False
    """A topic beside the judged one is created and deleted all the time, and written to."""
    stops: bool = False
    """Some crashes are stops in good order instead."""
    wipes: bool = False
    """Brokers that are no voters may lose their disk, where another member of ISR or ELR stays."""


def draw_setup(choices: Choices) -> Setup:
    """Any setup in which no guarantee is given up. Under flush=async a crash may cost records, so
    there every crash is a stop in good order."""
    nodes = choices.pick("nodes", (3, 3, 5))
    voters = 3 if nodes == 3 else choices.pick("voters", (3, 5))
    flush = ("ack", "ack", "always", "async")[choices.draw("flush", 0, 3)]
    min_isr = choices.pick("min_isr", (1, 2, 2, 3))
    may_wipe = voters < nodes and flush != "async" and min_isr > 1
    return Setup(
        nodes=nodes,
        voters=voters,
        flush=flush,
        min_isr=min_isr,
        segment_bytes=choices.pick("segment_bytes", (1_024, 4_096, 134_217_728)),
        duplicate_percent=choices.pick("duplicate_percent", (0, 2, 20)),
        churns=choices.chance("churns", 50),
        stops=choices.chance("stops", 50),
        wipes=may_wipe and choices.chance("wipes", 70),
    )


def run_varied(seed: int, *, load_ms: int = 8_000, keep_trace: bool = False) -> RunResult:
    """As `run_seed`, on a setup that is drawn too."""
    choices = Choices(seed)
    return _run(seed, choices, draw_setup(choices), load_ms, keep_trace)


def run_seed(
    seed: int, *, load_ms: int = 8_000, keep_trace: bool = False, setup: Setup | None = None
) -> RunResult:
    """Run one seed from an empty cluster to its judgement. Deterministic."""
    return _run(seed, Choices(seed), setup or Setup(), load_ms, keep_trace)


def _run(seed: int, choices: Choices, setup: Setup, load_ms: int, keep_trace: bool) -> RunResult:
    cluster = SimCluster(setup.nodes, choices, setup.voters)
    cluster.trace.keep_all = keep_trace
    cluster.network.duplicate_percent = setup.duplicate_percent
    partitions = choices.draw("partitions", 1, 3)
    cluster.start_all()
    request = create_request(TOPIC, partitions, 3, setup.min_isr, setup.flush, setup.segment_bytes)
    admin = SimAdmin(cluster, request)
    producers: list[SimProducer] = []
    if cluster.wait(START_LIMIT_MS, "the topic is created", lambda: admin.created):
        for number in range(choices.draw("producers", 1, 3)):
            producers.append(SimProducer(cluster, f"c{number}", TOPIC, partitions))
        _load(cluster, producers, setup, load_ms)
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


def _load(cluster: SimCluster, producers: list[SimProducer], setup: Setup, load_ms: int) -> None:
    """Send and break things, both as drawn."""
    choices, clock = cluster.choices, cluster.clock
    may_crash = setup.flush != "async"
    cluster.crash_between_effects = may_crash and choices.chance("crash_between_effects", 50)
    churn = _churn(cluster, setup) if setup.churns else None
    end_ms = clock.now_ms + load_ms
    next_fault_ms = clock.now_ms + 500
    while clock.now_ms < end_ms:
        for producer in (*producers, *([churn.producer] if churn else [])):
            producer.send_some(choices.draw("burst", 0, 6))
        clock.run_until(clock.now_ms + choices.draw("gap", 5, 60))
        if clock.now_ms >= next_fault_ms:
            _fault(cluster, setup)
            next_fault_ms = clock.now_ms + choices.draw("fault_gap", 100, 1_500)
    if churn is not None:
        churn.topic.stop()
        churn.producer.stop()


@dataclass(frozen=True, slots=True)
class _Churn:
    topic: TopicChurn
    producer: SimProducer


def _churn(cluster: SimCluster, setup: Setup) -> _Churn:
    """Nothing is judged of what is written to it, but that nobody stumbles over it."""
    request = create_request("u", 2, 3, setup.min_isr, setup.flush, setup.segment_bytes)
    topic = TopicChurn(cluster, request, cluster.choices.pick("churn_ms", (200, 2_000)))
    return _Churn(topic, SimProducer(cluster, "churner", "u", 2))


def _fault(cluster: SimCluster, setup: Setup) -> None:
    choices, clock = cluster.choices, cluster.clock
    nodes = tuple(cluster.nodes)
    node = cluster.nodes[choices.pick("node", nodes)]
    kind = choices.draw("fault", 0, 5)
    lasting_ms = choices.draw("lasting", 50, 3_000)
    if kind <= 1 and setup.wipes and _may_lose_its_disk(cluster, node):
        cluster.trace.add(f"{clock.now_ms} {node.name} loses its disk")
        node.wipe()
        clock.after(lasting_ms, lambda: None if node.is_up else node.start())
    elif kind <= 1 and (setup.flush == "async" or (setup.stops and choices.chance("stop", 50))):
        _stop_and_restart(cluster, node, down_ms=lasting_ms)
    elif kind <= 1:
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


def _may_lose_its_disk(cluster: SimCluster, node: SimNode) -> bool:
    """All agree on the metadata, in which every partition has another member in ISR or ELR, and no
    other loss of a disk is still unknown to the controller. (With two unknown losses it could
    fence the last who holds the records, and keep the two.)"""
    images = [other.core.image for other in cluster.nodes.values() if other.core is not None]
    if node.config.is_controller or len(images) < len(cluster.nodes):
        return False  # a voter that lost its disk could not vote any more
    image = images[0]
    return (
        len({other.index for other in images}) == 1
        and all(
            node_id in image.brokers and image.brokers[node_id].disk_id == other.identity.disk_id
            for node_id, other in cluster.nodes.items()
        )
        and all(
            {*partition.isr, *partition.elr} - {node.config.node_id}
            for _, _, partition in image.all_partitions()
        )
    )


def _stop_and_restart(cluster: SimCluster, node: SimNode, *, down_ms: int) -> None:
    if node.is_up and not node.paused:
        cluster.trace.add(f"{cluster.clock.now_ms} {node.name} stops")
        node.stop()
    cluster.clock.after(down_ms, lambda: None if node.is_up else node.start())


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
    rows: dict[tuple[int, int], bytes] = {}
    for partition, replicas in _records(cluster).items():
        first = next(iter(replicas.values()))
        if any(other != first for other in replicas.values()):
            cluster.violations.append(f"replicas of {partition} differ after convergence")
        rows.update({(partition, offset): value for offset, value in first.items()})
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


def _records(cluster: SimCluster) -> dict[int, dict[int, dict[int, bytes]]]:
    """Values of the judged topic by partition, node and offset."""
    records: dict[int, dict[int, dict[int, bytes]]] = {}
    for node_id, node in cluster.nodes.items():
        assert node.core is not None
        assert node.core.broker is not None
        for (_, partition), replica in sorted(node.core.broker.replicas.partitions.items()):
            if replica.topic_name == TOPIC:
                values = records.setdefault(partition, {}).setdefault(node_id, {})
                _read_values(replica.log, values)
    return records


def _read_values(log: PartitionLog, values: dict[int, bytes]) -> None:
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        for header, batch in iterate_batches(log.read(offset, 2**30, log.log_end_offset)):
            offset = header.next_offset
            for record in decode_batch(batch):
                assert record.value is not None
                values[record.offset] = record.value
