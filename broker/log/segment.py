"""One file of a log: whole batches, one after the other, from `base_offset` on.

A segment is only ever appended to until it is cut; a file that was cut (to something) is closed and
the log goes on in a new one. So bytes that a cut removed can never come to stand behind newer ones,
not even after a power loss that forgets the cut.

The segment knows where its batches begin: exactly for those appended lately, sparsely (by its two
indexes) for the rest. An index that was read from a file is believed only as far as the headers it
leads to confirm it; otherwise it is rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from broker.log.errors import CorruptFile
from broker.log.offset_index import OffsetIndex
from broker.log.time_index import TimeIndex
from broker.ports import Buffer, Disk, DiskError, File
from broker.wire.batch_header import HEADER_BYTES, MAGIC, BatchHeader, read_header

LOG_SUFFIX = ".log"
INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
OFFSET_DIGITS = 20
SEGMENT_BYTES_MAX = 2**31 - 1
"""Index entries hold positions and relative offsets as int32."""

RECENT_COUNT = 1_024
SMALL_WINDOW_BYTES = 4_096
LARGE_WINDOW_BYTES = 65_536
LARGE_BATCH_BYTES = 16_384


def segment_name(base_offset: int, suffix: str = LOG_SUFFIX) -> str:
    return f"{base_offset:0{OFFSET_DIGITS}d}{suffix}"


def segment_path(directory: str, base_offset: int, suffix: str = LOG_SUFFIX) -> str:
    return f"{directory}/{segment_name(base_offset, suffix)}"


class Segment:
    """`[base_offset, end_offset)` is what the file holds.

    `max_timestamp_ms` is the largest in it (after a cut: at least that), `first_timestamp_ms` that
    of its first batch (0 if it was not read). `closed`: takes no more bytes. `indexes_stored`: the
    index files on disk are those of this content.
    """

    __slots__ = (
        "_directory",
        "_disk",
        "_index",
        "_index_interval_bytes",
        "_index_trusted",
        "_indexed_position",
        "_max_timestamp_offset",
        "_older_recent",
        "_recent",
        "_time_index",
        "base_offset",
        "closed",
        "end_offset",
        "file",
        "first_timestamp_ms",
        "indexes_stored",
        "max_timestamp_ms",
    )

    def __init__(
        self, disk: Disk, directory: str, base_offset: int, index_interval_bytes: int
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._index_interval_bytes = index_interval_bytes
        self.base_offset = base_offset
        self.file: File = disk.open(segment_path(directory, base_offset), create=True)
        self._forget_content()

    def _forget_content(self) -> None:
        self.end_offset = self.base_offset
        self.first_timestamp_ms = 0
        self.max_timestamp_ms = -1
        self._max_timestamp_offset = self.base_offset
        self.closed = False
        self.indexes_stored = False
        self._index: OffsetIndex | None = OffsetIndex(self.base_offset)
        self._time_index: TimeIndex | None = TimeIndex(self.base_offset)
        self._index_trusted = True
        self._indexed_position = 0
        # Two generations of {base offset: position}: forgetting the oldest costs nothing.
        self._recent: dict[int, int] = {}
        self._older_recent: dict[int, int] = {}

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes

    # --- writing ----------------------------------------------------------------------------------

    def append(self, chunks: Sequence[Buffer]) -> int:
        """Write whole batches; their position. DiskError leaves the content as it was.

        The caller then tells each batch by `note`.
        """
        position = self.file.size_bytes
        try:
            self.file.append(chunks)
        except DiskError:
            self.closed = position > 0
            raise
        return position

    def note(self, position: int, base_offset: int, last_offset: int, timestamp_ms: int) -> None:
        """The next batch begins at `position`; `timestamp_ms` is its largest."""
        if position - self._indexed_position >= self._index_interval_bytes:
            self._add_index_entry(base_offset, position)
        if position == 0:
            self.first_timestamp_ms = timestamp_ms
        recent = self._recent
        recent[base_offset] = position
        if len(recent) >= RECENT_COUNT:
            self._older_recent = recent
            self._recent = {}
        if timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = timestamp_ms
            self._max_timestamp_offset = last_offset
        self.end_offset = last_offset + 1

    def _add_index_entry(self, base_offset: int, position: int) -> None:
        assert self._index is not None
        assert self._time_index is not None
        self._index.add(base_offset, position)
        self._time_index.maybe_add(self.max_timestamp_ms, self._max_timestamp_offset)
        self._indexed_position = position

    def cut(self, position: int, end_offset: int) -> None:
        """Drop everything from `position` on, where the batch of `end_offset` begins.

        Raises DiskError; the file may then hold more than the segment says.
        """
        self.file.truncate(position)
        if position == 0:
            self._forget_content()
            return
        self.end_offset = end_offset
        self.closed = True
        self.indexes_stored = False
        self._recent = {}
        self._older_recent = {}
        if self._index is not None and self._time_index is not None:
            self._index.truncate_to(end_offset)
            self._time_index.truncate_to(end_offset)
        # Else the files say more than the segment holds, so loading them ends in a rebuild.

    def adopt(self, end_offset: int, max_timestamp_ms: int) -> BatchHeader | None:
        """Believe what was stored of this file, which takes no more bytes; its last batch's header.
        None if that batch or the indexes say otherwise."""
        if not self._has_index_files():
            return None
        data = self._disk.read_whole(self._path(INDEX_SUFFIX))
        index = OffsetIndex.decode(self.base_offset, data, self.size_bytes)
        if index is None:
            return None
        last: BatchHeader | None = None
        try:
            for _, header in self.headers(index.floor(end_offset - 1)[1], self.size_bytes):
                last = header
        except CorruptFile:
            return None
        if last is None or last.next_offset != end_offset:
            return None
        self.end_offset = end_offset
        self.max_timestamp_ms = max_timestamp_ms
        self.closed = True
        self.on_indexes_stored()
        return last

    def disown(self) -> None:
        """Forget what `adopt` believed: the file is to be read."""
        self._forget_content()

    # --- finding ----------------------------------------------------------------------------------

    def position_of(self, offset: int) -> tuple[int, int]:
        """(base offset, position) of the batch that holds `offset`, which must be in here."""
        assert self.base_offset <= offset < self.end_offset
        exact = self._recent.get(offset, self._older_recent.get(offset))
        if exact is not None:
            return offset, exact
        base_offset, position = self._floor(offset)
        if base_offset == offset:
            return offset, position
        for place, header in self.headers(position, self.size_bytes):
            if header.next_offset > offset:
                return header.base_offset, place
        raise CorruptFile(self.path, position, f"no batch holds offset {offset}")

    def end_position_of(self, end_offset: int) -> int:
        """Where the batches wholly below `end_offset` end."""
        if end_offset >= self.end_offset:
            return self.size_bytes
        if end_offset <= self.base_offset:
            return 0
        return self.position_of(end_offset)[1]

    def end_of_read(self, position: int, max_bytes: int, end_offset: int) -> int:
        """Where a read from the batch at `position` ends: a boundary at most `max_bytes` further,
        at least one batch further if one is wholly below `end_offset`."""
        end_position = self.end_position_of(end_offset)
        if end_position - position <= max_bytes:
            return end_position
        floor = self._floor_of_position(position + max_bytes)
        if floor > position:
            return floor
        end = position
        for place, header in self.headers(position, end_position):
            if place > position and place + header.size_bytes - position > max_bytes:
                break
            end = place + header.size_bytes
        return end

    def floor_of_time(self, timestamp_ms: int) -> int:
        """An offset in here before which every record is earlier than `timestamp_ms`."""
        self._load_indexes()
        assert self._time_index is not None
        return min(self._time_index.floor(timestamp_ms), self.end_offset - 1)

    def headers(self, position: int, end_position: int) -> Iterator[tuple[int, BatchHeader]]:
        """(position, header) of every batch from `position` on. CorruptFile where none can be."""
        window = b""
        window_start = position
        window_bytes = SMALL_WINDOW_BYTES
        while position < end_position:
            start = position - window_start
            if start + HEADER_BYTES > len(window):
                window_start, start = position, 0
                window = self.file.read(position, window_bytes)
                if len(window) < HEADER_BYTES:
                    raise CorruptFile(self.path, position, "the file ends within a batch header")
            header = read_header(window, start)
            size_bytes = header.size_bytes
            if header.magic != MAGIC or size_bytes < HEADER_BYTES:
                raise CorruptFile(self.path, position, "no batch header")
            if position + size_bytes > end_position:
                raise CorruptFile(self.path, position, "the batch is longer than the file")
            yield position, header
            position += size_bytes
            # Of large batches only the header is wanted, of small ones as many as possible.
            large = size_bytes >= LARGE_BATCH_BYTES
            window_bytes = SMALL_WINDOW_BYTES if large else LARGE_WINDOW_BYTES

    # --- indexes ----------------------------------------------------------------------------------

    def encode_indexes(self) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
        """(path, data) of the two index files, for a segment that takes no more bytes."""
        self._load_indexes()
        assert self._index is not None
        assert self._time_index is not None
        if self._max_timestamp_offset < self.end_offset:
            self._time_index.maybe_add(self.max_timestamp_ms, self._max_timestamp_offset)
        return (
            (self._path(INDEX_SUFFIX), self._index.encode()),
            (self._path(TIME_INDEX_SUFFIX), self._time_index.encode()),
        )

    def on_indexes_stored(self) -> None:
        """From now on the files are there to be read when they are needed."""
        self.indexes_stored = True
        self._index = None
        self._time_index = None
        self._recent = {}
        self._older_recent = {}

    def rebuild_indexes(self) -> None:
        """Walk over all batches. Takes about a microsecond per batch."""
        end_offset, closed = self.end_offset, self.closed
        self._forget_content()
        for position, header in self.headers(0, self.size_bytes):
            self.note(position, header.base_offset, header.last_offset, header.max_timestamp_ms)
        if self.end_offset != end_offset:
            raise CorruptFile(self.path, self.size_bytes, f"the log ends before {end_offset}")
        self.closed = closed

    def _path(self, suffix: str) -> str:
        return segment_path(self._directory, self.base_offset, suffix)

    def _has_index_files(self) -> bool:
        return all(
            self._disk.exists(self._path(name)) for name in (INDEX_SUFFIX, TIME_INDEX_SUFFIX)
        )

    def _load_indexes(self) -> None:
        if self._index is not None and self._time_index is not None:
            return
        if self._has_index_files():
            data = self._disk.read_whole(self._path(INDEX_SUFFIX))
            self._index = OffsetIndex.decode(self.base_offset, data, self.size_bytes)
            data = self._disk.read_whole(self._path(TIME_INDEX_SUFFIX))
            self._time_index = TimeIndex.decode(self.base_offset, data, self.end_offset)
            self._index_trusted = False
        if self._index is None or self._time_index is None:
            self.rebuild_indexes()

    def _floor(self, offset: int) -> tuple[int, int]:
        self._load_indexes()
        assert self._index is not None
        base_offset, position = self._index.floor(offset)
        if not self._index_trusted and not self._begins(base_offset, position):
            self.rebuild_indexes()
            base_offset, position = self._index.floor(offset)
        return base_offset, position

    def _floor_of_position(self, limit: int) -> int:
        self._load_indexes()
        assert self._index is not None
        base_offset, position = self._index.floor_of_position(limit)
        if not self._index_trusted and not self._begins(base_offset, position):
            self.rebuild_indexes()
            base_offset, position = self._index.floor_of_position(limit)
        return position

    def _begins(self, base_offset: int, position: int) -> bool:
        head = self.file.read(position, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return False
        header = read_header(head)
        return header.magic == MAGIC and header.base_offset == base_offset
