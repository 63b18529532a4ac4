"""Whose data directory this is, and that nobody else uses it.

`meta.properties` names cluster, node and disk; a lock on `.lock`, held for the life of the process,
proves to the next incarnation that the one before is dead.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from broker.runtime.disk import RealDisk, sync_directory

META_NAME = "meta.properties"
LOCK_NAME = ".lock"
META_VERSION = 1
_KEYS = ("version", "cluster_id", "node_id", "disk_id")


class Identity(NamedTuple):
    cluster_id: str
    node_id: int
    disk_id: str


class DataDirOwner(Protocol):
    """Who a node says it is: its settings."""

    @property
    def cluster_id(self) -> str: ...

    @property
    def node_id(self) -> int: ...

    @property
    def data_dir(self) -> str: ...


class IdentityError(Exception):
    """The data directory cannot be used; one line that says what to do."""


class NotFormatted(IdentityError):
    pass


class BrokenMeta(IdentityError):
    pass


class WrongIdentity(IdentityError):
    """The directory belongs to another cluster or node."""


class InUse(IdentityError):
    """Another process holds the lock; `pid` is -1 if it is unknown."""

    def __init__(self, root: Path, pid: int) -> None:
        who = f"process {pid}" if pid > 0 else "another process"
        super().__init__(f"{root} is in use by {who}: stop it, or take another data_dir")
        self.pid = pid


class NotWritable(IdentityError):
    pass


class DataDirLock:
    """Held until `release` or the end of the process, however it ends."""

    def __init__(self, root: Path) -> None:
        """Take the lock and leave our pid in it. InUse or NotWritable."""
        try:
            descriptor = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _not_writable(root, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise InUse(root, int(text) if text.isdigit() else -1) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


def format_data_dir(root: Path, identity: Identity) -> None:
    """Make `root` the data directory of this node; fine if it already is.

    WrongIdentity if it is another's, NotWritable if it cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if (root / META_NAME).exists():
            found = read_identity(root)
            if found != identity:
                raise WrongIdentity(f"{root} is already formatted for {_describe(found)}")
            return
        temporary = root / (META_NAME + ".tmp")
        with temporary.open("wb") as file:
            file.write(_encode(identity))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, root / META_NAME)
        sync_directory(str(root))
    except OSError as error:
        raise _not_writable(root, error) from error


def read_identity(root: Path) -> Identity:
    """Who `root` belongs to. NotFormatted or BrokenMeta."""
    path = root / META_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFormatted(f"{root} is not formatted: it has no {META_NAME}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenMeta(f"{path} cannot be read: {error}") from error
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, equals, value = line.partition("=")
        if line.strip() and not line.startswith("#"):
            if not equals or name not in _KEYS or name in values:
                raise BrokenMeta(f"{path}: line {number} is not understood: {line!r}")
            values[name] = value
    missing = [name for name in _KEYS if not values.get(name)]
    if missing:
        raise BrokenMeta(f"{path} lacks {', '.join(missing)}")
    if values["version"] != str(META_VERSION):
        raise BrokenMeta(f"{path} has version {values['version']}, this is {META_VERSION}")
    if not values["node_id"].isdigit():
        raise BrokenMeta(f"{path}: node_id is {values['node_id']!r}")
    return Identity(values["cluster_id"], int(values["node_id"]), values["disk_id"])


@contextmanager
def open_data_dir(owner: DataDirOwner) -> Iterator[tuple[Identity, RealDisk]]:
    """Check that the directory is this node's, lock it, and give it back at the end.

    Any IdentityError.
    """
    root = Path(owner.data_dir)
    identity = read_identity(root)
    if identity.cluster_id != owner.cluster_id:
        raise WrongIdentity(
            f"{root} belongs to cluster {identity.cluster_id}, not {owner.cluster_id}: "
            "take another data_dir or correct cluster_id"
        )
    if identity.node_id != owner.node_id:
        raise WrongIdentity(
            f"{root} belongs to node {identity.node_id}, not {owner.node_id}: "
            "take another data_dir or correct node_id"
        )
    lock = DataDirLock(root)
    disk = RealDisk(root)
    try:
        yield identity, disk
    finally:
        disk.close()
        lock.release()


def _encode(identity: Identity) -> bytes:
    lines = [
        f"version={META_VERSION}",
        f"cluster_id={identity.cluster_id}",
        f"node_id={identity.node_id}",
        f"disk_id={identity.disk_id}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _describe(identity: Identity) -> str:
    return f"node {identity.node_id} of cluster {identity.cluster_id} (disk {identity.disk_id})"


def _not_writable(root: Path, error: OSError) -> NotWritable:
    return NotWritable(f"{root} cannot be written: {error.strerror}")
