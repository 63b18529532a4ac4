"""A real disk that forgets on kill -9 what was not synced: power loss of a process.

What is written stays in the process until a sync asks for it; so does a cut. A process that is
killed takes it along, and its next life finds what was synced, and nothing else of it. Names (files
and directories made, renamed, removed) reach the disk at once: that they may be lost too is for the
simulated disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from broker.events import Remove, Scrub, Store, Sync
from broker.ports import Buffer
from broker.runtime.disk import Job, RealDisk, RealFile


class ForgetfulFile:
    """Satisfies `ports.File`: the real file up to `_base`, then what only this process knows."""

    def __init__(self, real: RealFile) -> None:
        self.real = real
        self._base = real.size_bytes
        self._pending = bytearray()

    @property
    def path(self) -> str:
        return self.real.path

    @property
    def size_bytes(self) -> int:
        return self._base + len(self._pending)

    @property
    def is_synced(self) -> bool:
        return not self._pending and self._base == self.real.size_bytes

    def append(self, chunks: Sequence[Buffer]) -> None:
        for chunk in chunks:
            self._pending += chunk

    def read(self, position: int, size_bytes: int) -> bytes:
        end = position + size_bytes
        data = b""
        if position < self._base:
            data = self.real.read(position, min(end, self._base) - position)
        start = max(position, self._base) - self._base
        return data + bytes(self._pending[start : max(end - self._base, start)])

    def truncate(self, size_bytes: int) -> None:
        if size_bytes < self._base:
            self._base = size_bytes
        del self._pending[max(size_bytes - self._base, 0) :]

    def close(self) -> None:
        self.real.close()

    def write_out(self) -> None:
        """A sync asks for it. DiskError."""
        self.real.truncate(self._base)
        if self._pending:
            self.real.append((bytes(self._pending),))
        self._base = self.real.size_bytes
        self._pending.clear()


class ForgetfulDisk(RealDisk):
    """Satisfies `ports.Disk`, and the server's: what is synced is written out first."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._unsynced: dict[str, ForgetfulFile] = {}

    def open(self, path: str, *, create: bool = False) -> ForgetfulFile:  # type: ignore[override]
        known = self._unsynced.get(path)
        if known is None or known.is_synced:
            known = self._unsynced[path] = ForgetfulFile(super().open(path, create=create))
        return known

    def read_whole(self, path: str) -> bytes:
        known = self._unsynced.get(path)
        if known is None or known.is_synced:
            return super().read_whole(path)
        return known.read(0, known.size_bytes)

    def rename(self, path: str, new_path: str) -> None:
        for name in self._below(path):
            self._unsynced.pop(name).write_out()
        self._forget(new_path)
        super().rename(path, new_path)

    def prepare(self, effect: Sync | Store | Scrub | Remove) -> Job:
        if isinstance(effect, Sync):
            for path in effect.files:
                if path in self._unsynced:
                    self._unsynced[path].write_out()
        elif not isinstance(effect, Scrub):
            self._forget(effect.path)
        return super().prepare(effect)

    def _below(self, path: str) -> list[str]:
        return [name for name in self._unsynced if name == path or name.startswith(path + "/")]

    def _forget(self, path: str) -> None:
        for name in self._below(path):
            del self._unsynced[name]
