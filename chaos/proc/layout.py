"""The directory of a local cluster: what is written once at creation, and where everything lies.

    <cluster dir>/
        cluster.json            what was asked for: the launcher's own record
        launcher.pid            the `prozess up` that runs in the foreground, if one does
        nodes/<id>/node.toml    settings of the node; `prozess broker` needs nothing else
        nodes/<id>/node.pid     the process: pid, start time, boot id
        nodes/<id>/node.log     what the process printed, all its lives
        nodes/<id>/data/        the node's data directory

The files under nodes/ are the authority; cluster.json only says which nodes there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from broker.config import KAFKA_TIMING, NodeConfig, VoterAddress, load, validate

VERSION = 1
DEFAULT_ROOT = Path(".prozess")
COMBINED_VOTERS_MAX = 3
"""Without --controllers: so many nodes vote, the others are brokers only."""
TIMINGS = ("local", "kafka")
FACTS = ("off", "acks", "all")


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    node_id: int
    roles: tuple[str, ...]
    host: str
    broker_port: int
    controller_port: int
    """0 without the role controller."""

    @property
    def broker_address(self) -> str:
        return f"{self.host}:{self.broker_port}"

    @property
    def controller_address(self) -> str:
        return f"{self.host}:{self.controller_port}" if self.controller_port else ""


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    name: str
    cluster_id: str
    timing: str
    facts: str
    nodes: tuple[NodeSpec, ...]

    @property
    def bootstrap(self) -> str:
        """What clients take as `bootstrap_servers`."""
        return ",".join(node.broker_address for node in self.nodes)

    def node(self, node_id: int) -> NodeSpec:
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        known = ", ".join(str(node.node_id) for node in self.nodes)
        raise ClusterError(f"there is no node {node_id}: the nodes are {known}")

    def ports(self) -> frozenset[int]:
        both = [port for node in self.nodes for port in (node.broker_port, node.controller_port)]
        return frozenset(port for port in both if port)


@dataclass(frozen=True, slots=True)
class NodePaths:
    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "node.toml"

    @property
    def pid(self) -> Path:
        return self.directory / "node.pid"

    @property
    def log(self) -> Path:
        return self.directory / "node.log"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def restart_request(self) -> Path:
        """Asks the launcher in the foreground to start the node again."""
        return self.directory / "restart-request"


@dataclass(frozen=True, slots=True)
class ClusterPaths:
    directory: Path

    @property
    def spec(self) -> Path:
        return self.directory / "cluster.json"

    @property
    def nodes(self) -> Path:
        return self.directory / "nodes"

    @property
    def launcher_pid(self) -> Path:
        return self.directory / "launcher.pid"

    def node(self, node_id: int) -> NodePaths:
        return NodePaths(self.nodes / str(node_id))


def plan_nodes(
    count: int, controller_count: int | None, ports: tuple[int, ...], host: str = "127.0.0.1"
) -> tuple[NodeSpec, ...]:
    """Nodes 1 to `count`: all are brokers, the first `controller_count` vote as well.

    Takes two ports for each node. Raises ClusterError for counts that make no cluster.
    """
    voters = min(count, COMBINED_VOTERS_MAX) if controller_count is None else controller_count
    if not 1 <= count <= 50:
        raise ClusterError(f"{count} nodes: take 1 to 50")
    if not 1 <= voters <= count:
        raise ClusterError(f"{voters} controllers: take 1 to {count}, the number of nodes")
    return tuple(
        NodeSpec(
            node_id=node_id,
            roles=("controller", "broker") if node_id <= voters else ("broker",),
            host=host,
            broker_port=ports[node_id - 1],
            controller_port=ports[count + node_id - 1] if node_id <= voters else 0,
        )
        for node_id in range(1, count + 1)
    )


def node_config(
    spec: ClusterSpec,
    node: NodeSpec,
    voters: tuple[VoterAddress, ...],
    data_dir: Path,
    settings: Mapping[str, int | str | bool] | None = None,
) -> NodeConfig:
    """Settings of one node; ClusterError names every bad one in `settings`."""
    timing = KAFKA_TIMING if spec.timing == "kafka" else {}
    config = NodeConfig(
        node_id=node.node_id,
        cluster_id=spec.cluster_id,
        data_dir=str(data_dir),
        roles=node.roles,
        host=node.host,
        broker_port=node.broker_port,
        controller_port=node.controller_port,
        voters=voters,
        facts=spec.facts,
    )
    config = replace(config, **timing, **(settings or {}))  # type: ignore[arg-type]
    wrong = validate(config)
    if wrong:
        raise ClusterError("; ".join(wrong))
    return config


def config_text(config: NodeConfig) -> str:
    """The TOML of `config`, settings that have their default value left out."""
    lines = []
    for item in fields(NodeConfig):
        value = getattr(config, item.name)
        is_default = item.default is not MISSING and value == item.default
        if item.name in ("voters", "connect") or (is_default and item.name != "roles"):
            continue
        lines.append(f"{item.name} = {_toml(value)}")
    if config.connect:
        lines += ["", "[connect]"]
        lines += [f"{_toml(peer)} = {_toml(address)}" for peer, address in config.connect]
    for voter in config.voters:
        lines += ["", "[[voters]]"]
        lines += [f"{name} = {_toml(value)}" for name, value in asdict(voter).items()]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's strings, integers and booleans are TOML's, DEL excepted.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def create(
    directory: Path,
    spec: ClusterSpec,
    draw_id: Callable[[], str],
    settings: Mapping[str, int | str | bool] | None = None,
) -> ClusterPaths:
    """Write a new cluster directory. `draw_id` gives 32 hex digits, one call per voter's disk.

    cluster.json comes last (`record`): a directory without it was never a cluster. Raises
    ClusterError when one exists or nothing can be written.
    """
    paths = ClusterPaths(directory)
    if paths.spec.exists():
        raise ClusterError(f"{directory} holds a cluster already: `prozess purge` removes it")
    if paths.nodes.exists():
        raise ClusterError(
            f"{paths.nodes} is what an interrupted launcher left, or a cluster that lost its "
            "cluster.json: move it away and try again"
        )
    voters = tuple(
        VoterAddress(node.node_id, draw_id(), node.host, node.controller_port)
        for node in spec.nodes
        if "controller" in node.roles
    )
    configs = [
        node_config(spec, node, voters, paths.node(node.node_id).data.absolute(), settings)
        for node in spec.nodes
    ]
    try:
        for config in configs:
            node = paths.node(config.node_id)
            node.directory.mkdir(parents=True, exist_ok=True)
            write_whole(node.config, config_text(config))
    except OSError as error:
        raise ClusterError(
            f"cannot write {error.filename}: {error.strerror}; choose another place with --data-dir"
        ) from error
    return paths


def record(paths: ClusterPaths, spec: ClusterSpec) -> None:
    """Write cluster.json: the last step of creation."""
    write_whole(paths.spec, json.dumps({"version": VERSION, **asdict(spec)}, indent=1) + "\n")


def read(directory: Path) -> ClusterSpec:
    """The record of an existing cluster; ClusterError when there is none or it is foreign."""
    path = ClusterPaths(directory).spec
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClusterError(f"no cluster in {directory}: start one with `prozess up`") from None
    except OSError as error:
        raise ClusterError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ClusterError(f"{path} is not JSON: {error}") from error
    if raw.get("version") != VERSION:
        raise ClusterError(f"{path} has version {raw.get('version')}: this program knows {VERSION}")
    try:
        nodes = tuple(NodeSpec(**{**node, "roles": tuple(node["roles"])}) for node in raw["nodes"])
        return ClusterSpec(
            name=raw["name"],
            cluster_id=raw["cluster_id"],
            timing=raw["timing"],
            facts=raw["facts"],
            nodes=nodes,
        )
    except (KeyError, TypeError) as error:
        raise ClusterError(f"{path} is damaged: {error}") from error


def set_connect(paths: ClusterPaths, node_id: int, connect: Mapping[str, str]) -> None:
    """Route a node's connections: {"broker:2": "host:port"}. Holds from its next start on."""
    path = paths.node(node_id).config
    config = replace(load(path), connect=tuple(sorted(connect.items())))
    write_whole(path, config_text(config))


def neighbours_ports(directory: Path) -> frozenset[int]:
    """Ports recorded by the other clusters in the same parent directory, running or not."""
    ports: frozenset[int] = frozenset()
    for spec_file in sorted(directory.absolute().parent.glob("*/cluster.json")):
        if spec_file.parent != directory.absolute():
            try:
                ports |= read(spec_file.parent).ports()
            except ClusterError:
                continue  # not ours to judge; its ports are checked by binding
    return ports
