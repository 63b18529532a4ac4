"""Which batches a simulated disk holds, read from the bytes themselves: what is readable, and what
would survive a power loss. The broker's own word for either is not taken.

Files are read on from where the last look ended; only a file that shrank meanwhile is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.wire.batch_header import HEADER_BYTES, BatchHeader, read_header
from chaos.sim.disk import FileView, SimDisk

OnBatch = Callable[[BatchHeader], None]


@dataclass(slots=True)
class _Read:
    """How far a file was read."""

    cuts: int
    position: int
    end_offset: int


class BatchReader:
    """Reads logs of simulated disks; `durable` ones, or what a process sees."""

    def __init__(self, *, durable: bool, on_batch: OnBatch | None = None) -> None:
        self._durable = durable
        self._on_batch = on_batch
        self._reads: dict[object, _Read] = {}

    def end_offset(self, disk: SimDisk, directory: str) -> int:
        """Where the unbroken chain of whole batches ends; 0 without any."""
        end_offset = 0
        is_first = True
        for file in disk.look(directory, ".log", durable=self._durable):
            base_offset = int(file.name.partition(".")[0])
            if not is_first and base_offset != end_offset:
                break
            read = self._reads.get(file.key)
            if read is None or read.cuts != file.cuts:
                read = self._reads[file.key] = _Read(file.cuts, 0, base_offset)
            self._read_on(file, read)
            end_offset = read.end_offset
            is_first = False
        return end_offset

    def _read_on(self, file: FileView, read: _Read) -> None:
        data = file.data
        while len(data) - read.position >= HEADER_BYTES:
            header = read_header(data, read.position)
            whole = HEADER_BYTES <= header.size_bytes <= len(data) - read.position
            if not whole or header.base_offset != read.end_offset:
                return
            if self._on_batch is not None:
                self._on_batch(header)
            read.position += header.size_bytes
            read.end_offset = header.next_offset


def last_batch_position(data: bytearray) -> int:
    """Where the last whole batch of a file begins; 0 if there are fewer than two."""
    position = last = 0
    while len(data) - position >= HEADER_BYTES:
        size_bytes = read_header(data, position).size_bytes
        if not HEADER_BYTES <= size_bytes <= len(data) - position:
            break
        last = position
        position += size_bytes
    return last
