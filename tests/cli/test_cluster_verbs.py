"""The cluster verbs end to end, on real brokers: every state a user can bring a cluster into."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.proc.cluster import Cluster
from chaos.proc.process import ProcessState, read_pid_file, wait_for_state
from chaos.proc.supervisor import down

pytestmark = pytest.mark.process

PROZESS = (sys.executable, "-m", "client.cli")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def prozess(tmp_path: Path) -> Iterator[Run]:
    """Runs the command in a directory of its own; whatever it leaves running is ended."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROZESS, *arguments],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield run
    for spec in sorted(tmp_path.glob(".prozess/*/cluster.json")):
        down(Cluster.open(spec.parent))


def cluster_of(tmp_path: Path, name: str = "default") -> Cluster:
    return Cluster.open(tmp_path / ".prozess" / name)


def status(prozess: Run) -> tuple[int, dict[str, Any]]:
    shown = prozess("status", "-o", "json")
    return shown.returncode, json.loads(shown.stdout)


def test_the_life_of_a_detached_cluster(prozess: Run, tmp_path: Path) -> None:
    started = prozess("up", "-n", "3", "-d", "-o", "json")
    assert started.returncode == 0, started.stderr
    told = json.loads(started.stdout)
    cluster = cluster_of(tmp_path)
    assert told["bootstrap"] == cluster.spec.bootstrap
    assert [node["pid"] for node in told["nodes"]] == [
        process.pid for node in (1, 2, 3) if (process := cluster.process(node))
    ]
    assert sum(node["controller"] for node in told["nodes"]) == 1

    code, view = status(prozess)
    assert (code, view["problems"]) == (0, [])
    shown = prozess("status")
    assert shown.returncode == 0
    assert "whole: every broker is unfenced" in shown.stdout
    assert cluster.spec.node(3).broker_address in shown.stdout

    again = prozess("up", "-d")
    assert again.returncode == 2
    assert "node 1 of this cluster runs already" in again.stderr

    assert "node 2 is dead" in prozess("kill", "2").stderr
    code, view = status(prozess)
    assert (code, view["nodes"][1]["process"]) == (1, "gone")
    assert "node 2 does not answer" in view["problems"]
    assert prozess("kill", "2").returncode == 2

    assert "node 2 runs" in prozess("restart", "2").stderr
    assert "node 3 is paused" in prozess("pause", "3").stderr
    code, view = status(prozess)
    assert (code, view["nodes"][2]["process"]) == (1, "paused")
    assert "node 3 runs" in prozess("resume", "3").stderr

    logs = prozess("logs", "2", "-n", "1000")
    assert logs.returncode == 0
    assert logs.stdout
    assert all(line.startswith("2 | ") for line in logs.stdout.splitlines())

    assert "stopped nodes 1, 2, 3" in prozess("down").stderr
    assert "nothing was running" in prozess("down").stderr
    assert prozess("status").returncode == 2

    assert prozess("up", "-d").returncode == 0
    assert cluster.running() == (1, 2, 3)
    assert prozess("purge").returncode == 2
    assert cluster.running() == (1, 2, 3)
    assert prozess("purge", "--yes").returncode == 0
    assert cluster.running() == ()
    assert not (tmp_path / ".prozess" / "default").exists()


class Foreground:
    """`prozess up` with its standard output read line by line."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.stderr = directory / "stderr"
        with self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [*PROZESS, "up", *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("export PROZESS_BROKERS="):
                return
        raise AssertionError(self.stderr.read_text())

    def end(self) -> int:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        self.process.stdout.close()
        return self.process.wait(30)


def test_the_foreground_shows_restarts_and_stops_its_node(prozess: Run, tmp_path: Path) -> None:
    up = Foreground(tmp_path, "-n", "1")
    cluster = cluster_of(tmp_path)
    first = cluster.process(1)
    assert first is not None
    prozess("kill", "1")
    restarted = prozess("restart", "1")
    assert restarted.returncode == 0, restarted.stderr
    second = cluster.process(1)
    assert second is not None
    assert second != first
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0
    assert cluster.running() == ()
    assert any(line.startswith("1 | ") and "incarnation" in line for line in up.lines)
    told = up.stderr.read_text()
    assert "Ctrl-C stops the cluster" in told
    assert f"node 1 runs (pid {second.pid})" in told
    assert not cluster.paths.launcher_pid.exists()


def test_a_killed_launcher_takes_its_nodes_along(prozess: Run, tmp_path: Path) -> None:
    up = Foreground(tmp_path, "-n", "1")
    node = cluster_of(tmp_path).process(1)
    assert node is not None
    up.process.kill()
    assert up.end() == -signal.SIGKILL
    assert wait_for_state(node, ProcessState.GONE, 10_000)
    assert "nothing was running" in prozess("down").stderr


def test_down_ends_a_foreground_launcher(prozess: Run, tmp_path: Path) -> None:
    up = Foreground(tmp_path, "-n", "1")
    launcher = read_pid_file(cluster_of(tmp_path).paths.launcher_pid)
    assert launcher is not None
    assert launcher.pid == up.process.pid
    assert "stopped node 1" in prozess("down").stderr
    assert up.end() == 0


def test_a_taken_port_is_named_and_nothing_is_left(prozess: Run, tmp_path: Path) -> None:
    assert prozess("up", "-n", "1", "-d", "--name", "a").returncode == 0
    cluster = cluster_of(tmp_path, "a")
    copy = tmp_path / ".prozess" / "b"
    copy.mkdir()
    (copy / "cluster.json").write_bytes(cluster.paths.spec.read_bytes())
    pid = cluster.process(1)
    refused = prozess("up", "-d", "--name", "b")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "node 1 needs port" in refused.stderr
    assert "listens on it: end that process, or make another cluster with --name" in refused.stderr
    assert cluster.process(1) == pid
    assert cluster.state(1) is ProcessState.RUNNING


def test_controllers_apart(prozess: Run, tmp_path: Path) -> None:
    started = prozess("up", "-n", "2", "--controllers", "1", "-d", "-o", "json")
    assert started.returncode == 0, started.stderr
    assert [node["roles"] for node in json.loads(started.stdout)["nodes"]] == [
        ["controller", "broker"],
        ["broker"],
    ]
    wrong = prozess("up", "-n", "3", "-d")
    assert wrong.returncode == 2
    assert "has 2 nodes, not 3" in wrong.stderr
