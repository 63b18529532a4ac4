"""A local cluster of real broker processes: make it, start it, hurt it, mend it, end it.

Used by `prozess up` and its sister verbs and by the trial. Each node is one process, started with
nothing but its node.toml. State lives in files (see `layout`), so that any process may open the
cluster and act on it; every signal goes to a process that is proven to be the node.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.proc import layout
from chaos.proc.layout import ClusterError, ClusterPaths, ClusterSpec, NodePaths
from chaos.proc.ports import NoFreePorts, PortClaim, claim_ports, is_free, port_holder
from chaos.proc.process import (
    ProcessId,
    ProcessState,
    ask_to_stop,
    await_stop,
    read_pid_file,
    send_signal,
    spawn,
    state_of,
    wait_for_pid_file,
    wait_for_state,
)

STOP_TIMEOUT_MS = 10_000
LOG_TAIL_LINES = 5
LOG_TAIL_BYTES = 65_536

BROKER_COMMAND = (sys.executable, "-m", "broker", "--config")
FORMAT_COMMAND = (sys.executable, "-m", "client.cli", "broker", "--format", "--config")


@dataclass(frozen=True, slots=True)
class Programs:
    """What runs as a node; the path of its node.toml is appended."""

    node: tuple[str, ...] = BROKER_COMMAND
    format: tuple[str, ...] = FORMAT_COMMAND


FORGETFUL = Programs(node=(*BROKER_COMMAND[:2], "chaos.proc.node", "--forgetful-disk", "--config"))
"""Nodes for which kill -9 is power loss (see `forgetful_disk`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for at creation."""

    name: str
    node_count: int = 3
    controller_count: int | None = None
    timing: str = "local"
    facts: str = "off"
    settings: Mapping[str, int | str | bool] | None = None
    """Further settings for every node.toml."""
    draw_id: Callable[[], str] = lambda: secrets.token_hex(16)
    """Where the cluster id and disk ids come from; a trial draws them by its seed."""


class Cluster:
    """One cluster directory and the processes that belong to it."""

    def __init__(
        self, directory: Path, spec: ClusterSpec, programs: Programs, *, leashed: bool
    ) -> None:
        self.paths = ClusterPaths(directory)
        self.spec = spec
        self.programs = programs
        self.leashed = leashed
        """Whether nodes that we start die with this process."""
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._claim = PortClaim(())

    # --- making and opening -----------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: Path,
        plan: Plan,
        *,
        programs: Programs | None = None,
        leashed: bool = True,
    ) -> Cluster:
        """Write the directory and format the nodes' data directories. Starts nothing.

        Raises ClusterError: one exists, bad counts, no ports, formatting failed.
        """
        layout.plan_nodes(plan.node_count, plan.controller_count, (0,) * 2 * plan.node_count)
        try:
            claim = claim_ports(2 * plan.node_count, avoid=layout.neighbours_ports(directory))
        except NoFreePorts as error:
            raise ClusterError(str(error)) from error
        spec = ClusterSpec(
            name=plan.name,
            cluster_id=plan.draw_id(),
            timing=plan.timing,
            facts=plan.facts,
            nodes=layout.plan_nodes(plan.node_count, plan.controller_count, claim.ports),
        )
        cluster = cls(directory, spec, programs or Programs(), leashed=leashed)
        cluster._claim = claim
        try:
            layout.create(directory, spec, plan.draw_id, plan.settings)
            try:
                cluster._format()
                layout.record(cluster.paths, spec)
            except BaseException:
                shutil.rmtree(cluster.paths.nodes)  # ours: it did not exist a moment ago
                raise
        except BaseException:
            claim.release()
            raise
        return cluster

    @classmethod
    def open(
        cls, directory: Path, *, programs: Programs | None = None, leashed: bool = False
    ) -> Cluster:
        """An existing cluster; ClusterError when there is none."""
        return cls(directory, layout.read(directory), programs or Programs(), leashed=leashed)

    def _format(self) -> None:
        jobs = []
        for node in self.spec.nodes:
            paths = self.node_paths(node.node_id)
            with paths.log.open("ab") as log:
                job = subprocess.Popen(
                    [*self.programs.format, str(paths.config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            jobs.append((node.node_id, job))
        failed = [node_id for node_id, job in jobs if job.wait() != 0]
        if failed:
            raise ClusterError(
                f"cannot format the data directory of node {failed[0]}: "
                f"{self.log_tail(failed[0], 1) or 'see its node.log'}"
            )

    # --- looking ----------------------------------------------------------------------------

    @property
    def node_ids(self) -> tuple[int, ...]:
        return tuple(node.node_id for node in self.spec.nodes)

    def node_paths(self, node_id: int) -> NodePaths:
        return self.paths.node(node_id)

    def process(self, node_id: int) -> ProcessId | None:
        """The node's process as last written down, alive or not."""
        return read_pid_file(self.node_paths(node_id).pid)

    def state(self, node_id: int) -> ProcessState:
        state = state_of(self.process(node_id))
        child = self._children.get(node_id)
        if child is not None and state is ProcessState.GONE:
            child.poll()  # reaps the zombie, which counts as gone
        return state

    def running(self) -> tuple[int, ...]:
        """Nodes with a live process, paused ones included."""
        return tuple(n for n in self.node_ids if self.state(n) is not ProcessState.GONE)

    def exit_text(self, node_id: int) -> str:
        """How our child ended: "exit code 1", "signal SIGKILL"; empty if unknown or alive."""
        child = self._children.get(node_id)
        code = child.poll() if child is not None else None
        if code is None:
            return ""
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def log_tail(self, node_id: int, line_count: int = LOG_TAIL_LINES) -> str:
        """The last lines that the node printed."""
        try:
            with self.node_paths(node_id).log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                text = log.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-line_count:])

    def release_ports(self) -> None:
        """Call once the nodes listen: until then no other launcher may choose their ports."""
        self._claim.release()

    # --- starting ---------------------------------------------------------------------------

    def start(self, node_ids: Sequence[int] | None = None) -> None:
        """Start nodes that are not running. Returns once each process exists, not once it serves.

        Raises ClusterError when a node runs already, a port is taken, or a process cannot start.
        """
        wanted = self.node_ids if node_ids is None else tuple(node_ids)
        for node_id in wanted:
            self._check_startable(node_id)
        for node_id in wanted:
            paths = self.node_paths(node_id)
            self._children[node_id] = spawn(
                [*self.programs.node, str(paths.config)],
                pid_file=paths.pid,
                log_file=paths.log,
                leashed=self.leashed,
            )
        for node_id in wanted:
            if wait_for_pid_file(self.node_paths(node_id).pid, self._children[node_id]) is None:
                raise ClusterError(f"node {node_id} did not start: {self.log_tail(node_id, 1)}")

    def _check_startable(self, node_id: int) -> None:
        node = self.spec.node(node_id)
        process = self.process(node_id)
        if process is not None and self.state(node_id) is not ProcessState.GONE:
            raise ClusterError(f"node {node_id} runs already as pid {process.pid}")
        for port in (node.broker_port, node.controller_port):
            if port and not is_free(port, node.host):
                raise ClusterError(
                    f"node {node_id} needs port {port}, but {port_holder(port)} listens on it: "
                    "end that process, or make another cluster with --name"
                )

    # --- hurting and mending ----------------------------------------------------------------

    def _live(self, node_id: int) -> ProcessId:
        self.spec.node(node_id)
        process = self.process(node_id)
        if process is None or self.state(node_id) is ProcessState.GONE:
            raise ClusterError(
                f"node {node_id} is not running: `prozess restart {node_id}` starts it"
            )
        return process

    def kill(self, node_id: int) -> ProcessId:
        """kill -9; returns when the process is gone."""
        process = self._live(node_id)
        send_signal(process, signal.SIGKILL)
        self._await(node_id, process, ProcessState.GONE)
        return process

    def pause(self, node_id: int) -> ProcessId:
        """SIGSTOP: the node holds its connections and memory but does nothing."""
        process = self._live(node_id)
        send_signal(process, signal.SIGSTOP)
        self._await(node_id, process, ProcessState.PAUSED)
        return process

    def resume(self, node_id: int) -> ProcessId:
        """SIGCONT."""
        process = self._live(node_id)
        send_signal(process, signal.SIGCONT)
        self._await(node_id, process, ProcessState.RUNNING)
        return process

    def _await(self, node_id: int, process: ProcessId, wanted: ProcessState) -> None:
        deadline_ns = time.monotonic_ns() + 5_000_000_000
        while not wait_for_state(process, wanted, 20):
            if time.monotonic_ns() >= deadline_ns:
                raise ClusterError(
                    f"node {node_id}, pid {process.pid}, is still not {wanted.value}"
                )
        self.state(node_id)  # reaps

    def stop(self, node_ids: Sequence[int] | None = None) -> tuple[int, ...]:
        """End nodes in good order, together; returns those that had to be killed."""
        wanted = self.node_ids if node_ids is None else tuple(node_ids)
        live = [(n, p) for n in wanted if (p := self.process(n)) and state_of(p).value != "gone"]
        for _, process in live:
            ask_to_stop(process)
        deadline_ns = time.monotonic_ns() + STOP_TIMEOUT_MS * 1_000_000
        forced = []
        for node_id, process in live:
            left_ms = max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)
            if not await_stop(process, left_ms):
                forced.append(node_id)
            self.state(node_id)  # reaps
        return tuple(forced)

    def purge(self) -> None:
        """Stop everything and remove what we made; other files in the directory stay."""
        self.stop()
        self.release_ports()
        shutil.rmtree(self.paths.nodes)
        self.paths.launcher_pid.unlink(missing_ok=True)
        self.paths.spec.unlink()
        with suppress(OSError):
            self.paths.directory.rmdir()
