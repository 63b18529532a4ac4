"""A disk in memory that forgets what a real one may forget. Satisfies `broker.ports.Disk`.

Every file keeps what was written and what is durable, and the operations between the two; every
directory does so for its names. A process crash leaves what was written; a power loss keeps of each
file some prefix of its operations (the next append torn, perhaps with zeros for the rest) and of
each name in a directory some prefix of what happened to it, all independently of each other. A
rename is atomic. That is more than journalling file systems mix up, on purpose.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from broker.ports import Buffer, DiskError
from chaos.sim.inodes import DirectoryNode, DirectoryView, Draw, FileNode, NameChange


class Crash(BaseException):
    """The process ends here, in the middle of a disk call. Nobody but the simulator catches it."""


@dataclass(frozen=True, slots=True)
class PendingSync:
    """A sync that the device has not finished: it covers what was there when it was asked for."""

    nodes: tuple[tuple[FileNode | DirectoryNode, int], ...]

    def complete(self) -> None:
        for node, total_count in self.nodes:
            node.make_durable(total_count)


class SimFile:
    """Satisfies `ports.File`; dies with the process that opened it."""

    __slots__ = ("_disk", "_life", "_node", "_path")

    def __init__(self, disk: SimDisk, path: str, node: FileNode) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._life = disk.life

    @property
    def path(self) -> str:
        return self._path

    @property
    def size_bytes(self) -> int:
        return len(self._node.content)

    def append(self, chunks: Sequence[Buffer]) -> None:
        self._require_life()
        data = b"".join(chunks)
        self._disk.mutate(
            "append",
            self._path,
            partial(self._node.append, data),
            partially=partial(self._node.append, data[: len(data) // 2]),
            undo=partial(self._node.cut, len(self._node.content)),
            size_bytes=len(data),
        )

    def read(self, position: int, size_bytes: int) -> bytes:
        self._require_life()
        self._disk.fail_if_told("read", self._path)
        return bytes(self._node.content[position : position + size_bytes])

    def truncate(self, size_bytes: int) -> None:
        self._require_life()
        if size_bytes < len(self._node.content):
            freed = size_bytes - len(self._node.content)
            cut = partial(self._node.cut, size_bytes)
            self._disk.mutate("truncate", self._path, cut, size_bytes=freed)

    def close(self) -> None:
        self._require_life()

    def _require_life(self) -> None:
        assert self._life == self._disk.life, f"{self._path}: used by a process that is dead"


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: str
    errno: int
    path_part: str
    cut_back: bool


class SimDisk:
    """`life` counts process starts. `call_count` counts calls that change something."""

    def __init__(self, *, capacity_bytes: int = 2**62) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.life = 0
        self.call_count = 0
        self._root = DirectoryNode()
        self._crash_at: tuple[int, str] | None = None
        self._failures: list[_Failure] = []

    # --- ports.Disk -------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False) -> SimFile:
        self.fail_if_told("open", path)
        parent, name = self._parent(path)
        node = parent.entries.get(name)
        if node is None and create:
            node = FileNode()
            self.mutate("create", path, partial(parent.change, NameChange(name, node)))
        if not isinstance(node, FileNode):
            raise _missing(path)
        return SimFile(self, path, node)

    def exists(self, path: str) -> bool:
        return self._find(path) is not None

    def list_dir(self, path: str) -> tuple[str, ...]:
        node = self._find(path)
        return tuple(sorted(node.entries)) if isinstance(node, DirectoryNode) else ()

    def make_dir(self, path: str) -> None:
        parts = path.split("/")
        node = self._root
        for depth, name in enumerate(parts, start=1):
            child = node.entries.get(name)
            if child is None:
                child = DirectoryNode()
                change = partial(node.change, NameChange(name, child))
                self.mutate("make_dir", "/".join(parts[:depth]), change)
            if not isinstance(child, DirectoryNode):
                raise DiskError(path, errno.ENOTDIR, "not a directory", unchanged=True)
            node = child

    def rename(self, path: str, new_path: str) -> None:
        parent, name = self._parent(path)
        new_parent, new_name = self._parent(new_path)
        assert parent is new_parent, "names move within their directory only"
        node = parent.entries.get(name)
        if node is None:
            raise _missing(path)
        change = NameChange(new_name, node, renamed_from=name)
        self.mutate("rename", path, partial(parent.change, change))

    def read_whole(self, path: str) -> bytes:
        self.fail_if_told("read", path)
        node = self._find(path)
        if not isinstance(node, FileNode):
            raise _missing(path)
        return bytes(node.content)

    # --- what the device threads do ---------------------------------------------------------------

    def prepare_sync(self, files: Sequence[str], directories: Sequence[str] = ()) -> PendingSync:
        """A sync of what is there now, to be completed later; paths may move meanwhile."""
        nodes: list[tuple[FileNode | DirectoryNode, int]] = []
        for path in (*files, *directories):
            node = self._find(path)
            if node is None:
                raise _missing(path)
            nodes.append((node, node.total_count))
        return PendingSync(tuple(nodes))

    def sync(self, files: Sequence[str], directories: Sequence[str] = ()) -> None:
        """Make files and then directories durable, one after the other. DiskError if told to."""
        for path in (*files, *directories):
            pending = self.prepare_sync((path,))
            self.mutate("sync", path, pending.complete)

    def store(self, path: str, data: bytes) -> None:
        """Replace a file durably and atomically."""
        parent, name = self._parent(path)
        node = FileNode(bytearray(data), bytearray(data))

        def replace() -> None:
            parent.change(NameChange(name, node))
            parent.make_durable(parent.total_count)

        self.mutate("store", path, replace)

    def remove(self, path: str) -> None:
        """A file or a directory with all in it; fine if it is gone already."""
        parent, name = self._parent(path)
        if name in parent.entries:
            self.mutate("remove", path, partial(parent.change, NameChange(name, None)))

    # --- faults -----------------------------------------------------------------------------------

    def process_crash(self) -> None:
        """All that was written stays readable; none of it becomes durable by this."""
        self.life += 1
        self.forget_plans()

    def power_loss(self, draw: Draw) -> None:
        """What is not durable vanishes wholly, partly or not at all, as drawn."""
        self.life += 1
        self.forget_plans()
        self._root.lose_power("", draw)
        self.used_bytes = sum(len(node.content) for _, node in self._walk(self._root, ""))

    def crash_at(self, call: int, part: str) -> None:
        """Raise Crash at the `call`-th change from now (from 1): `before` it, `torn` (half of an
        append, else before) or `after` it."""
        assert part in ("before", "torn", "after")
        self._crash_at = (self.call_count + call, part)

    def fail_next(
        self,
        kind: str,
        *,
        error: int = errno.EIO,
        path_part: str = "",
        cut_back: bool = True,
    ) -> None:
        """The next `kind` of call (append, read, truncate, open, create, make_dir, rename, sync,
        store, remove) on a path that contains `path_part` fails; without `cut_back` half of an
        append stays."""
        self._failures.append(_Failure(kind, error, path_part, cut_back))

    def fail_no_more(self) -> None:
        """Forget the failures that were told and have not come yet."""
        self._failures.clear()

    def forget_plans(self) -> None:
        """Forget the crash and the failures that have not come yet."""
        self._crash_at = None
        self._failures.clear()

    def corrupt(self, path: str, position: int, mask: int) -> None:
        """Flip bits of one byte, also of what is durable: bit rot."""
        node = self._find(path)
        assert isinstance(node, FileNode), f"no file {path}"
        assert not node.operations, "only what is durable rots"
        node.content[position] ^= mask
        node.durable[position] ^= mask

    # --- looking ----------------------------------------------------------------------------------

    def look(self, directory: str, suffix: str, *, durable: bool) -> DirectoryView | None:
        """A directory as a process sees it, or what of it is surely durable; None if it is not."""
        node: FileNode | DirectoryNode | None = self._root
        for name in directory.split("/"):
            if not isinstance(node, DirectoryNode):
                return None
            node = (node.durable if durable else node.entries).get(name)
        return DirectoryView(node, suffix, durable) if isinstance(node, DirectoryNode) else None

    def files(self) -> dict[str, bytes]:
        """Every file's content as a process sees it, by path, sorted."""
        return {path: bytes(node.content) for path, node in self._walk(self._root, "")}

    def content_of(self, path: str) -> bytearray:
        """A file as a process sees it, not to be changed; empty if there is none."""
        node = self._find(path)
        return node.content if isinstance(node, FileNode) else bytearray()

    def _walk(self, directory: DirectoryNode, prefix: str) -> Iterator[tuple[str, FileNode]]:
        for name, node in sorted(directory.entries.items()):
            if isinstance(node, FileNode):
                yield prefix + name, node
            else:
                yield from self._walk(node, f"{prefix}{name}/")

    def is_durable_whole(self, path: str) -> bool:
        """Whether a file has nothing that waits for a sync."""
        node = self._find(path)
        return isinstance(node, FileNode) and not node.operations

    # --- inside -----------------------------------------------------------------------------------

    def mutate(
        self,
        kind: str,
        path: str,
        change: Callable[[], None],
        *,
        partially: Callable[[], None] | None = None,
        undo: Callable[[], None] | None = None,
        size_bytes: int = 0,
    ) -> None:
        """Make one change, unless it is the one to fail or to crash at."""
        self.call_count += 1
        crash = self._crash_at is not None and self._crash_at[0] == self.call_count
        part = self._crash_at[1] if self._crash_at is not None else ""
        if crash and part != "after":
            if part == "torn" and partially is not None:
                partially()
            raise Crash(f"{kind} {path}")
        failure = self._take_failure(kind, path)
        if failure is None and self.used_bytes + size_bytes > self.capacity_bytes:
            failure = _Failure(kind, errno.ENOSPC, "", True)
        if failure is not None:
            if partially is not None:
                partially()
                if failure.cut_back and undo is not None:
                    undo()
            unchanged = failure.cut_back and kind not in ("truncate", "sync", "store")
            raise DiskError(path, failure.errno, f"{kind} failed", unchanged=unchanged)
        self.used_bytes += size_bytes
        change()
        if crash:
            raise Crash(f"{kind} {path}")

    def fail_if_told(self, kind: str, path: str) -> None:
        failure = self._take_failure(kind, path)
        if failure is not None:
            raise DiskError(path, failure.errno, f"{kind} failed", unchanged=True)

    def _take_failure(self, kind: str, path: str) -> _Failure | None:
        for slot, failure in enumerate(self._failures):
            if failure.kind == kind and failure.path_part in path:
                return self._failures.pop(slot)
        return None

    def _find(self, path: str) -> FileNode | DirectoryNode | None:
        node: FileNode | DirectoryNode | None = self._root
        for name in path.split("/") if path != "." else ():
            node = node.entries.get(name) if isinstance(node, DirectoryNode) else None
        return node

    def _parent(self, path: str) -> tuple[DirectoryNode, str]:
        parent_path, _, name = path.rpartition("/")
        parent = self._find(parent_path or ".")
        if not isinstance(parent, DirectoryNode):
            raise _missing(parent_path)
        return parent, name


def _missing(path: str) -> DiskError:
    return DiskError(path, errno.ENOENT, "no such file or directory", unchanged=True)
