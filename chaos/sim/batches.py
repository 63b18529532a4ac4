"""Which batches a simulated disk holds, read from the bytes themselves: what is readable, and what
would survive a power loss. The broker's own word for either is not taken.

Files are read on from where the last look ended; only a file that shrank meanwhile is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker.log.log_start import LOG_START_NAME
from broker.wire.batch_header import HEADER_BYTES, BatchHeader, read_header
from chaos.sim.disk import SimDisk
from chaos.sim.inodes import DirectoryView, FileView

OnBatch = Callable[[BatchHeader], None]


@dataclass(slots=True)
class _Read:
    """How far a file was read."""

    cuts: int
    position: int
    end_offset: int


@dataclass(slots=True)
class _Chain:
    """The files of a directory as of some version of it, and how many of them join so far."""

    version: int
    start_offset: int
    files: list[FileView]
    done: int = 0
    """So many files have batches and join: the one before may not grow any more."""
    cuts: int = -1
    """How often these were cut when they were read."""

    def count_cuts(self) -> int:
        return sum([file.cuts for file in self.files[: self.done]])


class BatchReader:
    """Reads logs of simulated disks; `durable` ones, or what a process sees."""

    def __init__(self, *, durable: bool, on_batch: OnBatch | None = None) -> None:
        self._durable = durable
        self._on_batch = on_batch
        self._reads: dict[object, _Read] = {}
        self._chains: dict[object, _Chain] = {}

    def end_offset(self, disk: SimDisk, directory: str) -> int:
        """Where the unbroken chain of whole batches ends; 0 without any."""
        view = disk.look(directory, ".log", durable=self._durable)
        if view is None:
            return 0
        start_offset = _log_start(view)
        chain = self._chains.get(view.key)
        if chain is None or (chain.version, chain.start_offset) != (view.version, start_offset):
            chain = self._chains[view.key] = _renewed(chain, view, start_offset)
        if chain.cuts != chain.count_cuts():
            chain.done = 0
        end_offset = self._follow(chain)
        chain.cuts = chain.count_cuts()
        return end_offset

    def _follow(self, chain: _Chain) -> int:
        files = chain.files
        if not files:
            return 0
        position = max(chain.done - 1, 0)
        end_offset = base_offset_of(files[position])
        while position < len(files):
            file = files[position]
            base_offset = base_offset_of(file)
            if base_offset != end_offset:
                break
            read = self._reads.get(file.key)
            if read is None or read.cuts != file.cuts:
                read = self._reads[file.key] = _Read(file.cuts, 0, base_offset)
            self._read_on(file, read)
            end_offset = read.end_offset
            position += 1
            if read.position:
                chain.done = position
        return end_offset

    def _read_on(self, file: FileView, read: _Read) -> None:
        for header in whole_batches(file.data, read.position):
            if header.base_offset != read.end_offset:
                return
            if self._on_batch is not None:
                self._on_batch(header)
            read.position += header.size_bytes
            read.end_offset = header.next_offset


def _log_start(view: DirectoryView) -> int:
    """Where a log begins, by its own word: what lies below is no part of it."""
    file = view.file(LOG_START_NAME)
    lines = file.data.split(b"\n")[:-1] if file is not None else []
    return int(lines[-1]) if lines else 0


def _renewed(chain: _Chain | None, view: DirectoryView, start_offset: int) -> _Chain:
    """The chain of a directory whose names or beginning changed: what joined and is still there,
    joins. It begins with the file that holds the log's beginning."""
    files = view.files()
    while len(files) > 1 and base_offset_of(files[1]) <= start_offset:
        del files[0]
    done = 0
    if chain is not None and chain.cuts == chain.count_cuts():
        for before, now in zip(chain.files[: chain.done], files, strict=False):
            if before.key is not now.key:
                break
            done += 1
    renewed = _Chain(view.version, start_offset, files, done)
    renewed.cuts = renewed.count_cuts()
    return renewed


def whole_batches(data: bytearray, position: int) -> Iterator[BatchHeader]:
    """Headers of the batches from `position` on, up to the first that is not whole."""
    while len(data) - position >= HEADER_BYTES:
        header = read_header(data, position)
        if not HEADER_BYTES <= header.size_bytes <= len(data) - position:
            return
        yield header
        position += header.size_bytes


def base_offset_of(file: FileView) -> int:
    return int(file.name.partition(".")[0])


def last_batch_position(data: bytearray) -> int:
    """Where the last whole batch of a file begins; 0 if there are fewer than two."""
    position = last = 0
    for header in whole_batches(data, 0):
        last = position
        position += header.size_bytes
    return last
