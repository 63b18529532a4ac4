"""`prozess status`: nodes, quorum and replicas on one page; exit 1 unless all is whole."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.cluster import open_cluster
from client.cli.common import (
    EXIT_BAD,
    EXIT_GOOD,
    Failure,
    cluster_options,
    output_option,
    print_json,
    wants_colour,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from chaos.proc.cluster import Cluster
    from chaos.proc.health import ClusterView

WATCH_PERIOD_S = 1.0
PIPE_WIDTH = 1_000


@click.command(epilog="Example: prozess status --watch")
@click.option("-w", "--watch", is_flag=True, help="Show it again each second, until Ctrl-C.")
@cluster_options
@output_option
def status(watch: bool, directory: Path, output: str) -> int:
    """Show every node, the metadata quorum, and each partition's replicas.

    Exit code 0: whole. 1: something is down, fenced, leaderless or under-replicated. 2: no node
    answers.
    """
    cluster = open_cluster(directory)
    if watch:
        return _watch(cluster, output)
    from chaos.proc.ask import observe

    view = observe(cluster.spec)
    _print(cluster, view, output)
    return _exit_code(cluster, view)


def _exit_code(cluster: Cluster, view: ClusterView) -> int:
    from chaos.proc.health import problems

    if not any(node.answered for node in view.nodes):
        raise Failure(f"no node of {cluster.paths.directory} answers: `prozess up` starts them")
    return EXIT_BAD if problems(view, cluster.spec) else EXIT_GOOD


def _watch(cluster: Cluster, output: str) -> int:
    from chaos.proc.ask import Asker

    with Asker(cluster.spec) as asker:
        view = asker.view()
        try:
            if output == "json":
                while True:
                    print_json(as_json(cluster, view))
                    time.sleep(WATCH_PERIOD_S)
                    view = asker.view()
            from rich.live import Live

            with Live(page(cluster, view), auto_refresh=False) as live:
                while True:
                    time.sleep(WATCH_PERIOD_S)
                    view = asker.view()
                    live.update(page(cluster, view), refresh=True)
        except KeyboardInterrupt:
            return _exit_code(cluster, view)


def _print(cluster: Cluster, view: ClusterView, output: str) -> None:
    if output == "json":
        print_json(as_json(cluster, view))
        return
    from rich.console import Console

    # A pipe has no width: never cut what a program is to read.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(no_color=not wants_colour(), width=width).print(page(cluster, view))


def as_json(cluster: Cluster, view: ClusterView) -> dict[str, Any]:
    """Everything known, with the problems in words."""
    from chaos.proc.health import problems

    nodes = []
    for node in cluster.spec.nodes:
        seen = dataclasses.asdict(view.node(node.node_id))
        process = cluster.process(node.node_id)
        seen["pid"] = process.pid if process else 0
        seen["roles"] = list(node.roles)
        seen["process"] = cluster.state(node.node_id).value
        seen["broker_address"] = node.broker_address
        seen["controller_address"] = node.controller_address
        nodes.append(seen)
    return {
        "name": cluster.spec.name,
        "cluster_id": cluster.spec.cluster_id,
        "bootstrap": cluster.spec.bootstrap,
        "controller_id": view.controller_id,
        "nodes": nodes,
        "partitions": [dataclasses.asdict(part) for part in view.partitions],
        "problems": problems(view, cluster.spec),
    }


def page(cluster: Cluster, view: ClusterView) -> RenderableType:
    """The tables that people read."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from chaos.proc.health import problems

    nodes = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("node", "process", "pid", "roles", "brokers", "raft", "term", "commit", "state"):
        nodes.add_column(title, overflow="fold")
    for node in cluster.spec.nodes:
        seen = view.node(node.node_id)
        process = cluster.process(node.node_id)
        is_active = node.node_id == view.controller_id
        nodes.add_row(
            str(node.node_id),
            cluster.state(node.node_id).value,
            str(process.pid) if process else "-",
            ",".join(node.roles) + ("*" if is_active else ""),
            node.broker_address,
            seen.raft_role or "-",
            str(seen.raft_term) if seen.answered else "-",
            str(seen.commit_index) if seen.answered else "-",
            _node_state(seen.answered, seen.fenced),
        )
    parts: list[RenderableType] = [nodes, Text("* active controller", style="dim")]
    if view.partitions:
        parts += [Text(""), _partition_table(view)]
    found = problems(view, cluster.spec)
    parts.append(Text(""))
    parts += [Text(f"! {line}", style="red") for line in found]
    if not found:
        parts.append(Text("whole: every broker is unfenced, every replica in sync", style="green"))
    return Group(*parts)


def _node_state(answered: bool, fenced: bool) -> str:
    if not answered:
        return "silent"
    return "fenced" if fenced else "serving"


def _partition_table(view: ClusterView) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("partition", "leader", "epoch", "isr", "replicas", "high watermark", "log end"):
        table.add_column(title, overflow="fold")
    for part in view.partitions:
        table.add_row(
            f"{part.topic}-{part.partition}",
            str(part.leader) if part.leader >= 0 else "none",
            str(part.leader_epoch),
            ",".join(map(str, part.isr)),
            ",".join(map(str, part.replicas)),
            str(part.high_watermark) if part.high_watermark >= 0 else "-",
            str(part.log_end_offset) if part.log_end_offset >= 0 else "-",
            style="red" if part.is_under_replicated else "",
        )
    return table
