"""Every connection of a trial has a proxy of its own, and what a proxy can do to it.

A `Link` is one ordered pair: who connects, to which node, on which plane. Its two streams are named
as seen from who connects: UPSTREAM carries its bytes to the node, DOWNSTREAM the node's bytes back.
Two implementations exist: the real toxiproxy-server (`toxiproxy`) and our own (`link_proxy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from chaos.proc.layout import ClusterSpec

BROKER_PLANE = "broker"
CONTROLLER_PLANE = "controller"


class Stream(Enum):
    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


BOTH = (Stream.UPSTREAM, Stream.DOWNSTREAM)


class ProxyError(Exception):
    """A proxy could not be made or changed; says which call and what came back."""


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """`source` is a node id as text, or the name of a client process; `target` a node id."""

    source: str
    target: int
    plane: str

    @property
    def name(self) -> str:
        return f"{self.plane}-{self.source}-{self.target}"


@dataclass(frozen=True, slots=True)
class Route:
    """A link with its addresses: the proxy listens on `listen` and connects to `upstream`."""

    link: Link
    listen: str
    upstream: str


class LinkProxies(Protocol):
    """Faults on links. All calls return when the fault holds; all raise ProxyError."""

    @property
    def kind(self) -> str:
        """What does the work, for the report: "toxiproxy 2.12.0", "built-in"."""
        ...

    @property
    def restarts(self) -> int:
        """How often all connections broke because the proxies had to be started anew."""
        ...

    def create(self, routes: Sequence[Route]) -> None:
        """Make one open proxy per route."""
        ...

    def cut(self, link: Link, stream: Stream) -> None:
        """Swallow this stream's bytes; connections stay up. Healing closes them."""
        ...

    def stall(self, link: Link, stream: Stream) -> None:
        """Hold this stream's bytes back; healing lets them through, none lost."""
        ...

    def slow(self, link: Link, stream: Stream, latency_ms: int) -> None:
        """Deliver this stream's bytes later, in order."""
        ...

    def reset(self, link: Link) -> None:
        """Break the connections of this moment; new ones are welcome."""
        ...

    def close(self, link: Link) -> None:
        """Break all connections and refuse new ones: the port is closed."""
        ...

    def reopen(self, link: Link) -> None:
        """Undo `close`."""
        ...

    def heal(self, link: Link) -> None:
        """Undo cut, stall and slow. A closed link stays closed."""
        ...

    def heal_all(self) -> None:
        """Undo everything on all links, closing included."""
        ...

    def shutdown(self) -> None:
        """End the proxies. Safe to call twice."""
        ...


def plan_routes(
    spec: ClusterSpec, clients: Sequence[str], ports: Sequence[int]
) -> tuple[Route, ...]:
    """One route for each ordered pair of nodes and plane, and each client and broker.

    Every node may connect to every broker, and to every controller. Takes as many ports as there
    are routes, see `route_count`.
    """
    links = []
    for source in spec.nodes:
        for target in spec.nodes:
            if source.node_id == target.node_id:
                continue
            links.append(Link(str(source.node_id), target.node_id, BROKER_PLANE))
            if "controller" in target.roles:
                links.append(Link(str(source.node_id), target.node_id, CONTROLLER_PLANE))
    links += [
        Link(client, target.node_id, BROKER_PLANE) for client in clients for target in spec.nodes
    ]
    routes = []
    for link, port in zip(links, ports, strict=True):
        node = spec.node(link.target)
        address = node.broker_address if link.plane == BROKER_PLANE else node.controller_address
        routes.append(Route(link, f"127.0.0.1:{port}", address))
    return tuple(routes)


def route_count(spec: ClusterSpec, client_count: int) -> int:
    """How many routes, and so ports, `plan_routes` makes."""
    nodes = len(spec.nodes)
    controllers = sum("controller" in node.roles for node in spec.nodes)
    return nodes * (nodes - 1) + controllers * (nodes - 1) + client_count * nodes


def connect_overrides(routes: Sequence[Route], source: str) -> dict[str, str]:
    """What `source` puts into its settings: {"broker:2": "127.0.0.1:21007", …}."""
    return {
        f"{route.link.plane}:{route.link.target}": route.listen
        for route in routes
        if route.link.source == source
    }
