"""What the cores need of the world: a disk they may write to at once. (All else is an effect.)

Writes and reads happen in the call; whatever may wait for the device (sync, rename, removal) is an
effect in `events`. Paths are relative to the data directory, with `/` between parts. Two kinds of
disk exist: the real one in `runtime.disk`, the simulated one in `chaos.sim.disk`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class DiskError(Exception):
    """A read or write failed (EIO, ENOSPC, …).

    `unchanged` is True when the file is proven to hold exactly what it held before the call.
    """

    def __init__(self, path: str, errno: int, reason: str, *, unchanged: bool) -> None:
        super().__init__(f"{path}: {reason} (errno {errno})")
        self.path = path
        self.errno = errno
        self.reason = reason
        self.unchanged = unchanged


class File(Protocol):
    """An append-only file that can be cut."""

    @property
    def path(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    def append(self, chunks: Sequence[Buffer]) -> None:
        """Write all chunks at the end, or raise DiskError after cutting back to the old end."""
        ...

    def read(self, position: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` from `position`; fewer only at the end of the file."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Cut to `size_bytes` (never grows). Visible at once, durable after a sync."""
        ...

    def close(self) -> None:
        """Give the descriptor back. A sync under way keeps one of its own."""
        ...


class Disk(Protocol):
    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and appending. Missing without `create`: DiskError."""
        ...

    def exists(self, path: str) -> bool: ...

    def list_dir(self, path: str) -> tuple[str, ...]:
        """Names in a directory, sorted; empty when it does not exist."""
        ...

    def make_dir(self, path: str) -> None:
        """Create a directory and its parents; fine when it exists."""
        ...

    def rename(self, path: str, new_path: str) -> None:
        """Move a file or directory within its parent, replacing a file. Durable after a sync of
        the parent. No open `File` or asked-for sync may refer to the old path."""
        ...

    def read_whole(self, path: str) -> bytes:
        """The bytes of a small file; DiskError when missing."""
        ...
