"""Watch over a running cluster: wait until it is whole, follow its logs, notice deaths.

The loop belongs to the caller, who decides what to print; nothing here writes to a terminal.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.proc.cluster import Cluster
from chaos.proc.health import ClusterView, Observe, problems
from chaos.proc.layout import ClusterError
from chaos.proc.process import (
    ProcessState,
    read_pid_file,
    send_signal,
    state_of,
    this_process,
    wait_for_state,
    write_pid_file,
)

POLL_S = 0.1
READ_BYTES_MAX = 1 << 20


class Interrupted(Exception):
    """The caller was asked to stop while it waited."""


@dataclass(frozen=True, slots=True)
class LogLine:
    node_id: int
    text: str


class LogTail:
    """Whole lines appended to a file since the last look; a line under way waits for its end."""

    def __init__(self, path: Path, *, from_end: bool) -> None:
        self._path = path
        self._rest = b""
        self._position = path.stat().st_size if from_end and path.exists() else 0

    def read_lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._position, self._rest = 0, b""  # somebody emptied the file
                file.seek(self._position)
                data = file.read(READ_BYTES_MAX)
        except FileNotFoundError:
            return []
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", errors="replace") for line in lines]


def follow(cluster: Cluster, node_ids: Sequence[int], *, from_end: bool) -> dict[int, LogTail]:
    """One tail for each node's log."""
    return {n: LogTail(cluster.node_paths(n).log, from_end=from_end) for n in node_ids}


def new_lines(tails: dict[int, LogTail]) -> list[LogLine]:
    return [LogLine(node, text) for node, tail in tails.items() for text in tail.read_lines()]


def wait_ready(
    cluster: Cluster,
    observe: Observe,
    *,
    timeout_ms: int,
    on_idle: Callable[[], bool] = lambda: False,
) -> ClusterView:
    """Until the quorum stands, every broker is unfenced and every replica in sync.

    `on_idle` is called at each turn; True interrupts. Raises ClusterError when a node dies or the
    time is over (naming what is missing), Interrupted when asked to stop.
    """
    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    while True:
        for node_id in cluster.node_ids:
            if cluster.state(node_id) is ProcessState.GONE:
                how = cluster.exit_text(node_id) or "gone"
                last = cluster.log_tail(node_id, 1) or "it printed nothing"
                raise ClusterError(f"node {node_id} ended while starting ({how}): {last}")
        view = observe(cluster.spec)
        missing = problems(view, cluster.spec)
        if on_idle():
            raise Interrupted
        if not missing:
            cluster.release_ports()
            return view
        if time.monotonic_ns() >= deadline_ns:
            more = f" (and {len(missing) - 3} more)" if len(missing) > 3 else ""
            raise ClusterError(
                f"the cluster is not whole after {timeout_ms // 1000} s: "
                f"{'; '.join(missing[:3])}{more}; `prozess logs` shows what the nodes say"
            )
        time.sleep(POLL_S)


class Supervisor:
    """The launcher in the foreground: owns the nodes, restarts them when another verb asks."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._said = dict.fromkeys(cluster.node_ids, ProcessState.GONE)

    def __enter__(self) -> Supervisor:
        write_pid_file(self.cluster.paths.launcher_pid, this_process())
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.paths.launcher_pid.unlink(missing_ok=True)

    def poll(self) -> list[str]:
        """Serve restart requests and tell what changed since the last poll, in words."""
        told = []
        for node_id in self.cluster.node_ids:
            paths = self.cluster.node_paths(node_id)
            if paths.restart_request.exists():
                paths.restart_request.unlink(missing_ok=True)
                if self.cluster.state(node_id) is ProcessState.GONE:
                    try:
                        self.cluster.start([node_id])
                    except ClusterError as error:
                        told.append(str(error))
            state = self.cluster.state(node_id)
            if state is not self._said[node_id]:
                self._said[node_id] = state
                told.append(self._told(node_id, state))
        return told

    def _told(self, node_id: int, state: ProcessState) -> str:
        process = self.cluster.process(node_id)
        pid = process.pid if process else 0
        if state is ProcessState.GONE:
            how = self.cluster.exit_text(node_id) or "gone"
            return f"node {node_id} ended ({how}); `prozess restart {node_id}` starts it again"
        if state is ProcessState.PAUSED:
            return f"node {node_id} is paused (pid {pid}); `prozess resume {node_id}` wakes it"
        return f"node {node_id} runs (pid {pid})"


def foreground_launcher_alive(cluster: Cluster) -> bool:
    """Whether a `prozess up` holds this cluster in the foreground."""
    return state_of(read_pid_file(cluster.paths.launcher_pid)) is not ProcessState.GONE


def restart(cluster: Cluster, node_id: int, timeout_ms: int = 15_000) -> None:
    """Stop the node if it runs, then start it: by the launcher in the foreground if there is one.

    A node must be the child of whoever it shall die with, hence the detour. Raises ClusterError.
    """
    cluster.spec.node(node_id)
    paths = cluster.node_paths(node_id)
    if cluster.state(node_id) is not ProcessState.GONE:
        cluster.stop([node_id])
    if not foreground_launcher_alive(cluster):
        cluster.start([node_id])
        return
    paths.restart_request.touch()
    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    while cluster.state(node_id) is ProcessState.GONE:
        if time.monotonic_ns() >= deadline_ns or not foreground_launcher_alive(cluster):
            paths.restart_request.unlink(missing_ok=True)
            raise ClusterError(
                f"the launcher did not restart node {node_id}: {cluster.log_tail(node_id, 1)}"
            )
        time.sleep(POLL_S)


def down(cluster: Cluster, timeout_ms: int = 15_000) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """End the cluster, whoever started it: (nodes that ran, nodes that had to be killed)."""
    ran = cluster.running()
    launcher = read_pid_file(cluster.paths.launcher_pid)
    if launcher is not None and launcher != this_process():
        send_signal(launcher, signal.SIGTERM)
        wait_for_state(launcher, ProcessState.GONE, timeout_ms)
    forced = cluster.stop()
    cluster.paths.launcher_pid.unlink(missing_ok=True)
    return ran, forced
