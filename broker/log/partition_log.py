"""The log of one partition: append, read, truncate, and know how far it is on disk.

State changes only after the bytes are in the file; a failed append changes nothing. What is synced
is told by `sync_request` and `on_synced`; the log never waits for the device.

A power loss may forget a cut and keep what was written after it. Therefore, until a cut is on disk,
at most one new file is begun after it, and if the cut dropped whole files, nothing is appended at
all: so whatever comes back never stands behind, or between, newer batches.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from broker.log import reading
from broker.log.continuation import check_continuation
from broker.log.derived_files import DerivedFiles, derived_paths
from broker.log.errors import OffsetOutOfRange
from broker.log.leader_epochs import LeaderEpochs
from broker.log.log_start import write_log_start
from broker.log.producer_state import ProducerStateTable
from broker.log.segment import SEGMENT_BYTES_MAX, Segment
from broker.log.sync_state import SyncRequest, SyncState
from broker.ports import Buffer, Disk, DiskError
from broker.wire.batch_header import BatchHeader, prefix

__all__ = ["PartitionLog", "SyncRequest"]

DELETED_SUFFIX = ".deleted"
PREFIX_BYTES = 16
RELATIVE_OFFSET_MAX = 2**31 - 1
NEVER_MS = 2**62


class PartitionLog:
    """`[log_start_offset, log_end_offset)`, of which `[.., synced_end)` is known to be on disk.

    `recovery_point`: below it recovery need not verify; derived files are durable below it. It
    never exceeds the high watermark, so no truncation gets below it (flush=async excepted, where a
    power loss may take committed records).
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        topic_id: str,
        name: str,
        partition: int,
        flush: str = "ack",
        segment_bytes: int = 134_217_728,
        index_interval_bytes: int = 4_096,
        segments: list[Segment],
        epochs: LeaderEpochs | None = None,
        producers: ProducerStateTable | None = None,
        recovery_point: int = 0,
        log_start_offset: int = 0,
    ) -> None:
        assert segments, "a log has at least one segment, if an empty one"
        self.topic_id = topic_id
        self.name = name
        self.partition = partition
        self.directory = directory
        self.flush = flush
        self.segment_bytes = segment_bytes
        self.segment_ms = NEVER_MS
        self.may_lose_committed = flush == "async"
        self.epochs = epochs or LeaderEpochs()
        self.log_start_offset = max(segments[0].base_offset, log_start_offset)
        self.log_end_offset = segments[-1].end_offset
        self.producers = (
            ProducerStateTable(self.log_start_offset) if producers is None else producers
        )
        self.last_batch_epoch = self.epochs.epoch_of(self.log_end_offset - 1)
        """Leader epoch of the last batch; -1 without one."""
        self.recovery_point = recovery_point
        self.derived = DerivedFiles(directory)
        self.removals: list[str] = []
        """Files that only take room: to be removed by whoever can."""
        self._disk = disk
        self._index_interval_bytes = index_interval_bytes
        self._segments = segments
        self._sync = SyncState(min(recovery_point, self.log_end_offset))
        self._dropped: list[str] = []
        """Files that were emptied and are not known to be so on disk: no appends meanwhile."""
        self.durable_start = self._start_in_flight = self.log_start_offset
        """What is on disk of where the log begins."""
        self._below: list[str] = []
        self._below_in_flight: list[str] = []
        """Files to remove once that is on disk: by the next sync, or by the one under way."""
        self._begun_since_cut = False
        """Since the oldest cut that is not on disk, a file was begun or begun anew."""
        self._sync_due = False
        self._broken = False

    @classmethod
    def create(
        cls,
        disk: Disk,
        directory: str,
        *,
        topic_id: str,
        name: str,
        partition: int,
        flush: str = "ack",
        segment_bytes: int = 134_217_728,
        index_interval_bytes: int = 4_096,
    ) -> PartitionLog:
        """An empty log in a new directory (or one that holds no segment)."""
        disk.make_dir(directory)
        log = cls(
            disk,
            directory,
            topic_id=topic_id,
            name=name,
            partition=partition,
            flush=flush,
            segment_bytes=segment_bytes,
            index_interval_bytes=index_interval_bytes,
            segments=[Segment(disk, directory, 0, index_interval_bytes)],
        )
        log.distrust([segment.path for segment in log._segments])
        return log

    @property
    def generation(self) -> int:
        return self._sync.generation

    @property
    def synced_end(self) -> int:
        return self._sync.synced_end

    @property
    def counted_end(self) -> int:
        """How far this replica vouches for its log: what is on disk, or under flush=async what is
        written."""
        return self.log_end_offset if self.flush == "async" else self._sync.synced_end

    @property
    def first_batch_offset(self) -> int:
        """Where the batch begins that holds the log's first record."""
        if self.log_start_offset == self.log_end_offset:
            return self.log_start_offset
        slot = reading.slot_of(self._segments, self.log_start_offset)
        return self._segments[slot].position_of(self.log_start_offset)[0]

    @property
    def last_fetched_epoch(self) -> int:
        """The leader epoch of the last batch, as a follower tells it to its leader."""
        return self.last_batch_epoch

    @property
    def is_open(self) -> bool:
        """Appends are taken: no dropped file waits for a sync, and the disk never failed."""
        return not self._dropped and not self._broken and not self._sync.failed

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    def configure(
        self,
        flush: str,
        segment_bytes: int,
        segment_ms: int = NEVER_MS,
        *,
        may_lose_committed: bool = False,
    ) -> None:
        """The topic's settings, which a recovered log does not know."""
        self.flush = flush
        self.may_lose_committed = may_lose_committed or flush == "async"
        self.segment_bytes = segment_bytes
        self.segment_ms = segment_ms

    # --- append -----------------------------------------------------------------------------------

    def append_as_leader(self, batch: Buffer, header: BatchHeader, leader_epoch: int) -> int:
        """Give the batch its offsets and leader epoch and write it; its base offset.

        Layout, checksum and producer verdict are the caller's to check, before. DiskError: nothing
        was appended; `unchanged` tells whether that is proven.
        """
        assert leader_epoch >= self.last_batch_epoch, "leader epochs never go back"
        base_offset = self.log_end_offset
        last_offset = base_offset + header.last_offset_delta
        segment = self._segment_for(header.size_bytes, last_offset, header.max_timestamp_ms)
        stamp = prefix(base_offset, header.batch_length, leader_epoch)
        position = self._write(segment, (stamp, memoryview(batch)[PREFIX_BYTES:]))
        self._note(segment, position, header, base_offset, leader_epoch)
        return base_offset

    def append_as_follower(self, data: Buffer) -> int:
        """Append the leader's batches as they are; the new log end offset.

        `data` holds whole batches that continue this log: next offset first, no gap, leader epochs
        not going back. CorruptBatch or LogMismatch otherwise, with nothing written; DiskError as
        for a leader.
        """
        headers = check_continuation(
            data, self.directory, self.log_end_offset, self.last_batch_epoch
        )
        last = headers[-1]
        segment = self._segment_for(len(data), last.last_offset, last.max_timestamp_ms)
        position = self._write(segment, (data,))
        for header in headers:
            self._note(segment, position, header, header.base_offset, header.leader_epoch)
            position += header.size_bytes
        return self.log_end_offset

    def _segment_for(self, size_bytes: int, last_offset: int, timestamp_ms: int) -> Segment:
        if self._broken or self._sync.failed:
            raise DiskError(self.directory, errno.EIO, "the disk failed before", unchanged=True)
        if self._dropped:
            raise self._not_yet()
        active = self._segments[-1]
        is_full = (
            active.closed
            or active.size_bytes + size_bytes > min(self.segment_bytes, SEGMENT_BYTES_MAX)
            or last_offset - active.base_offset > RELATIVE_OFFSET_MAX
            or timestamp_ms - active.first_timestamp_ms > self.segment_ms
        )
        return self._roll() if is_full and active.size_bytes else active

    def _not_yet(self) -> DiskError:
        reason = "waiting until a cut is on disk"
        return DiskError(self.directory, errno.EAGAIN, reason, unchanged=True)

    def _roll(self) -> Segment:
        if self._begun_since_cut and self._sync.has_unsynced_cut:
            raise self._not_yet()
        segment = Segment(
            self._disk, self.directory, self.log_end_offset, self._index_interval_bytes
        )
        assert segment.size_bytes == 0, f"{segment.path} is not empty"
        self._segments[-1].closed = True
        self._segments.append(segment)
        self._sync.touch(segment.path)
        self._sync.touch_directories((self.directory,))
        self._sync_due = True
        self._begun_since_cut = True
        self.producers.take_snapshot(self.log_end_offset)
        return segment

    def _write(self, segment: Segment, chunks: tuple[Buffer, ...]) -> int:
        self._sync.touch(segment.path)
        try:
            return segment.append(chunks)
        except DiskError as error:
            self._broken = not error.unchanged
            self._begins_anew(not segment.closed)
            self._sync.note_cut()
            raise

    def _begins_anew(self, in_place: bool) -> None:
        """A cut comes; appends go on `in_place`, in a file that was emptied, or in a new one."""
        self._begun_since_cut = in_place or (self._begun_since_cut and self._sync.has_unsynced_cut)

    def _note(
        self,
        segment: Segment,
        position: int,
        header: BatchHeader,
        base_offset: int,
        leader_epoch: int,
    ) -> None:
        last_offset = base_offset + header.last_offset_delta
        segment.note(position, base_offset, last_offset, header.max_timestamp_ms)
        if leader_epoch != self.epochs.last_epoch():
            # We led an epoch, wrote nothing in it, and now get what an older one wrote here.
            self.epochs.truncate_to(base_offset)
            if leader_epoch != self.epochs.last_epoch():
                self.epochs.assign(leader_epoch, base_offset)
        self.last_batch_epoch = leader_epoch
        self.producers.note(header, base_offset)
        self.log_end_offset = last_offset + 1

    # --- read -------------------------------------------------------------------------------------

    def read(self, offset: int, max_bytes: int, end_offset: int) -> bytes:
        """Whole contiguous batches from the one that holds `offset`, all below `end_offset`.

        At most `max_bytes`, but at least one batch if there is one; b"" if there is none.
        OffsetOutOfRange outside the log (the whole batch in which it begins can be read, though);
        CorruptFile where the file is damaged.
        """
        end_offset = min(end_offset, self.log_end_offset)
        is_below = offset < self.log_start_offset and offset < self.first_batch_offset
        if is_below or offset > self.log_end_offset:
            raise OffsetOutOfRange(offset, self.log_start_offset, self.log_end_offset)
        if offset >= end_offset:
            return b""
        return reading.read_batches(self._segments, self.epochs, offset, max_bytes, end_offset)

    def size_between(self, offset: int, end_offset: int) -> int:
        """Bytes of the batches from the one that holds `offset` up to `end_offset`."""
        return reading.size_between(self._segments, offset, end_offset)

    def offset_for_timestamp(self, timestamp_ms: int, end_offset: int) -> tuple[int, int] | None:
        """(timestamp, offset) of the first record below `end_offset` at or after a time."""
        return reading.offset_for_timestamp(
            self._segments, timestamp_ms, self.log_start_offset, end_offset
        )

    def headers(self, offset: int, end_offset: int) -> Iterator[BatchHeader]:
        """Headers of the batches from the one that holds `offset` up to `end_offset`."""
        return reading.headers(self._segments, offset, end_offset)

    # --- the beginning ----------------------------------------------------------------------------

    def raise_start_to(self, offset: int) -> None:
        """Let the log begin at `offset`, at most its end (KIP-107). Files that are wholly below go
        once that is on disk. DiskError: nothing has changed."""
        if offset <= self.log_start_offset:
            return
        assert offset <= self.log_end_offset, "the log cannot begin behind its end"
        path = write_log_start(self._disk, self.directory, offset)
        self._sync.touch(path)
        self._sync.touch_directories((self.directory,))
        self._sync_due = True
        self.log_start_offset = offset
        while len(self._segments) > 1 and self._segments[0].end_offset <= offset:
            segment = self._segments.pop(0)
            segment.file.close()
            self._below.append(segment.path)
        self.epochs.forget_below(self._segments[0].base_offset)
        self.derived.raise_start(self._segments[0].base_offset)

    def refuse_appends(self) -> None:
        """Until it begins anew: it does not hold what was written."""
        self._broken = True

    def leave_below(self, paths: list[str]) -> None:
        """Files that a recovery found below the beginning."""
        self._below += paths

    def roll(self) -> None:
        """Begin a new file, so that the last one takes no more bytes. DiskError if not now."""
        if self._segments[-1].size_bytes and self.is_open:
            self._roll()

    # --- truncate ---------------------------------------------------------------------------------

    def truncate_to(self, offset: int) -> None:
        """Drop the batches that end above `offset`; the log then ends at or below it.

        Leader epochs that begin at the end or above are forgotten even if no batch is dropped.
        DiskError: the log can no longer be used. CorruptFile: nor to append to, until it begins
        anew; what it says it holds is what it holds.
        """
        assert offset >= self.recovery_point or self.may_lose_committed, (
            f"{self.directory}: truncation to {offset} below {self.recovery_point}, which is "
            "committed"
        )
        offset = max(offset, self.log_start_offset)
        end_offset = old_end_offset = self.log_end_offset
        if offset < self.log_end_offset:
            slot = reading.slot_of(self._segments, offset)
            segment = self._segments[slot]
            end_offset, position = offset, 0
            if offset > segment.base_offset:
                end_offset, position = segment.position_of(offset)
            self._cut(slot, position, end_offset)
        self.epochs.truncate_to(self.log_end_offset)
        self.last_batch_epoch = self.epochs.epoch_of(self.log_end_offset - 1)
        if end_offset < old_end_offset:
            self._broken = True
            self.producers_from_batches()
            self._broken = False

    def _cut(self, slot: int, position: int, end_offset: int) -> None:
        self._broken = True
        self._begins_anew(position == 0)
        self._sync.cut(end_offset)
        while len(self._segments) > slot + 1:
            self._drop(self._segments.pop())
        segment = self._segments[slot]
        self._sync.touch(segment.path)
        segment.cut(position, end_offset)
        self.log_end_offset = end_offset
        self.recovery_point = min(self.recovery_point, end_offset)
        self.derived.cut(end_offset)
        self._broken = False

    def _drop(self, segment: Segment) -> None:
        """Empty a file that no longer belongs to the log, and close the log until that is sure."""
        path = segment.path
        self._sync.touch(path)
        segment.cut(0, segment.base_offset)
        segment.file.close()
        if path not in self._dropped:
            self._dropped.append(path)

    def restart_at(self, offset: int) -> None:
        """Forget everything and go on at `offset`: the leader's log begins above our end, or ours
        is damaged. Nothing counts (`synced_end` is 0) until the new beginning is on disk."""
        self._broken = True
        self._begins_anew(True)
        self._sync.cut(0)
        self._sync.touch(write_log_start(self._disk, self.directory, offset))
        same = [segment for segment in self._segments if segment.base_offset == offset]
        for segment in reversed(self._segments):
            if segment.base_offset != offset:
                self._drop(segment)
        for segment in same:
            segment.cut(0, offset)
        self._segments = same or [
            Segment(self._disk, self.directory, offset, self._index_interval_bytes)
        ]
        path = self._segments[0].path
        if path in self._dropped:
            self._dropped.remove(path)
        self._sync.touch(path)
        self._sync.touch_directories((self.directory,))
        self.log_start_offset = self.log_end_offset = offset
        self.recovery_point = 0
        self.epochs = LeaderEpochs()
        self.derived.forget()
        self.producers = ProducerStateTable(offset)
        self.last_batch_epoch = -1
        self._broken = False

    def producers_from_batches(self) -> None:
        """Rebuild the producer table from the newest copy below the log end and the batches."""
        if self.log_end_offset < self.producers.known_from:
            # Only under flush=async is a log cut below what recovery believed.
            self.producers = self.producers.begin_again(self.log_start_offset)
        offset = self.producers.restore(self.log_end_offset)
        for header in self.headers(offset, self.log_end_offset):
            self.producers.note(header, header.base_offset)

    # --- durability -------------------------------------------------------------------------------

    def sync_request(self, *, force: bool = False) -> SyncRequest | None:
        """What to sync now, or None: nothing new, one is in flight, or (flush=async) no hurry."""
        if self.flush == "async" and not (force or self._sync_due or self._dropped):
            return None
        request = self._sync.request(self.log_end_offset)
        if request is not None:
            self._sync_due = False
            self._below_in_flight, self._below = self._below, []
            self._start_in_flight = self.log_start_offset
        return request

    def want_sync(self) -> None:
        """Under flush=async too: the recovery point cannot move without one."""
        self._sync_due = True

    def on_synced(self, generation: int, end_offset: int) -> bool:
        """A sync is done. False if it is of an older generation and thus proves nothing."""
        if not self._sync.complete(generation, end_offset):
            self._below, self._below_in_flight = self._below_in_flight + self._below, []
            return False
        # A dropped name may come back after a power loss, but then with an empty file; one below
        # the beginning may come back as it is.
        for path in (*self._dropped, *self._below_in_flight):
            self._disk.rename(path, path + DELETED_SUFFIX)
            self.removals.append(path + DELETED_SUFFIX)
        for path in self._below_in_flight:
            self.removals += derived_paths(path)
        self._dropped = []
        self._below_in_flight = []
        self.durable_start = self._start_in_flight
        self._sync.synced_end = end_offset
        return True

    def on_sync_failed(self) -> None:
        """A sync failed: nothing is appended or synced here any more."""
        self._sync.fail()

    def distrust(self, files: list[str]) -> None:
        """Nobody knows whether these files, and the names on the way to them, are on disk."""
        for path in files:
            self._sync.touch(path)
        parents = self.directory.split("/")
        paths = ["/".join(parents[:depth]) for depth in range(len(parents), 0, -1)]
        self._sync.touch_directories((*paths, "."))

    def distrust_cuts(self, emptied: list[str]) -> None:
        """Nor whether cuts made before, or by recovery, are on disk. `emptied` do not belong to the
        log and must be empty on disk before anything is appended."""
        self._begins_anew(True)
        self._sync.note_cut()
        for path in emptied:
            self._sync.touch(path)
            self._dropped.append(path)

    def derived_files(self, recovery_point: int) -> list[tuple[str, bytes]]:
        """(path, data) of the derived files that must be durable before the recovery point moves
        there; each is told to `on_derived_stored`."""
        return self.derived.missing(recovery_point, self._segments, self.epochs, self.producers)

    def on_derived_stored(self, path: str, data: bytes) -> None:
        """A file from `derived_files` is durable, and the log was not cut since."""
        self.derived.on_stored(path, data, self._segments)

    def close(self) -> None:
        for segment in self._segments:
            segment.file.close()
