"""A cluster whose every connection runs through a proxy of its own: what a trial is held on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.proc.cluster import Cluster, Plan, Programs
from chaos.proc.layout import ClusterError, neighbours_ports, set_connect
from chaos.proc.link_proxy import BuiltInProxies
from chaos.proc.links import LinkProxies, Route, connect_overrides, plan_routes, route_count
from chaos.proc.ports import NoFreePorts, PortClaim, claim_ports
from chaos.proc.provision import Provisioned, provision


@dataclass(slots=True)
class Wiring:
    """Cluster and proxies, which end together."""

    cluster: Cluster
    proxies: LinkProxies
    routes: tuple[Route, ...]
    clients: tuple[str, ...]
    claim: PortClaim

    def client_addresses(self, client: str) -> dict[int, str]:
        """Where a client process finds each broker: node id -> "host:port" of its own proxy."""
        return {
            route.link.target: route.listen for route in self.routes if route.link.source == client
        }

    def bootstrap(self, client: str) -> str:
        """What the client takes as `bootstrap_servers`."""
        return ",".join(self.client_addresses(client).values())

    def close(self) -> tuple[int, ...]:
        """Stop the nodes, then the proxies; returns the nodes that had to be killed."""
        try:
            return self.cluster.stop()
        finally:
            self.cluster.release_ports()
            self.proxies.shutdown()
            self.claim.release()


def start_proxies(found: Provisioned, api_port: int, directory: Path) -> LinkProxies:
    """The proxies that provisioning found: the real ones, or ours."""
    if found.path is None:
        return BuiltInProxies()
    from chaos.proc.toxiproxy import ToxiproxyLinks

    return ToxiproxyLinks(found.path, found.version, api_port, directory)


def wire(
    directory: Path,
    plan: Plan,
    clients: Sequence[str],
    *,
    programs: Programs | None = None,
    found: Provisioned | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Wiring:
    """Make a cluster, a proxy for each of its links, and tell the nodes to use them.

    Starts the proxies, not the nodes. Raises ClusterError, ProvisionError or ProxyError; then
    nothing is left running.
    """
    found = found or provision(say=say)
    cluster = Cluster.create(directory, plan, programs=programs, leashed=True)
    try:
        count = route_count(cluster.spec, len(clients))
        claim = claim_ports(count + 1, avoid=neighbours_ports(directory))
    except NoFreePorts as error:
        cluster.release_ports()
        raise ClusterError(str(error)) from error
    api_port, *ports = claim.ports
    proxies: LinkProxies | None = None
    try:
        routes = plan_routes(cluster.spec, clients, ports)
        proxies = start_proxies(found, api_port, directory)
        proxies.create(routes)
        for node_id in cluster.node_ids:
            set_connect(cluster.paths, node_id, connect_overrides(routes, str(node_id)))
    except BaseException:
        if proxies is not None:
            proxies.shutdown()
        claim.release()
        cluster.release_ports()
        raise
    return Wiring(cluster, proxies, routes, tuple(clients), claim)
