"""What a simulated run leaves: the same evidence that real nodes leave, without files."""

from __future__ import annotations

from broker.events import Fact as NodeFact
from broker.log.checkpoint import (
    HIGH_WATERMARK_PATH,
    LEADER_EPOCH_NAME,
    decode_epochs,
    load_offsets,
)
from broker.log.log_manager import parse_directory
from chaos.evidence import UNKNOWN_OFFSET, BatchDecoder, Evidence, Fact, add_log, decode_replica
from chaos.sim.cluster import SimCluster, Watcher
from chaos.sim.node import SimNode


class FactRecorder(Watcher):
    """Keeps the facts of every node in its order, as `facts.jsonl` does."""

    def __init__(self, cluster: SimCluster) -> None:
        self.facts: dict[int, list[Fact]] = {node_id: [] for node_id in cluster.nodes}
        cluster.watchers.append(self)

    def on_fact(self, node: SimNode, fact: NodeFact) -> None:
        facts = self.facts[node.config.node_id]
        facts.append(
            Fact(
                len(facts) + 1,
                node.config.node_id,
                f"{node.name}.{node.incarnation}",
                fact.kind,
                fact.topic_id,
                fact.partition,
                fact.leader_epoch,
                fact.partition_epoch,
                fact.log_end_offset,
                fact.high_watermark,
                {
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in fact.details.items()
                },
            )
        )


def collect(cluster: SimCluster, recorder: FactRecorder) -> Evidence:
    """Facts, and every log as it stands on the nodes' disks."""
    evidence = Evidence(facts=recorder.facts)
    decoder = BatchDecoder()
    for node_id, node in cluster.nodes.items():
        disk = node.disk
        high_watermarks = load_offsets(disk, HIGH_WATERMARK_PATH)
        for entry in disk.list_dir("logs"):
            parsed = parse_directory(entry)
            if parsed is None:
                continue
            name, partition, topic_id = parsed
            directory = f"logs/{entry}"
            epochs_path = f"{directory}/{LEADER_EPOCH_NAME}"
            epochs: tuple[tuple[int, int], ...] = ()
            if disk.exists(epochs_path):
                epochs = decode_epochs(epochs_path, disk.read_whole(epochs_path))
            view = disk.look(directory, ".log", durable=False)
            files = view.files() if view is not None else []
            log = decode_replica(
                node_id,
                name,
                topic_id,
                partition,
                [(file.name, bytes(file.data)) for file in files],
                high_watermark=high_watermarks.get((topic_id, partition), UNKNOWN_OFFSET),
                leader_epochs=epochs,
                decoder=decoder,
            )
            add_log(evidence, log)
    return evidence
