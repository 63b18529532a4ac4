"""The end of a run: every acknowledged record stands at its offset with its bytes on every replica,
once; what certainly failed stands nowhere; replicas are equal."""

from __future__ import annotations

from broker.log.partition_log import PartitionLog
from broker.wire.record_batch import decode_batch, iterate_batches
from chaos.sim.client import SimProducer
from chaos.sim.cluster import SimCluster
from chaos.sim.setup import TOPIC


def judge(cluster: SimCluster, producers: list[SimProducer]) -> None:
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
