"""Loopback ports for the processes of one cluster: free now, recorded, and nobody else's soon.

All ports lie below the kernel's ephemeral range, so that no outgoing connection can take one while
its owner is being restarted. They are handed out in blocks of `BLOCK_SIZE`; whoever launches holds
a file lock on the block until its processes listen, so that two launchers never choose the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

BLOCK_SIZE = 100
FIRST_PORT = 19_000
DEFAULT_EPHEMERAL_LOW = 32_768
WORKER_SPAN = 1_000
"""Ports that each pytest-xdist worker starts its search in."""

EPHEMERAL_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoFreePorts(Exception):
    """Every block below the ephemeral range is taken."""


def ephemeral_low() -> int:
    """The first port that the kernel may give to outgoing connections."""
    try:
        return int(EPHEMERAL_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return DEFAULT_EPHEMERAL_LOW


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `port` now. A connection in TIME_WAIT does not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def worker_index(environment: str | None) -> int:
    """The number in an xdist worker's name: "gw3" -> 3, none -> 0."""
    digits = (environment or "").removeprefix("gw")
    return int(digits) if digits.isdigit() else 0


@dataclass(slots=True)
class PortClaim:
    """Ports held by a lock on their block. Release once the servers listen."""

    ports: tuple[int, ...]
    _locks: list[int] = field(default_factory=list)

    def release(self) -> None:
        """Give the locks back; the ports stay with whoever listens on them."""
        while self._locks:
            os.close(self._locks.pop())

    def __enter__(self) -> PortClaim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _lock_block(block: int) -> int | None:
    directory = Path(tempfile.gettempdir()) / f"prozess-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory / f"{block}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def claim_ports(
    count: int, *, avoid: Collection[int] = (), first_port: int | None = None
) -> PortClaim:
    """`count` free ports in whole blocks, lowest first.

    `avoid` names ports that stopped clusters have recorded for themselves. Within one block the
    ports are neighbours. Raises NoFreePorts.
    """
    high = ephemeral_low()
    start = first_port
    if start is None:
        worker = worker_index(os.environ.get("PYTEST_XDIST_WORKER"))
        start = FIRST_PORT + worker * WORKER_SPAN
        if start + WORKER_SPAN > high:
            start = FIRST_PORT
    blocks = list(range(start, high - BLOCK_SIZE + 1, BLOCK_SIZE))
    blocks += list(range(FIRST_PORT, start, BLOCK_SIZE))
    taken: list[int] = []
    claim = PortClaim(())
    for block in blocks:
        if len(taken) >= count:
            break
        wanted = range(block, block + min(BLOCK_SIZE, count - len(taken)))
        if any(port in avoid for port in wanted):
            continue
        descriptor = _lock_block(block)
        if descriptor is None:
            continue
        if all(is_free(port) for port in wanted):
            taken += wanted
            claim._locks.append(descriptor)
        else:
            os.close(descriptor)
    if len(taken) < count:
        claim.release()
        raise NoFreePorts(f"no {count} free ports between {FIRST_PORT} and {high}")
    claim.ports = tuple(taken)
    return claim


def port_holder(port: int) -> str:
    """What listens on `port`, as far as this user may see: "pid 4711 (python)" or "a process"."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{columns[9]}]")
    for process in sorted(Path("/proc").glob("[0-9]*")) if inodes else []:
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if os.readlink(descriptor) in inodes:
                    name = (process / "comm").read_text(encoding="utf-8").strip()
                    return f"pid {process.name} ({name})"
    return "a process"
