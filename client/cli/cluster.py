"""The verbs that start, hurt, mend and end a local cluster."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from client.cli.common import (
    EXIT_GOOD,
    EXIT_INTERRUPTED,
    Failure,
    cluster_options,
    expected,
    output_option,
    print_json,
    wants_colour,
)

if TYPE_CHECKING:
    from chaos.proc.cluster import Cluster
    from chaos.proc.health import ClusterView
    from chaos.proc.supervisor import LogLine

READY_TIMEOUT_MS = 30_000
TURN_S = 0.1
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red")


def open_cluster(directory: Path) -> Cluster:
    """The cluster in `directory`, or a Failure that says how to get one."""
    from chaos.proc.cluster import Cluster
    from chaos.proc.layout import ClusterError

    with expected(ClusterError):
        return Cluster.open(directory)


# --- up -------------------------------------------------------------------------------------------


@click.command(epilog="Example: prozess up -n 3 -d && prozess status")
@click.option("-n", "--nodes", type=int, help="How many nodes.  [default: 3]")
@click.option(
    "--controllers",
    type=int,
    help="How many of the nodes, from node 1 on, vote in the metadata quorum; the others are "
    "brokers only.  [default: at most 3]",
)
@click.option("-d", "--detach", is_flag=True, help="Leave the nodes running in the background.")
@click.option(
    "--timing",
    type=click.Choice(["local", "kafka"]),
    default="local",
    show_default=True,
    help="Timeouts for one machine, or Kafka's own.",
)
@click.option(
    "--facts",
    type=click.Choice(["off", "acks", "all"]),
    default="off",
    show_default=True,
    help="What nodes write to facts.jsonl as evidence.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(1, 600),
    default=30,
    show_default=True,
    help="How many seconds to wait for the cluster to be whole.",
)
@cluster_options
@output_option
def up(
    nodes: int | None,
    controllers: int | None,
    detach: bool,
    timing: str,
    facts: str,
    wait_s: int,
    directory: Path,
    output: str,
) -> int:
    """Start a local cluster, making it first if there is none, and wait until it is whole.

    In the foreground it shows what the nodes print, until Ctrl-C stops them all.
    """
    from chaos.proc.cluster import Plan
    from chaos.proc.layout import ClusterError

    plan = Plan(
        name=directory.name,
        node_count=nodes if nodes is not None else 3,
        controller_count=controllers,
        timing=timing,
        facts=facts,
    )
    with expected(ClusterError):
        cluster = _make_or_open(directory, plan, nodes, detach)
        running = cluster.running()
        if running:
            raise Failure(
                f"node {running[0]} of this cluster runs already: `prozess status` shows it, "
                "`prozess down` ends it"
            )
        if detach:
            _up_detached(cluster, wait_s, output)
            return 0
        return _up_in_foreground(cluster, wait_s, output)


def _make_or_open(directory: Path, plan: object, nodes: int | None, detach: bool) -> Cluster:
    from chaos.proc.cluster import Cluster, Plan
    from chaos.proc.layout import ClusterPaths

    assert isinstance(plan, Plan)
    if not ClusterPaths(directory).spec.exists():
        _say(f"making a cluster of {plan.node_count} in {directory}")
        return Cluster.create(directory, plan, leashed=not detach)
    cluster = Cluster.open(directory, leashed=not detach)
    if nodes is not None and nodes != len(cluster.node_ids):
        raise Failure(
            f"the cluster in {directory} has {len(cluster.node_ids)} nodes, not {nodes}: leave -n "
            "out, choose another --name, or `prozess purge` it"
        )
    return cluster


def _up_detached(cluster: Cluster, wait_s: int, output: str) -> None:
    from chaos.proc.ask import observe
    from chaos.proc.supervisor import wait_ready

    try:
        cluster.start()
        view = wait_ready(cluster, observe, timeout_ms=wait_s * 1000)
    except BaseException:
        cluster.stop()
        raise
    _show_started(cluster, view, output)


def _up_in_foreground(cluster: Cluster, wait_s: int, output: str) -> int:
    from chaos.proc.ask import observe
    from chaos.proc.supervisor import Interrupted, Supervisor, follow, new_lines, wait_ready

    code = EXIT_GOOD
    asked = StopRequest()
    tails = follow(cluster, cluster.node_ids, from_end=True)
    paint = Painter(cluster.node_ids)

    def on_idle() -> bool:
        for line in new_lines(tails):
            paint(line)
        return asked.is_set()

    with Supervisor(cluster) as supervisor:
        try:
            cluster.start()
            view = wait_ready(cluster, observe, timeout_ms=wait_s * 1000, on_idle=on_idle)
            _show_started(cluster, view, output)
            _say("Ctrl-C stops the cluster")
            supervisor.poll()  # the table has told it
            while not asked.wait(TURN_S):
                on_idle()
                for told in supervisor.poll():
                    _say(told)
        except Interrupted:
            _say("interrupted before the cluster was whole")
            code = EXIT_INTERRUPTED
        finally:
            _say("stopping")
            forced = cluster.stop()
            on_idle()
    for node_id in forced:
        _say(f"node {node_id} did not stop in time and was killed")
    return code


def _show_started(cluster: Cluster, view: ClusterView, output: str) -> None:
    rows = []
    for node in cluster.spec.nodes:
        process = cluster.process(node.node_id)
        rows.append(
            {
                "node": node.node_id,
                "roles": list(node.roles),
                "controller": node.node_id == view.controller_id,
                "pid": process.pid if process else 0,
                "broker": node.broker_address,
                "quorum": node.controller_address,
                "log": str(cluster.node_paths(node.node_id).log),
            }
        )
    if output == "json":
        print_json({"nodes": rows, "bootstrap": cluster.spec.bootstrap})
        return
    lines = [("node", "roles", "pid", "brokers", "quorum", "log")]
    for row, node in zip(rows, cluster.spec.nodes, strict=True):
        active = "*" if row["controller"] else ""
        lines.append(
            (
                str(node.node_id),
                ",".join(node.roles) + active,
                str(row["pid"]),
                node.broker_address,
                node.controller_address or "-",
                str(row["log"]),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
    click.echo("* active controller")
    click.echo(f"export PROZESS_BROKERS={cluster.spec.bootstrap}")


class StopRequest:
    """Set by Ctrl-C, SIGTERM or the terminal going away; a second Ctrl-C raises as usual."""

    def __init__(self) -> None:
        self._event = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class Painter:
    """Prints log lines, each node in a colour of its own when the output is a terminal."""

    def __init__(self, node_ids: tuple[int, ...]) -> None:
        self._colour = {n: COLOURS[i % len(COLOURS)] for i, n in enumerate(node_ids)}
        self._is_coloured = wants_colour()

    def __call__(self, line: LogLine) -> None:
        prefix = f"{line.node_id} |"
        if self._is_coloured:
            prefix = click.style(prefix, fg=self._colour[line.node_id])
        click.echo(f"{prefix} {line.text}", color=self._is_coloured)


def _say(text: str) -> None:
    """Progress goes to stderr: standard output is data."""
    print(text, file=sys.stderr, flush=True)


# --- the others -----------------------------------------------------------------------------------


@click.command(epilog="Example: prozess down")
@cluster_options
@output_option
def down(directory: Path, output: str) -> None:
    """Stop the nodes in good order, whoever started them. Their data stays."""
    from chaos.proc.supervisor import down as end

    cluster = open_cluster(directory)
    ran, forced = end(cluster)
    if output == "json":
        print_json({"stopped": list(ran), "killed": list(forced)})
        return
    _say(f"stopped {_named(ran)}" if ran else "nothing was running")
    if forced:
        _say(f"{_named(forced)} did not stop in time and had to be killed")


def _named(node_ids: tuple[int, ...]) -> str:
    return f"node{'s' if len(node_ids) > 1 else ''} {', '.join(map(str, node_ids))}"


@click.command(epilog="Example: prozess logs -f 2")
@click.argument("node", type=int, required=False)
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on as lines arrive.")
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    help="How many lines of each node to show first.",
)
@cluster_options
def logs(node: int | None, follows: bool, count: int, directory: Path) -> None:
    """Show what the nodes print, of one NODE or of all."""
    from chaos.proc.layout import ClusterError
    from chaos.proc.supervisor import LogLine, follow, new_lines

    cluster = open_cluster(directory)
    with expected(ClusterError):
        node_ids = cluster.node_ids if node is None else (cluster.spec.node(node).node_id,)
    paint = Painter(cluster.node_ids)
    tails = follow(cluster, node_ids, from_end=True)
    for node_id in node_ids:
        for text in cluster.log_tail(node_id, count).splitlines() if count else ():
            paint(LogLine(node_id, text))
    while follows:
        for line in new_lines(tails):
            paint(line)
        sys.stdout.flush()
        time.sleep(TURN_S)


def _node_verb(
    name: str, example: str, help_text: str, act: Callable[[Cluster, int], str]
) -> click.Command:
    """A verb that does one thing to one node."""

    @click.command(name, epilog=f"Example: {example}", help=help_text)
    @click.argument("node", type=int)
    @cluster_options
    def verb(node: int, directory: Path) -> None:
        from chaos.proc.layout import ClusterError

        cluster = open_cluster(directory)
        with expected(ClusterError):
            _say(act(cluster, node))

    return verb


def _restart(cluster: Cluster, node_id: int) -> str:
    from chaos.proc.supervisor import restart as again

    again(cluster, node_id)
    process = cluster.process(node_id)
    return f"node {node_id} runs (pid {process.pid if process else 0})"


kill = _node_verb(
    "kill",
    "prozess kill 2",
    "Kill a NODE with -9, as a crash would. Data that it synced stays.",
    lambda cluster, node: f"node {node} is dead (was pid {cluster.kill(node).pid})",
)
pause = _node_verb(
    "pause",
    "prozess pause 2",
    "Stop a NODE's clock (SIGSTOP): it keeps its connections and answers nothing.",
    lambda cluster, node: f"node {node} is paused (pid {cluster.pause(node).pid})",
)
resume = _node_verb(
    "resume",
    "prozess resume 2",
    "Wake a paused NODE.",
    lambda cluster, node: f"node {node} runs (pid {cluster.resume(node).pid})",
)
restart = _node_verb(
    "restart",
    "prozess restart 2",
    "Start a NODE, stopping it in good order first if it runs.",
    _restart,
)


@click.command(epilog="Example: prozess purge --yes")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@cluster_options
def purge(yes: bool, directory: Path) -> None:
    """Stop a cluster and remove all its data."""
    from chaos.proc.supervisor import down as end

    cluster = open_cluster(directory)
    if not yes:
        if not sys.stdin.isatty():
            raise Failure(f"this removes all data in {directory}: say --yes")
        click.confirm(f"Remove all data in {directory}?", abort=True)
    end(cluster)
    cluster.purge()
    _say(f"removed {directory}")
