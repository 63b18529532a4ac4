"""The cluster that is measured: one of our own for the time being, or the one that is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.cli.common import CLUSTER_ROOT, expected
from client.cli.perf_machine import CLIENT, ProcessMeter
from client.cli.topic import await_topic, open_admin
from client.errors import ClientError

if TYPE_CHECKING:
    from client.admin import Admin

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
READY_TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Target:
    """Where to measure."""

    servers: str
    disk: Path | None
    """A directory on the disk of the nodes; None when they are elsewhere."""
    pids: dict[str, int]
    """Processes on this machine, this one included."""

    def meter(self) -> ProcessMeter:
        return ProcessMeter(self.pids)


@contextmanager
def target(brokers: str | None, node_count: int) -> Iterator[Target]:
    """The cluster at `brokers`, else a new local one that is removed afterwards."""
    if brokers:
        yield Target(brokers, None, _pids(brokers))
        return
    from chaos.proc.ask import observe
    from chaos.proc.cluster import Cluster, Plan
    from chaos.proc.layout import ClusterError
    from chaos.proc.supervisor import wait_ready

    directory = CLUSTER_ROOT / f"perf-{os.getpid()}"
    print(f"prozess: starting {node_count} nodes in {directory}", file=sys.stderr)
    with expected(ClusterError):
        cluster = Cluster.create(directory, Plan(name=directory.name, node_count=node_count))
        try:
            cluster.start()
            wait_ready(cluster, observe, timeout_ms=READY_TIMEOUT_MS)
            servers = cluster.spec.bootstrap
            yield Target(servers, directory, _pids(servers))
        finally:
            cluster.purge()


def _pids(servers: str) -> dict[str, int]:
    pids = {CLIENT: os.getpid()}
    with open_admin(servers) as admin:
        for broker in admin.describe_cluster().brokers:
            if broker.host in LOCAL_HOSTS and not broker.fenced:
                node = admin.describe_node(broker.node_id, replicas=False)
                pids[f"node {broker.node_id}"] = node.pid
    return pids


class PerfTopic:
    """A topic for one measurement, deleted afterwards, and whether it stayed calm meanwhile."""

    def __init__(
        self, servers: str, name: str, *, partitions: int, flush: str, replication_factor: int
    ) -> None:
        self._servers = servers
        self.name = name
        self.partitions = list(range(partitions))
        self._settings = {"flush": flush}
        self._replication_factor = replication_factor
        self._epochs: list[tuple[int, int]] = []

    def __enter__(self) -> PerfTopic:
        with open_admin(self._servers) as admin:
            admin.create_topic(
                self.name,
                partitions=len(self.partitions),
                replication_factor=self._replication_factor,
                settings=self._settings,
            )
            self._epochs = self._state(admin)
        return self

    def _state(self, admin: Admin) -> list[tuple[int, int]]:
        """(leader epoch, in-sync replicas) of each partition."""
        info = await_topic(admin, self.name)
        return [(part.leader_epoch, len(part.isr)) for part in info.partitions]

    def changes(self) -> int:
        """How many partitions have another leader epoch or fewer replicas in sync than at first."""
        with open_admin(self._servers) as admin:
            now = self._state(admin)
        return sum(before != after for before, after in zip(self._epochs, now, strict=True))

    def __exit__(self, *_: object) -> None:
        """A topic that would not go away spoils no measurement that has been made."""
        try:
            with open_admin(self._servers) as admin:
                admin.delete_topic(self.name)
        except ClientError as error:
            print(f"prozess: topic {self.name} could not be deleted: {error}", file=sys.stderr)
