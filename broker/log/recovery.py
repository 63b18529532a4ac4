"""From the files that a crash left to a log that can be used.

Segments below a stored producer snapshot are believed, with their indexes and the leader-epoch
checkpoint, if their last batches fit; if anything does not, nothing is. From there on every batch
is read: below the recovery point its header, above it all of it. A batch is accepted if its
checksum is right, its base offset is the expected one and its leader epoch is not below the last
one's; where that ends, the log ends, or it is damaged:

- A **torn tail** is what a crash explains: a bad batch at or above all that was certainly on disk
  (recovery point, high watermark checkpoint) with no good batch after it in its file. It is cut.
- Anything else is **damage**, and `DamagedLog` says where. Cutting there would silently drop
  records that this replica has vouched for.

Files lose their unsynced bytes, and their names, independently. So a file that does not begin where
the one before it ends says no more than that the older one lost its tail, its name or a truncation,
before that was synced; it goes.

Nothing that is kept is durable yet: the caller syncs it before it counts.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Generator
from dataclasses import dataclass

from broker.log.checkpoint import LEADER_EPOCH_NAME, decode_epochs
from broker.log.errors import CorruptFile, DamagedLog
from broker.log.leader_epochs import LeaderEpochs
from broker.log.log_start import LOG_START_NAME, load_log_start
from broker.log.partition_log import DELETED_SUFFIX, PartitionLog
from broker.log.producer_snapshot import SNAPSHOT_SUFFIX, decode_snapshot
from broker.log.producer_state import ProducerSnapshot, ProducerStateTable
from broker.log.segment import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    OFFSET_DIGITS,
    TIME_INDEX_SUFFIX,
    Segment,
    segment_name,
    segment_path,
)
from broker.ports import Disk
from broker.wire.batch_header import HEADER_BYTES, MAGIC, BatchHeader, read_header
from broker.wire.record_batch import verify_crc

SLICE_BYTES = 4_194_304
SLICE_BATCHES = 500
SLICE_HEADERS = 1_000
"""A slice of work between two yields takes a few milliseconds at most."""
WINDOW_BYTES = 1_048_576
TEMPORARY_SUFFIX = ".tmp"

Slices = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class LogFound:
    """A log directory and what the checkpoints say of it."""

    directory: str
    topic_id: str
    name: str
    partition: int
    recovery_point: int
    high_watermark: int

    @property
    def certain_end(self) -> int:
        """Below this everything was on disk."""
        return max(self.recovery_point, self.high_watermark)


def recover_log(
    disk: Disk, found: LogFound, index_interval_bytes: int
) -> Generator[None, None, PartitionLog]:
    """The log in a directory; yields between slices of work.

    Raises DamagedLog (nothing was changed then), CorruptFile for a file that is not ours,
    DiskError.
    """
    names = disk.list_dir(found.directory)
    segments = [
        Segment(disk, found.directory, base_offset, index_interval_bytes)
        for base_offset in _base_offsets(found.directory, names)
    ]
    start_offset = load_log_start(disk, found.directory)
    chain_start = max(
        (segment.base_offset for segment in segments if segment.base_offset <= start_offset),
        default=start_offset,
    )
    stored_epochs = _stored_epochs(disk, found.directory, names)
    believed = None
    if stored_epochs is not None:
        believed = _believe(disk, found, names, segments, chain_start, LeaderEpochs(stored_epochs))
    scan = _Scan(found, segments, chain_start, start_offset, believed)
    yield from scan.run()
    log = scan.finish(disk, names, index_interval_bytes)
    log.derived.epochs = stored_epochs
    return log


def _base_offsets(directory: str, names: tuple[str, ...]) -> list[int]:
    base_offsets = []
    for name in names:
        if name.endswith(LOG_SUFFIX):
            stem = name.removesuffix(LOG_SUFFIX)
            if len(stem) != OFFSET_DIGITS or not (stem.isascii() and stem.isdigit()):
                raise CorruptFile(f"{directory}/{name}", 0, "no segment has such a name")
            base_offsets.append(int(stem))
    return base_offsets


@dataclass(frozen=True, slots=True)
class _Believed:
    """All below `end_offset`, where a segment begins, is known without its batches."""

    end_offset: int
    producers: ProducerSnapshot
    epochs: LeaderEpochs


def _believe(
    disk: Disk,
    found: LogFound,
    names: tuple[str, ...],
    segments: list[Segment],
    chain_start: int,
    epochs: LeaderEpochs,
) -> _Believed | None:
    """How much of the log needs no reading: up to the newest snapshot at or below the recovery
    point, if all segments below it, the stored epochs and the snapshot tell of the same log."""
    chain = [segment for segment in segments if segment.base_offset >= chain_start]
    count = sum(chain_start < segment.base_offset <= found.recovery_point for segment in chain)
    while count and segment_name(chain[count].base_offset, SNAPSHOT_SUFFIX) not in names:
        count -= 1
    if not count or chain[0].base_offset != chain_start:
        return None
    end_offset = chain[count].base_offset
    path = segment_path(found.directory, end_offset, SNAPSHOT_SUFFIX)
    snapshot = decode_snapshot(disk.read_whole(path))
    epochs.truncate_to(end_offset)
    if snapshot is None or snapshot.leader_epoch != epochs.last_epoch():
        return None
    for segment, following in itertools.pairwise(chain[: count + 1]):
        timestamp_ms = snapshot.timestamps_ms.get(segment.base_offset, -1)
        last = segment.adopt(following.base_offset, timestamp_ms)
        if last is None or last.leader_epoch != epochs.epoch_of(last.base_offset):
            for adopted in chain[:count]:
                adopted.disown()
            return None
    return _Believed(end_offset, snapshot.producers, epochs)


def _stored_epochs(
    disk: Disk, directory: str, names: tuple[str, ...]
) -> tuple[tuple[int, int], ...] | None:
    """What the epoch file holds; None if it must be written anew. A broken one is no more than
    that: the batches say the same."""
    if LEADER_EPOCH_NAME not in names:
        return None
    path = f"{directory}/{LEADER_EPOCH_NAME}"
    try:
        return decode_epochs(path, disk.read_whole(path))
    except CorruptFile:
        return None


class _Scan:
    """Reads the files in order; decides which, and how much of each, make up the log."""

    def __init__(
        self,
        found: LogFound,
        segments: list[Segment],
        chain_start: int,
        start_offset: int,
        believed: _Believed | None,
    ) -> None:
        self._found = found
        self._segments = segments
        self._kept: list[Segment] = []
        self._dropped: list[Segment] = []
        self._below: list[Segment] = []
        """Below the log's beginning. They are left alone until that is on disk: else a power loss
        could leave the older beginning and not what stood there."""
        self._cuts: list[tuple[Segment, int]] = []
        """(segment, size to cut it to)"""
        self._chain_start = chain_start
        """Where the file begins that holds the log's beginning."""
        self._start_offset = start_offset
        self._next_offset = chain_start
        self._leader_epoch = -1
        self._epochs = LeaderEpochs()
        self._producers = ProducerStateTable(self._next_offset)
        self._believed_end = -1
        if believed is not None:
            self._believed_end = believed.end_offset
            self._epochs = believed.epochs
            self._leader_epoch = believed.epochs.last_epoch()
            self._producers = ProducerStateTable(believed.end_offset, beginning=believed.producers)

    def run(self) -> Slices:
        """Read everything. DamagedLog if this cannot be all that was on disk."""
        ended = False
        for segment in self._segments:
            if ended or segment.base_offset != self._next_offset:
                is_below = segment.base_offset < self._chain_start
                (self._below if is_below else self._dropped).append(segment)
                # An empty file may lie anywhere, and an old one before the beginning; any other
                # proves that the chain is broken.
                ended = ended or (
                    segment.size_bytes > 0 and segment.base_offset > self._chain_start
                )
                continue
            self._kept.append(segment)
            if segment.base_offset < self._believed_end:
                self._next_offset = segment.end_offset
                continue
            position = yield from self._read(segment)
            if position < segment.size_bytes:
                self._cuts.append((segment, position))
                ended = True
        if self._next_offset < self._start_offset:
            # All that is left was to be deleted anyway: the log is empty.
            self._below += self._kept
            self._kept = []
            self._cuts = []
            self._next_offset = self._start_offset
            self._epochs = LeaderEpochs()
            self._producers = ProducerStateTable(self._start_offset)
        if self._next_offset < self._found.certain_end:
            path = self._kept[-1].path if self._kept else self._found.directory
            size_bytes = self._kept[-1].size_bytes if self._kept else 0
            reason = f"the log ends at {self._next_offset} but held {self._found.certain_end}"
            raise DamagedLog(path, size_bytes, reason)

    def _read(self, segment: Segment) -> Generator[None, None, int]:
        """Take the good batches; the position where they end."""
        position = 0
        self._producers.take_snapshot(self._next_offset)
        if self._next_offset < self._found.recovery_point:
            position = yield from self._read_headers(segment)
        self._producers.take_snapshot(self._next_offset)
        window = _Window(segment)
        verified_bytes = verified_count = 0
        while position < segment.size_bytes:
            problem = self._problem(window, position)
            if problem is not None:
                yield from self._require_torn(segment, position, problem)
                return position
            header = read_header(window.at(position, HEADER_BYTES))
            self._take(segment, position, header)
            position += header.size_bytes
            verified_bytes += header.size_bytes
            verified_count += 1
            if verified_bytes >= SLICE_BYTES or verified_count >= SLICE_BATCHES:
                verified_bytes = verified_count = 0
                yield
        return position

    def _read_headers(self, segment: Segment) -> Generator[None, None, int]:
        """The same by headers only, up to the recovery point."""
        position = 0
        try:
            for count, (place, header) in enumerate(segment.headers(0, segment.size_bytes)):
                if self._next_offset >= self._found.recovery_point:
                    break
                problem = self._misfit(header)
                if problem is not None:
                    raise CorruptFile(segment.path, place, problem)
                self._take(segment, place, header)
                position = place + header.size_bytes
                if count % SLICE_HEADERS == SLICE_HEADERS - 1:
                    yield
        except CorruptFile as error:
            if self._next_offset < self._found.recovery_point:
                raise DamagedLog(segment.path, error.position, error.reason) from error
        return position

    def _problem(self, window: _Window, position: int) -> str | None:
        """Why no good batch begins here; None if one does."""
        view = window.at(position, HEADER_BYTES)
        if len(view) < HEADER_BYTES:
            return "the file ends within a batch header"
        header = read_header(view)
        if header.magic != MAGIC or header.size_bytes < HEADER_BYTES:
            return "no batch header"
        if header.size_bytes > window.size_bytes - position:
            return "the file ends within a batch"
        if not verify_crc(window.at(position, header.size_bytes)):
            return "checksum mismatch"
        return self._misfit(header)

    def _misfit(self, header: BatchHeader) -> str | None:
        if header.base_offset != self._next_offset:
            return f"offset {header.base_offset} where {self._next_offset} is expected"
        if header.last_offset_delta < 0:
            return f"offsets {header.base_offset} to {header.last_offset}"
        if header.leader_epoch < self._leader_epoch:
            return f"leader epoch {header.leader_epoch} after {self._leader_epoch}"
        return None

    def _take(self, segment: Segment, position: int, header: BatchHeader) -> None:
        segment.note(position, header.base_offset, header.last_offset, header.max_timestamp_ms)
        if header.leader_epoch != self._leader_epoch:
            self._leader_epoch = header.leader_epoch
            self._epochs.assign(header.leader_epoch, header.base_offset)
        self._producers.note(header, header.base_offset)
        self._next_offset = header.next_offset

    def _require_torn(self, segment: Segment, position: int, problem: str) -> Slices:
        """DamagedLog unless a crash explains the bad batch at `position`."""
        if self._next_offset < self._found.certain_end:
            reason = f"{problem}, below {self._found.certain_end}, which was on disk"
            raise DamagedLog(segment.path, position, reason)
        after = yield from find_batch_after(
            segment, position, self._next_offset, self._leader_epoch
        )
        if after is not None:
            reason = f"{problem}, and a good batch after it at {after}"
            raise DamagedLog(segment.path, position, reason)

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, disk: Disk, names: tuple[str, ...], index_interval_bytes: int) -> PartitionLog:
        """Cut what does not belong, and make the log."""
        found = self._found
        for segment, position in self._cuts:
            segment.cut(position, segment.end_offset)
        for segment in self._dropped:
            segment.cut(0, segment.base_offset)
            segment.file.close()
        for segment in self._below:
            segment.file.close()
        if not self._kept:
            first = Segment(disk, found.directory, self._start_offset, index_interval_bytes)
            self._kept.append(first)
        for segment in self._kept[:-1]:
            segment.closed = True
            self._maybe_forget_indexes(segment, names)
        log = PartitionLog(
            disk,
            found.directory,
            topic_id=found.topic_id,
            name=found.name,
            partition=found.partition,
            index_interval_bytes=index_interval_bytes,
            segments=self._kept,
            epochs=self._epochs,
            producers=self._producers,
            recovery_point=found.recovery_point,
            log_start_offset=self._start_offset,
        )
        log.derived.snapshots = {
            segment.base_offset: None
            for segment in self._kept
            if segment.base_offset <= self._believed_end
            and segment_name(segment.base_offset, SNAPSHOT_SUFFIX) in names
        }
        log.removals += [
            f"{found.directory}/{name}"
            for name in names
            if name.endswith((DELETED_SUFFIX, TEMPORARY_SUFFIX))
        ]
        log.distrust_cuts([segment.path for segment in self._dropped])
        log.leave_below([segment.path for segment in self._below])
        cut = [segment for segment, _ in self._cuts]
        log.distrust(
            [f"{found.directory}/{name}" for name in names if name == LOG_START_NAME]
            + [
                segment.path
                for segment in self._kept
                if segment.end_offset > found.recovery_point
                or segment in cut
                or segment is self._kept[-1]
            ]
        )
        return log

    def _maybe_forget_indexes(self, segment: Segment, names: tuple[str, ...]) -> None:
        """Below the recovery point the index files are durable: read them when they are needed."""
        suffixes = (INDEX_SUFFIX, TIME_INDEX_SUFFIX)
        stored = all(segment_name(segment.base_offset, suffix) in names for suffix in suffixes)
        if stored and segment.end_offset <= self._found.recovery_point:
            segment.on_indexes_stored()


class _Window:
    """The file in pieces of a megabyte, or of one batch if that is larger."""

    def __init__(self, segment: Segment) -> None:
        self._file = segment.file
        self.size_bytes = segment.size_bytes
        self._start = 0
        self._data = b""

    def at(self, position: int, size_bytes: int) -> memoryview:
        """`size_bytes` from `position` on; fewer only at the end of the file."""
        start = position - self._start
        if start < 0 or start + size_bytes > len(self._data):
            self._data = self._file.read(position, max(size_bytes, WINDOW_BYTES))
            self._start, start = position, 0
        return memoryview(self._data)[start : start + size_bytes]


def find_batch_after(
    segment: Segment, position: int, offset: int, leader_epoch: int
) -> Generator[None, None, int | None]:
    """The position of a good batch in the file after `position`, or None.

    Good: right checksum, base offset not below `offset`, leader epoch not below the last one. It
    may begin at any byte, since the length before it cannot be trusted.
    """
    high = struct.pack(">q", offset)[:4]
    # Base offsets with these upper four bytes; then 12 bytes of anything and the magic.
    pattern = re.compile(b"(?s)(?=" + re.escape(high) + b".{12}" + re.escape(bytes([MAGIC])) + b")")
    start = position + 1
    while start < segment.size_bytes:
        window = segment.file.read(start, WINDOW_BYTES + HEADER_BYTES)
        for match in pattern.finditer(window, 0, min(len(window), WINDOW_BYTES + 16)):
            place = start + match.start()
            if _is_good(segment, place, offset, leader_epoch):
                return place
        start += WINDOW_BYTES
        yield
    return None


def _is_good(segment: Segment, position: int, offset: int, leader_epoch: int) -> bool:
    head = segment.file.read(position, HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        return False
    header = read_header(head)
    if header.base_offset < offset or header.leader_epoch < leader_epoch:
        return False
    if not HEADER_BYTES <= header.size_bytes <= segment.size_bytes - position:
        return False
    return verify_crc(segment.file.read(position, header.size_bytes))
