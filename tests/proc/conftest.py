"""Clusters of stand-in nodes in a temporary directory, ended after each test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.proc.cluster import Cluster, Plan, Programs

STANDIN = (sys.executable, str(Path(__file__).with_name("standin.py")))
PROGRAMS = Programs(node=STANDIN, format=(*STANDIN, "--format"))


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(node_count: int = 3, programs: Programs = PROGRAMS, **plan: object) -> Cluster:
        cluster = Cluster.create(
            tmp_path / f"cluster-{len(made)}",
            Plan(name="test", node_count=node_count, **plan),  # type: ignore[arg-type]
            programs=programs,
        )
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.stop()
        cluster.release_ports()
