"""A cluster of real processes for a test: start, create topics, look, hurt, wait.

Waiting is bounded and ends with what is missing, in words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chaos.proc.ask import Asker
from chaos.proc.cluster import Cluster, Plan, Programs
from chaos.proc.health import ClusterView, PartitionView, is_converged, problems
from client.admin import Admin

LIMIT_S = 30.0


class Story:
    """One running cluster."""

    def __init__(self, cluster: Cluster, asker: Asker) -> None:
        self.cluster = cluster
        self.asker = asker

    @property
    def bootstrap(self) -> str:
        return ",".join(
            f"{node.host}:{node.broker_port}"
            for node in self.cluster.spec.nodes
            if "broker" in node.roles
        )

    def view(self) -> ClusterView:
        return self.asker.view()

    def wait_for(self, what: str, is_true: Callable[[ClusterView], bool]) -> ClusterView:
        deadline = time.monotonic() + LIMIT_S
        while True:
            view = self.view()
            if is_true(view):
                return view
            if time.monotonic() > deadline:
                found = "; ".join(problems(view, self.cluster.spec))
                raise AssertionError(f"not within {LIMIT_S} s: {what} ({found or 'all is whole'})")
            time.sleep(0.05)

    def wait_whole(self) -> ClusterView:
        return self.wait_for(
            "the cluster is whole", lambda view: not problems(view, self.cluster.spec)
        )

    def wait_equal(self, topic: str) -> ClusterView:
        """All replicas of a topic in sync, with equal ends, all committed."""
        return self.wait_for(
            f"the replicas of {topic} are equal",
            lambda view: is_converged(view, self.cluster.spec, topic),
        )

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        assignments: Sequence[Sequence[int]] = (),
        **settings: str,
    ) -> None:
        with Admin(bootstrap_servers=self.bootstrap) as admin:
            if assignments:
                admin.create_topic(
                    name, assignments=[tuple(one) for one in assignments], settings=settings
                )
            else:
                admin.create_topic(
                    name, partitions=partitions, replication_factor=3, settings=settings
                )
        self.wait_for(
            f"every partition of {name} has a leader",
            lambda view: (
                bool(parts_of(view, name))
                and all(part.leader >= 0 for part in parts_of(view, name))
            ),
        )

    def leader(self, topic: str, partition: int = 0) -> int:
        return parts_of(self.view(), topic)[partition].leader

    def restart(self, node_ids: Sequence[int]) -> None:
        self.cluster.start(tuple(node_ids))


def parts_of(view: ClusterView, topic: str) -> list[PartitionView]:
    return [part for part in view.partitions if part.topic == topic]


@contextmanager
def running(directory: Path, plan: Plan, programs: Programs | None = None) -> Iterator[Story]:
    cluster = Cluster.create(directory / plan.name, plan, programs=programs)
    try:
        cluster.start()
        with Asker(cluster.spec) as asker:
            story = Story(cluster, asker)
            story.wait_whole()
            yield story
    finally:
        cluster.stop()
        cluster.release_ports()
