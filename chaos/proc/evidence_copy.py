"""From a stopped cluster to a run directory: copies of what the nodes left."""

from __future__ import annotations

import shutil
from pathlib import Path

from chaos.proc.cluster import Cluster

LOCK_NAME = ".lock"


def copy_evidence(cluster: Cluster, run_dir: Path) -> None:
    """Copy every node's data directory and process log. The nodes must be stopped."""
    for node_id in cluster.node_ids:
        paths = cluster.node_paths(node_id)
        target = run_dir / "data" / str(node_id)
        if paths.data.exists():
            shutil.copytree(paths.data, target, ignore=shutil.ignore_patterns(LOCK_NAME))
        log_target = run_dir / "nodes" / str(node_id)
        log_target.mkdir(parents=True, exist_ok=True)
        if paths.log.exists():
            shutil.copy2(paths.log, log_target / paths.log.name)
