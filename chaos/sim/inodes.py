"""Files and directories of the simulated disk: what is there, what is durable, and the operations
between the two. And looks at them, for those who judge."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

Draw = Callable[[str, int, int], int]
"""(label, low, high) -> a number, both bounds included."""


@dataclass(slots=True, eq=False)
class FileNode:
    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    operations: deque[bytes | int] = field(default_factory=deque)
    """Not yet durable: bytes appended, or the size cut to."""
    done_count: int = 0
    """Operations that became durable, ever."""
    content_cuts: int = 0
    durable_cuts: int = 0
    """How often each of the two shrank: what was read of it before may be gone."""

    def append(self, data: bytes) -> None:
        self.content += data
        self.operations.append(data)

    def cut(self, size_bytes: int) -> None:
        del self.content[size_bytes:]
        self.operations.append(size_bytes)
        self.content_cuts += 1

    @property
    def total_count(self) -> int:
        return self.done_count + len(self.operations)

    def make_durable(self, total_count: int) -> None:
        while self.done_count < total_count:
            operation = self.operations.popleft()
            self.done_count += 1
            if isinstance(operation, int):
                del self.durable[operation:]
                self.durable_cuts += 1
            else:
                self.durable += operation

    def lose_power(self, path: str, draw: Draw) -> None:
        if self.operations:
            kept = draw(f"disk: operations kept of {path}", 0, len(self.operations))
            self.make_durable(self.done_count + kept)
            if self.operations and isinstance(self.operations[0], bytes):
                torn = self.operations[0]
                size_bytes = draw(f"disk: bytes kept of a write to {path}", 0, len(torn))
                self.durable += torn[:size_bytes]
                if draw(f"disk: zeros after a torn write to {path}", 0, 3) == 0:
                    self.durable += bytes(len(torn) - size_bytes)
        self.content = bytearray(self.durable)
        self.content_cuts += 1
        self.operations.clear()


@dataclass(slots=True, eq=False)
class NameChange:
    """`name` now leads to `node`, or to nothing. With `renamed_from` that name goes, atomically."""

    name: str
    node: FileNode | DirectoryNode | None
    renamed_from: str | None = None

    def apply(self, entries: dict[str, FileNode | DirectoryNode]) -> None:
        if self.renamed_from is not None:
            entries.pop(self.renamed_from, None)
        if self.node is None:
            entries.pop(self.name, None)
        else:
            entries[self.name] = self.node


@dataclass(slots=True, eq=False)
class DirectoryNode:
    entries: dict[str, FileNode | DirectoryNode] = field(default_factory=dict)
    durable: dict[str, FileNode | DirectoryNode] = field(default_factory=dict)
    operations: deque[NameChange] = field(default_factory=deque)
    done_count: int = 0
    version: int = 0
    """Grows with every change of names, readable or durable."""

    def change(self, change: NameChange) -> None:
        change.apply(self.entries)
        self.operations.append(change)
        self.version += 1

    @property
    def total_count(self) -> int:
        return self.done_count + len(self.operations)

    def make_durable(self, total_count: int) -> None:
        while self.done_count < total_count:
            self.operations.popleft().apply(self.durable)
            self.done_count += 1
            self.version += 1

    def lose_power(self, path: str, draw: Draw) -> None:
        for changes in self._independent_changes():
            names = changes[0].name
            kept = draw(f"disk: name changes kept of {path}/{names}", 0, len(changes))
            for change in changes[:kept]:
                change.apply(self.durable)
        self.done_count += len(self.operations)
        self.operations.clear()
        self.version += 1
        self.entries = dict(self.durable)
        for name, node in sorted(self.entries.items()):
            node.lose_power(f"{path}/{name}", draw)

    def _independent_changes(self) -> list[list[NameChange]]:
        """Changes grouped by name; a rename ties its two names together."""
        groups: list[tuple[list[str], list[NameChange]]] = []
        for change in self.operations:
            names = [change.name]
            if change.renamed_from is not None:
                names.append(change.renamed_from)
            tied = [group for group in groups if any(name in group[0] for name in names)]
            groups = [group for group in groups if group not in tied]
            # Groups keep the order of the changes in them, as each is already in order.
            changes = [other for group in tied for other in group[1]]
            changes.sort(key=list(self.operations).index)
            names += [name for group in tied for name in group[0]]
            groups.append((names, [*changes, change]))
        return [changes for _, changes in groups]


class FileView:
    """A look at a file, alive: `data` is what it holds now, `cuts` how often that shrank."""

    __slots__ = ("_durable", "_node", "name")

    def __init__(self, name: str, node: FileNode, durable: bool) -> None:
        self.name = name
        self._node = node
        self._durable = durable

    @property
    def data(self) -> bytearray:
        return self._node.durable if self._durable else self._node.content

    @property
    def cuts(self) -> int:
        return self._node.durable_cuts if self._durable else self._node.content_cuts

    @property
    def key(self) -> object:
        """The same for the same file, whatever its name."""
        return self._node


class DirectoryView:
    """A look at a directory: its files by name."""

    __slots__ = ("_durable", "_node", "_suffix")

    def __init__(self, node: DirectoryNode, suffix: str, durable: bool) -> None:
        self._node = node
        self._suffix = suffix
        self._durable = durable

    @property
    def key(self) -> object:
        return self._node

    @property
    def version(self) -> int:
        """Grows when names change."""
        return self._node.version

    def file(self, name: str) -> FileView | None:
        """The file of this name, whatever its ending."""
        child = (self._node.durable if self._durable else self._node.entries).get(name)
        return FileView(name, child, self._durable) if isinstance(child, FileNode) else None

    def files(self) -> list[FileView]:
        entries = self._node.durable if self._durable else self._node.entries
        return [
            FileView(name, child, self._durable)
            for name, child in sorted(entries.items())
            if isinstance(child, FileNode) and name.endswith(self._suffix)
        ]
