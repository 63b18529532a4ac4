"""Both proxies keep the same promises, shown on real connections to a real ZeroMQ server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from chaos.proc.link_proxy import BuiltInProxies
from chaos.proc.links import BOTH, Link, LinkProxies, ProxyError, Route, Stream
from chaos.proc.ports import PortClaim, claim_ports
from chaos.proc.probe import probe_link, wait_until_flows
from chaos.proc.provision import provision
from chaos.proc.toxiproxy import ToxiproxyLinks

LINK = Link("1", 2, "broker")
OTHER = Link("client-a", 2, "broker")


def make_toxiproxy(directory: Path, claim: PortClaim) -> LinkProxies:
    found = provision()
    assert found.path is not None, (
        "no toxiproxy-server: install Go or set PROZESS_TOXIPROXY_BIN, or leave these tests out "
        f"with -m 'not process' ({found.lost})"
    )
    return ToxiproxyLinks(found.path, found.version, claim.ports[0], directory)


def make_built_in(directory: Path, claim: PortClaim) -> LinkProxies:
    return BuiltInProxies()


@pytest.fixture
def ports() -> Iterator[PortClaim]:
    with claim_ports(5) as claim:
        yield claim


@pytest.fixture(
    params=[
        pytest.param(make_built_in, id="built-in"),
        pytest.param(make_toxiproxy, id="toxiproxy", marks=pytest.mark.process),
    ]
)
def proxies(
    request: pytest.FixtureRequest, tmp_path: Path, ports: PortClaim
) -> Iterator[LinkProxies]:
    made: LinkProxies = request.param(tmp_path, ports)
    yield made
    made.shutdown()
    made.shutdown()  # twice is fine


@pytest.fixture
def router(ports: PortClaim) -> Iterator[str]:
    """Address of a ZeroMQ server that answers greetings."""
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    server.linger = 0
    server.bind(f"tcp://127.0.0.1:{ports.ports[1]}")
    yield f"127.0.0.1:{ports.ports[1]}"
    server.close()
    context.term()


class Echo:
    """A server that sends back what it gets."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.connections: list[socket.socket] = []
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                break
            self.connections.append(connection)
            threads.append(threading.Thread(target=self._echo, args=(connection,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.thread.join()


@pytest.fixture
def echo(ports: PortClaim) -> Iterator[str]:
    server = Echo(ports.ports[1])
    yield f"127.0.0.1:{ports.ports[1]}"
    server.close()


def route(ports: PortClaim, upstream: str, link: Link = LINK, index: int = 2) -> Route:
    return Route(link, f"127.0.0.1:{ports.ports[index]}", upstream)


def connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), 5)


def receive(connection: socket.socket, size_bytes: int) -> bytes:
    """Exactly so many bytes; b"" when the connection ends before."""
    got = b""
    try:
        while len(got) < size_bytes:
            chunk = connection.recv(size_bytes - len(got))
            if not chunk:
                return b""
            got += chunk
    except ConnectionError:
        return b""
    return got


def ask(connection: socket.socket, text: bytes) -> bytes:
    """Send and read back the same number of bytes; b"" when the connection ends."""
    try:
        connection.sendall(text)
    except ConnectionError:
        return b""
    return receive(connection, len(text))


def arrives(connection: socket.socket, text: bytes, timeout_s: float) -> bool:
    connection.settimeout(timeout_s)
    try:
        return ask(connection, text) == text
    except TimeoutError:
        return False
    finally:
        connection.settimeout(5)


def test_bytes_pass_unchanged(proxies: LinkProxies, ports: PortClaim, echo: str) -> None:
    way = route(ports, echo)
    proxies.create([way])
    text = bytes(range(256)) * 4_000
    with connect(way.listen) as connection:
        sender = threading.Thread(target=connection.sendall, args=(text,))
        sender.start()
        assert receive(connection, len(text)) == text
        sender.join()


@pytest.mark.parametrize("stream", BOTH)
def test_a_cut_swallows_and_its_end_closes(
    proxies: LinkProxies, ports: PortClaim, echo: str, stream: Stream
) -> None:
    way, beside = route(ports, echo), route(ports, echo, OTHER, 3)
    proxies.create([way, beside])
    with connect(way.listen) as connection, connect(beside.listen) as bystander:
        assert ask(connection, b"before") == b"before"
        proxies.cut(LINK, stream)
        assert not arrives(connection, b"lost", 0.2)
        assert ask(bystander, b"the other link") == b"the other link"
        proxies.heal(LINK)
        assert ask(connection, b"after the gap") == b""
        assert ask(bystander, b"still") == b"still"
    with connect(way.listen) as fresh:
        assert ask(fresh, b"healed") == b"healed"


@pytest.mark.parametrize("stream", BOTH)
def test_a_stall_loses_nothing(
    proxies: LinkProxies, ports: PortClaim, echo: str, stream: Stream
) -> None:
    way = route(ports, echo)
    proxies.create([way])
    with connect(way.listen) as connection:
        assert ask(connection, b"before") == b"before"
        proxies.stall(LINK, stream)
        assert not arrives(connection, b"held", 0.2)
        proxies.heal(LINK)
        assert receive(connection, 4) == b"held"
        assert ask(connection, b"after") == b"after"


class Deaf:
    """A server that accepts connections and never reads."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))

    def close(self) -> None:
        self.listener.close()


def flood(address: str) -> socket.socket:
    """A connection that takes no more bytes."""
    connection = connect(address)
    connection.settimeout(0.3)
    with suppress(TimeoutError):
        while True:
            connection.sendall(bytes(1_048_576))
    return connection


def test_a_stall_of_a_connection_that_nobody_reads_can_be_lifted(
    proxies: LinkProxies, ports: PortClaim, echo: str
) -> None:
    """toxiproxy-server hangs for ever in a call that changes such a connection."""
    deaf = Deaf(ports.ports[3])
    blocked = Route(LINK, f"127.0.0.1:{ports.ports[2]}", f"127.0.0.1:{ports.ports[3]}")
    way = route(ports, echo, OTHER, 4)
    proxies.create([blocked, way])
    with flood(blocked.listen):
        proxies.stall(LINK, Stream.UPSTREAM)
        proxies.stall(OTHER, Stream.UPSTREAM)
        with connect(way.listen) as connection:
            assert not arrives(connection, b"held", 0.2)
        proxies.heal(LINK)
        with connect(way.listen) as connection:
            assert not arrives(connection, b"held", 0.2), "what was not healed goes on"
        proxies.heal(OTHER)
        with connect(way.listen) as connection:
            assert ask(connection, b"healed") == b"healed"
        proxies.heal_all()
    deaf.close()


def test_latency_keeps_the_order(proxies: LinkProxies, ports: PortClaim, echo: str) -> None:
    way = route(ports, echo)
    proxies.create([way])
    with connect(way.listen) as connection:
        proxies.slow(LINK, Stream.UPSTREAM, 300)
        assert not arrives(connection, b"1", 0.1)
        for number in range(2, 10):
            connection.sendall(str(number).encode())
        assert receive(connection, 9) == b"123456789"


def test_a_reset_breaks_only_the_connections_of_the_moment(
    proxies: LinkProxies, ports: PortClaim, echo: str
) -> None:
    way = route(ports, echo)
    proxies.create([way])
    with connect(way.listen) as connection:
        assert ask(connection, b"before") == b"before"
        proxies.reset(LINK)
        assert ask(connection, b"broken") == b""
    with connect(way.listen) as fresh:
        assert ask(fresh, b"welcome") == b"welcome"


def test_a_closed_link_refuses_until_it_is_reopened(
    proxies: LinkProxies, ports: PortClaim, echo: str
) -> None:
    way = route(ports, echo)
    proxies.create([way])
    with connect(way.listen) as connection:
        assert ask(connection, b"before") == b"before"
        proxies.close(LINK)
        assert ask(connection, b"broken") == b""
    with pytest.raises(ConnectionRefusedError):
        connect(way.listen)
    proxies.heal(LINK)
    with pytest.raises(ConnectionRefusedError):
        connect(way.listen)
    proxies.reopen(LINK)
    with connect(way.listen) as fresh:
        assert ask(fresh, b"open") == b"open"


def test_heal_all_undoes_everything(proxies: LinkProxies, ports: PortClaim, echo: str) -> None:
    ways = [route(ports, echo), route(ports, echo, OTHER, 3)]
    proxies.create(ways)
    proxies.cut(LINK, Stream.UPSTREAM)
    proxies.close(OTHER)
    proxies.heal_all()
    for way in ways:
        with connect(way.listen) as connection:
            assert ask(connection, b"whole") == b"whole"


def test_a_link_to_a_dead_node_ends_its_connections(proxies: LinkProxies, ports: PortClaim) -> None:
    way = route(ports, f"127.0.0.1:{ports.ports[4]}")
    proxies.create([way])
    with connect(way.listen) as connection:
        assert ask(connection, b"anybody?") == b""


def test_wrong_calls_are_typed_errors(proxies: LinkProxies, ports: PortClaim, echo: str) -> None:
    host, port = echo.rsplit(":", 1)
    with pytest.raises(ProxyError):
        proxies.create([Route(LINK, f"{host}:{port}", "127.0.0.1:1")])  # the port is taken
    with pytest.raises(ProxyError, match="there is no link controller-7-8"):
        proxies.cut(Link("7", 8, "controller"), Stream.UPSTREAM)


CUTS: list[tuple[str, Callable[[LinkProxies], None], str]] = [
    ("nothing", lambda proxies: None, "flows"),
    ("upstream", lambda proxies: proxies.cut(LINK, Stream.UPSTREAM), "cut upstream"),
    ("downstream", lambda proxies: proxies.cut(LINK, Stream.DOWNSTREAM), "silent"),
    ("closed", lambda proxies: proxies.close(LINK), "closed"),
]


@pytest.mark.parametrize(("name", "fault", "seen"), CUTS, ids=[cut[0] for cut in CUTS])
def test_the_probe_tells_what_a_fault_does(
    proxies: LinkProxies,
    ports: PortClaim,
    router: str,
    name: str,
    fault: Callable[[LinkProxies], None],
    seen: str,
) -> None:
    way = route(ports, router)
    proxies.create([way])
    fault(proxies)
    check = probe_link(way.listen)
    assert check.describe() == seen
    assert check.upstream_flows == (name == "nothing")
    proxies.heal_all()
    assert wait_until_flows(way.listen, 5_000).upstream_flows


@pytest.mark.process
def test_one_toxiproxy_per_process(tmp_path: Path, ports: PortClaim) -> None:
    first = make_toxiproxy(tmp_path, ports)
    with pytest.raises(ProxyError, match="one server per process"):
        make_toxiproxy(tmp_path, ports)
    first.shutdown()
    make_toxiproxy(tmp_path, ports).shutdown()


def test_a_server_that_does_not_come_up_is_told(tmp_path: Path, ports: PortClaim) -> None:
    with pytest.raises(ProxyError, match="cannot start /nonexistent/server: No such file"):
        ToxiproxyLinks(Path("/nonexistent/server"), "0", ports.ports[0], tmp_path)
