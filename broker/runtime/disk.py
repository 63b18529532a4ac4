"""The real disk: files under one data directory.

Descriptors are kept in an LRU, so a log with many segments needs few. Writes append (O_APPEND), as
one call where possible: small pieces are joined first, large ones handed to writev as they are,
since copying a large buffer costs more than writing it. What waits for the device (sync, store,
remove) is prepared here, in the loop's thread, and run by `workers`: a job owns duplicates of the
descriptors it needs, because a closed number is handed out again at once.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.events import (
    Remove,
    Scrub,
    Scrubbed,
    ScrubFailed,
    Store,
    Stored,
    StoreFailed,
    Sync,
    Synced,
    SyncFailed,
)
from broker.log.cold_batches import look
from broker.ports import Buffer, DiskError

JOIN_BELOW_BYTES = 16_384
IOV_COUNT_MAX = 512
TEMPORARY_SUFFIX = ".tmp"
REMOVED_SUFFIX = "-delete"
DESCRIPTORS_MAX = 512
SCRUB_KEY = "scrub"
"""No log's: who reads what is cold must not hold up a sync."""

Outcome = Synced | SyncFailed | Stored | StoreFailed | Scrubbed | ScrubFailed


@dataclass(frozen=True, slots=True)
class Job:
    """Work for a device thread. Jobs of equal `key` run one after the other, in order.

    `run` returns the event for the loop, if any, or raises OSError; `failed(reason, hangs)` makes
    it then, or when `run` has not come back for long.
    """

    key: str
    run: Callable[[], Outcome | None]
    failed: Callable[[str, bool], Outcome | None]


class RealFile:
    """Satisfies `ports.File`. Opens and reopens its descriptor as needed."""

    __slots__ = ("_disk", "_path", "_size_bytes")

    def __init__(self, disk: RealDisk, path: str, size_bytes: int) -> None:
        self._disk = disk
        self._path = path
        self._size_bytes = size_bytes

    @property
    def path(self) -> str:
        return self._path

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def append(self, chunks: Sequence[Buffer]) -> None:
        size_bytes = sum(map(len, chunks))
        try:
            descriptor = self._disk.descriptor(self._path)
            if size_bytes < JOIN_BELOW_BYTES:
                written = os.write(descriptor, b"".join(chunks))
            else:
                written = os.writev(descriptor, chunks[:IOV_COUNT_MAX])
            while written < size_bytes:
                written += os.writev(descriptor, _rest(chunks, written)[:IOV_COUNT_MAX])
        except OSError as error:
            raise self._cut_back(error) from error
        self._size_bytes += size_bytes

    def _cut_back(self, cause: OSError) -> DiskError:
        unchanged = True
        try:
            os.ftruncate(self._disk.descriptor(self._path), self._size_bytes)
        except OSError:
            unchanged = False
        return _disk_error(self._path, cause, unchanged=unchanged)

    def read(self, position: int, size_bytes: int) -> bytes:
        try:
            descriptor = self._disk.descriptor(self._path)
            data = os.pread(descriptor, size_bytes, position)
            while 0 < len(data) < size_bytes and position + len(data) < self._size_bytes:
                more = os.pread(descriptor, size_bytes - len(data), position + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise _disk_error(self._path, error, unchanged=True) from error
        return data

    def truncate(self, size_bytes: int) -> None:
        if size_bytes >= self._size_bytes:
            return
        try:
            os.ftruncate(self._disk.descriptor(self._path), size_bytes)
        except OSError as error:
            raise _disk_error(self._path, error, unchanged=False) from error
        self._size_bytes = size_bytes

    def close(self) -> None:
        self._disk.close_descriptor(self._path)


class RealDisk:
    """Satisfies `ports.Disk`. One thread only; jobs run elsewhere on what they own."""

    def __init__(self, root: Path, *, descriptors_max: int = DESCRIPTORS_MAX) -> None:
        self.root = str(root)
        self._descriptors_max = descriptors_max
        self._descriptors: dict[str, int] = {}
        """Least recently used first."""
        self._removed_count = 0

    # --- ports.Disk -------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False) -> RealFile:
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            self.close_descriptor(path)
            descriptor = self._keep(path, os.open(self._real(path), flags, 0o644))
            return RealFile(self, path, os.fstat(descriptor).st_size)
        except OSError as error:
            raise _disk_error(path, error, unchanged=True) from error

    def exists(self, path: str) -> bool:
        return os.path.exists(self._real(path))

    def list_dir(self, path: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(self._real(path))))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _disk_error(path, error, unchanged=True) from error

    def make_dir(self, path: str) -> None:
        try:
            os.makedirs(self._real(path), exist_ok=True)
        except OSError as error:
            raise _disk_error(path, error, unchanged=False) from error

    def rename(self, path: str, new_path: str) -> None:
        self._close_below(path)
        self._close_below(new_path)
        try:
            os.rename(self._real(path), self._real(new_path))
        except OSError as error:
            raise _disk_error(path, error, unchanged=True) from error

    def read_whole(self, path: str) -> bytes:
        try:
            with open(self._real(path), "rb") as file:
                return file.read()
        except OSError as error:
            raise _disk_error(path, error, unchanged=True) from error

    # --- descriptors ------------------------------------------------------------------------------

    def descriptor(self, path: str) -> int:
        """An open descriptor of the file, valid until another file is used. OSError if gone."""
        descriptors = self._descriptors
        descriptor = descriptors.pop(path, -1)
        if descriptor < 0:
            flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
            return self._keep(path, os.open(self._real(path), flags))
        descriptors[path] = descriptor
        return descriptor

    def _keep(self, path: str, descriptor: int) -> int:
        while len(self._descriptors) >= self._descriptors_max:
            oldest = next(iter(self._descriptors))
            os.close(self._descriptors.pop(oldest))
        self._descriptors[path] = descriptor
        return descriptor

    def close_descriptor(self, path: str) -> None:
        descriptor = self._descriptors.pop(path, -1)
        if descriptor >= 0:
            os.close(descriptor)

    def _close_below(self, path: str) -> None:
        below = path + "/"
        for name in [name for name in self._descriptors if name == path or name.startswith(below)]:
            self.close_descriptor(name)

    def close(self) -> None:
        for path in list(self._descriptors):
            self.close_descriptor(path)

    def _real(self, path: str) -> str:
        return f"{self.root}/{path}"

    # --- jobs for the device threads --------------------------------------------------------------

    def prepare(self, effect: Sync | Store | Scrub | Remove) -> Job:
        """Turn an effect into a job that no longer depends on this disk's descriptors.

        Never raises for a failing disk: the job then fails, and with it the effect.
        """
        if isinstance(effect, Sync):
            return self._prepare_sync(effect)
        if isinstance(effect, Store):
            return self._prepare_store(effect)
        if isinstance(effect, Scrub):
            return self._prepare_scrub(effect)
        return self._prepare_remove(effect)

    def _prepare_sync(self, effect: Sync) -> Job:
        owned: list[tuple[int, bool]] = []
        problem: OSError | None = None
        try:
            for path in effect.files:
                owned.append((os.dup(self.descriptor(path)), False))
            for path in effect.directories:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                owned.append((os.open(self._real(path), flags), True))
        except OSError as error:
            problem = error

        def run() -> Outcome:
            try:
                if problem is not None:
                    raise problem
                for descriptor, is_directory in owned:
                    if is_directory:
                        os.fsync(descriptor)
                    else:
                        os.fdatasync(descriptor)
            finally:
                for descriptor, _ in owned:
                    os.close(descriptor)
            return Synced(token)

        token = effect.token
        key = _parent((*effect.files, *effect.directories)[0])
        return Job(key, run, lambda reason, hangs: SyncFailed(token, reason))

    def _prepare_store(self, effect: Store) -> Job:
        real, parent = self._real(effect.path), self._real(_parent(effect.path))
        self.close_descriptor(effect.path)

        def run() -> Outcome:
            temporary = real + TEMPORARY_SUFFIX
            with open(temporary, "wb") as file:
                file.write(effect.data)
                file.flush()
                os.fdatasync(file.fileno())
            os.replace(temporary, real)
            sync_directory(parent)
            return Stored(effect.path, effect.generation)

        return Job(
            _parent(effect.path),
            run,
            lambda reason, hangs: StoreFailed(effect.path, effect.generation, reason, hangs),
        )

    def _prepare_scrub(self, effect: Scrub) -> Job:
        real = self._real(effect.path)

        def run() -> Outcome:
            # A descriptor of its own: it must not push those in use out of the LRU.
            descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC)

            def read(position: int, size_bytes: int) -> bytes:
                try:
                    return os.pread(descriptor, size_bytes, position)
                except OSError as error:
                    raise _disk_error(effect.path, error, unchanged=True) from error

            try:
                seen = look(
                    read, effect.position, effect.end_position, effect.next_offset, effect.epochs
                )
            except DiskError as error:
                raise OSError(error.errno, error.reason) from error
            finally:
                os.close(descriptor)
            return Scrubbed(*seen)

        return Job(SCRUB_KEY, run, lambda reason, hangs: ScrubFailed())

    def _prepare_remove(self, effect: Remove) -> Job:
        self._close_below(effect.path)
        real = self._real(effect.path)
        is_directory = os.path.isdir(real)
        self._removed_count += 1
        aside = f"{real}.{os.getpid()}-{self._removed_count}{REMOVED_SUFFIX}"
        try:
            os.rename(real, aside)
        except OSError:
            # Gone already, or to be removed under its own name.
            aside = real

        def run() -> None:
            if is_directory:
                # What cannot be removed now is found under its new name at the next start.
                shutil.rmtree(aside, ignore_errors=True)
            else:
                Path(aside).unlink(missing_ok=True)
            sync_directory(os.path.dirname(aside))

        key = effect.path if is_directory else _parent(effect.path)
        return Job(key, run, lambda reason, hangs: None)


def sync_directory(real_path: str) -> None:
    """Make the names in a directory durable. OSError."""
    descriptor = os.open(real_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _rest(chunks: Sequence[Buffer], written: int) -> list[Buffer]:
    """What is left of `chunks` after their first `written` bytes."""
    rest: list[Buffer] = []
    for chunk in chunks:
        if written >= len(chunk):
            written -= len(chunk)
        else:
            rest.append(memoryview(chunk)[written:])
            written = 0
    return rest


def _disk_error(path: str, error: OSError, *, unchanged: bool) -> DiskError:
    reason = error.strerror or type(error).__name__
    return DiskError(path, error.errno or errno.EIO, reason, unchanged=unchanged)
