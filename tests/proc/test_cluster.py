"""The launcher against real processes (stand-ins for brokers): every state, every refusal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.config import KAFKA_TIMING, load
from chaos.proc.cluster import Cluster, Plan, Programs
from chaos.proc.layout import ClusterError, set_connect
from chaos.proc.process import (
    ProcessId,
    ProcessState,
    boot_id,
    read_pid_file,
    send_signal,
    state_of,
    wait_for_state,
    write_pid_file,
)
from chaos.proc.supervisor import (
    LogTail,
    Supervisor,
    down,
    foreground_launcher_alive,
    restart,
)

pytestmark = pytest.mark.process

STANDIN = (sys.executable, str(Path(__file__).with_name("standin.py")))
PROGRAMS = Programs(node=STANDIN, format=(*STANDIN, "--format"))
MakeCluster = Callable[..., Cluster]


def wait_for_line(cluster: Cluster, node_id: int, text: str) -> None:
    tail = LogTail(cluster.node_paths(node_id).log, from_end=False)
    seen: list[str] = []
    while text not in seen:
        assert cluster.state(node_id) is not ProcessState.GONE or text in seen, seen
        seen += tail.read_lines()


def test_creation_writes_what_a_node_needs(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(5, controller_count=3, facts="acks")
    configs = [load(cluster.node_paths(n).config) for n in cluster.node_ids]
    assert [config.roles for config in configs] == [("controller", "broker")] * 3 + [
        ("broker",)
    ] * 2
    assert len({config.voters for config in configs}) == 1
    assert [voter.node_id for voter in configs[0].voters] == [1, 2, 3]
    assert len({voter.disk_id for voter in configs[0].voters}) == 3
    assert all(config.facts == "acks" for config in configs)
    for node, config in zip(cluster.spec.nodes, configs, strict=True):
        assert (Path(config.data_dir) / "meta.properties").exists()
        assert config.broker_port == node.broker_port
    ports = [p for c in configs for p in (c.broker_port, c.controller_port) if p]
    assert len(set(ports)) == 8
    assert Cluster.open(cluster.paths.directory).spec == cluster.spec


def test_kafka_timing_reaches_the_node(make_cluster: MakeCluster) -> None:
    config = load(make_cluster(1, timing="kafka").node_paths(1).config)
    assert {name: getattr(config, name) for name in KAFKA_TIMING} == KAFKA_TIMING


def test_connect_overrides_reach_the_node(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    set_connect(cluster.paths, 1, {"broker:2": "127.0.0.1:999", "controller:2": "127.0.0.1:998"})
    assert load(cluster.node_paths(1).config).connect == (
        ("broker:2", "127.0.0.1:999"),
        ("controller:2", "127.0.0.1:998"),
    )
    assert load(cluster.node_paths(2).config).connect == ()


def test_start_kill_restart_pause_resume_stop(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.start()
    assert cluster.running() == (1, 2, 3)
    first = cluster.process(2)
    assert cluster.kill(2) == first
    assert cluster.state(2) is ProcessState.GONE
    assert cluster.running() == (1, 3)
    assert cluster.exit_text(2) == "signal SIGKILL"
    with pytest.raises(ClusterError, match="node 2 is not running: `prozess restart 2`"):
        cluster.pause(2)
    cluster.start([2])
    assert cluster.process(2) != first
    cluster.pause(3)
    assert cluster.state(3) is ProcessState.PAUSED
    cluster.resume(3)
    assert cluster.state(3) is ProcessState.RUNNING
    wait_for_line(cluster, 2, "node 2 listens")
    cluster.pause(3)
    assert cluster.stop() == ()
    assert cluster.running() == ()
    assert cluster.log_tail(2, 1) == "node 2 stops"


def test_each_refusal_says_what_to_do(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(2)
    with pytest.raises(ClusterError, match="holds a cluster already: `prozess purge`"):
        Cluster.create(cluster.paths.directory, Plan(name="x"), programs=PROGRAMS)
    with pytest.raises(ClusterError, match="there is no node 9: the nodes are 1, 2"):
        cluster.kill(9)
    with pytest.raises(ClusterError, match=r"no cluster in .*: start one with `prozess up`"):
        Cluster.open(tmp_path / "nowhere")
    with pytest.raises(ClusterError, match="0 nodes: take 1 to 50"):
        Cluster.create(tmp_path / "zero", Plan(name="x", node_count=0), programs=PROGRAMS)
    with pytest.raises(ClusterError, match="4 controllers: take 1 to 3"):
        Cluster.create(tmp_path / "four", Plan(name="x", controller_count=4), programs=PROGRAMS)
    cluster.start([1])
    with pytest.raises(ClusterError, match="node 1 runs already as pid"):
        cluster.start([1])


def test_a_taken_port_is_named_and_nothing_starts(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    port = cluster.spec.node(2).broker_port
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ClusterError, match=rf"node 2 needs port {port}, but pid {os.getpid()}"):
            cluster.start()
        assert cluster.running() == ()


def test_a_failed_format_leaves_nothing(make_cluster: MakeCluster, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="node 1: the disk said no"):
        make_cluster(2, Programs(node=STANDIN, format=(*STANDIN, "--fail", "--format")))
    assert list((tmp_path / "cluster-0").iterdir()) == []
    make_cluster(2)  # the same directory can be used again


def test_data_without_a_record_is_never_written_over(tmp_path: Path) -> None:
    old = tmp_path / "nodes" / "1" / "data" / "precious"
    old.parent.mkdir(parents=True)
    old.touch()
    with pytest.raises(ClusterError, match=r"lost its cluster\.json: move it away and try again"):
        Cluster.create(tmp_path, Plan(name="x"), programs=PROGRAMS)
    assert old.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=r"cannot write .*: Not a directory; choose another"):
        Cluster.create(tmp_path / "file" / "cluster", Plan(name="x"), programs=PROGRAMS)


def test_a_foreign_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps({"version": 7}), encoding="utf-8")
    with pytest.raises(ClusterError, match="has version 7: this program knows 1"):
        Cluster.open(tmp_path)
    (tmp_path / "cluster.json").write_text("{", encoding="utf-8")
    with pytest.raises(ClusterError, match="is not JSON"):
        Cluster.open(tmp_path)
    (tmp_path / "cluster.json").write_text(json.dumps({"version": 1}), encoding="utf-8")
    with pytest.raises(ClusterError, match="is damaged"):
        Cluster.open(tmp_path)


def test_a_signal_never_reaches_a_stranger(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        columns = Path(f"/proc/{stranger.pid}/stat").read_text().rsplit(")", 1)[1].split()
        itself = ProcessId(stranger.pid, int(columns[19]), boot_id())
        assert state_of(itself) is ProcessState.RUNNING
        for alike in (
            replace(itself, start_ticks=itself.start_ticks - 1),
            replace(itself, boot_id="an earlier boot"),
        ):
            assert state_of(alike) is ProcessState.GONE
            assert not send_signal(alike, signal.SIGKILL)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


HALF_DEAD = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_is_gone_only_when_all_its_threads_are(tmp_path: Path) -> None:
    """The first thread is a zombie while another still holds whatever the process had open."""
    child = subprocess.Popen(
        [sys.executable, "-c", HALF_DEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"ready\n"
    stat = Path(f"/proc/{child.pid}/stat")
    while (columns := stat.read_text().rsplit(")", 1)[1].split())[0] != "Z":
        assert child.poll() is None
    process = ProcessId(child.pid, int(columns[19]), boot_id())
    assert state_of(process) is ProcessState.RUNNING
    send_signal(process, signal.SIGKILL)
    assert wait_for_state(process, ProcessState.GONE, 10_000)
    child.communicate()


def test_a_reused_pid_is_not_the_node(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    cluster.start()
    process = cluster.process(1)
    assert process is not None
    other = ProcessId(process.pid, process.start_ticks - 1, process.boot_id)
    write_pid_file(cluster.node_paths(1).pid, other)
    assert cluster.state(1) is ProcessState.GONE
    assert down(cluster) == ((), ())
    assert state_of(process) is not ProcessState.GONE
    write_pid_file(cluster.node_paths(1).pid, process)


LAUNCH = """
import sys
from pathlib import Path
from chaos.proc.cluster import Cluster, Programs
standin = ({executable!r}, {standin!r})
programs = Programs(node=standin, format=standin)
cluster = Cluster.open(Path({directory!r}), programs=programs, leashed={leashed})
cluster.start()
print("started", flush=True)
sys.stdin.read()
"""


def launch(cluster: Cluster, *, leashed: bool) -> subprocess.Popen[bytes]:
    code = LAUNCH.format(
        executable=STANDIN[0],
        standin=STANDIN[1],
        directory=str(cluster.paths.directory),
        leashed=leashed,
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"started\n"
    return child


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def test_leashed_nodes_die_with_a_killed_launcher(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    launcher = launch(cluster, leashed=True)
    nodes = [cluster.process(n) for n in cluster.node_ids]
    cluster.pause(2)  # also one that can hear no other signal
    end(launcher)
    for node in nodes:
        assert node is not None
        assert wait_for_state(node, ProcessState.GONE, 5_000)


def test_down_finds_orphans_by_their_pid_files(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    end(launch(cluster, leashed=False))
    assert cluster.running() == (1, 2)
    assert down(Cluster.open(cluster.paths.directory)) == ((1, 2), ())
    assert cluster.running() == ()


def test_restart_goes_to_the_launcher_in_the_foreground(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    cluster.start()
    with Supervisor(cluster) as supervisor:
        assert foreground_launcher_alive(cluster)
        assert supervisor.poll() == [f"node 1 runs (pid {cluster.process(1).pid})"]  # type: ignore[union-attr]
        cluster.kill(1)
        assert supervisor.poll() == [
            "node 1 ended (signal SIGKILL); `prozess restart 1` starts it again"
        ]
        cluster.node_paths(1).restart_request.touch()
        process = cluster.process(1)
        assert len(supervisor.poll()) == 1
        assert cluster.process(1) not in (None, process)
        assert not cluster.node_paths(1).restart_request.exists()
    assert not foreground_launcher_alive(cluster)
    before = cluster.process(1)
    restart(cluster, 1)
    assert cluster.process(1) not in (None, before)


def test_a_node_that_stops_at_once_is_reported(make_cluster: MakeCluster) -> None:
    crash = Programs(node=(*STANDIN, "--crash"), format=PROGRAMS.format)
    cluster = make_cluster(1, crash)
    cluster.start()
    process = read_pid_file(cluster.node_paths(1).pid)
    assert process is not None
    while cluster.state(1) is not ProcessState.GONE:
        wait_for_state(process, ProcessState.GONE, 50)
    assert cluster.exit_text(1) == "exit code 1"
    assert cluster.log_tail(1, 1) == "node fell over"


def test_purge_removes_only_what_was_made(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    own = cluster.paths.directory / "notes.txt"
    own.write_text("mine", encoding="ascii")
    cluster.start()
    cluster.purge()
    assert cluster.running() == ()
    assert [path.name for path in cluster.paths.directory.iterdir()] == ["notes.txt"]


def test_a_log_tail_gives_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path, from_end=False)
    assert tail.read_lines() == []
    path.write_bytes(b"one\ntw")
    assert tail.read_lines() == ["one"]
    with path.open("ab") as file:
        file.write(b"o\n\xff\n")
    assert tail.read_lines() == ["two", "\ufffd"]
    path.write_bytes(b"new\n")
    assert tail.read_lines() == ["new"]
