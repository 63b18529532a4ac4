"""The voter's memory on disk: one append-only file with what Raft must never forget.

    raft/quorum.log  =  magic, version byte, then frames
    frame            =  payload length u32 | CRC-32C u32 | kind u8 | payload   (big-endian)
    state (kind 1)   =  msgpack [term, voted_for or nil, [[index, term, data], ...]]
    snapshot (2)     =  msgpack [index, term, data]; if there is one it comes first

The CRC covers the frame's own position, length and kind too: a frame counts only where it was
written. One frame is one Raft `Ready`: hard state and entries become durable together by one sync.
Entries replace whatever an earlier frame had from their first index on; nothing is overwritten.

When a snapshot takes the place of entries the whole file is replaced, atomically: the snapshot,
then one frame with the hard state and the entries behind it (`whole`).

Each frame is synced before the next is written. So only the *last* frame can be torn by a crash: a
bad one with a valid one behind it was durable once and is damage, and a voter that may have
forgotten a promise does not start. For the same reason a recovered file is synced before anything
is answered: what is readable after a crash of the process alone is not yet durable.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from crc32c import crc32c

from broker.ports import Disk, File
from broker.quorum.rows import RowError, from_row, pack, unpack
from raft.types import Entry, HardState, Snapshot

DIRECTORY = "raft"
PATH = "raft/quorum.log"
ROOT_DIRECTORY = "."
MAGIC = b"PRZRAFT\x01"
"""Seven letters and the version of the format."""
STATE_KIND = 1
SNAPSHOT_KIND = 2

_FRAME = struct.Struct(">IIB")
_COVERED = struct.Struct(">QIB")


class RaftStoreError(Exception):
    """The file is not what a voter of this version wrote. Names the file and the position."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(f"{PATH}: position {position}: {problem}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the file holds; durable only after a sync. `cut_bytes` of a torn tail were dropped."""

    hard_state: HardState
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    cut_bytes: int


@dataclass(frozen=True, slots=True)
class _Frame:
    term: int
    voted_for: int | None
    entries: tuple[Entry, ...]


class RaftStore:
    """Opens, reads and grows the file. `open` comes first; a torn tail is cut there.

    DiskError passes through. After a failed `append` that may have left something the voter must
    stop: it cannot know what a later start will find.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._file: File | None = None
        self._hard_state = HardState(term=0, voted_for=None)
        self._snapshot: Snapshot | None = None
        self._whole_end = 0
        """Up to where the file is as it was when it was replaced last."""
        self._is_created_durably = False

    def open(self) -> Recovered:
        """Read the whole file, or create it. Raises RaftStoreError on damage or a foreign file."""
        self._disk.make_dir(DIRECTORY)
        self._file = file = self._disk.open(PATH, create=True)
        data = file.read(0, file.size_bytes)
        if len(data) <= len(MAGIC) and data != MAGIC:
            if not MAGIC.startswith(data.rstrip(b"\0")):
                raise RaftStoreError(0, "not a metadata quorum log")
            # A crash while the file was being created: nothing was ever promised by it.
            file.truncate(0)
            file.append([MAGIC])
            return Recovered(self._hard_state, None, (), len(data))
        if not data.startswith(MAGIC):
            known = data.startswith(MAGIC[:-1])
            what = f"format version {data[len(MAGIC) - 1]}, this program knows {MAGIC[-1]}"
            raise RaftStoreError(0, what if known else "not a metadata quorum log")
        entries, end = self._replay(data)
        if end < len(data):
            file.truncate(end)
        return Recovered(self._hard_state, self._snapshot, tuple(entries), len(data) - end)

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Write one frame; not durable before a sync. `hard_state` None means unchanged."""
        assert self._file is not None, "append before open"
        state = self._hard_state if hard_state is None else hard_state
        assert not entries or entries[-1].term <= state.term, (state, entries[-1])
        payload = pack((state.term, state.voted_for, tuple(entries)))
        self._file.append(_frame(self._file.size_bytes, STATE_KIND, payload))
        self._hard_state = state

    def whole(
        self, snapshot: Snapshot, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> bytes:
        """The file that says this and nothing else, to be stored in place of the present one; then
        `on_replaced`. `hard_state` None means unchanged."""
        state = self._hard_state if hard_state is None else hard_state
        self._hard_state = state
        data = bytearray(MAGIC)
        for kind, payload in (
            (SNAPSHOT_KIND, pack((snapshot.index, snapshot.term, snapshot.data))),
            (STATE_KIND, pack((state.term, state.voted_for, tuple(entries)))),
        ):
            data += b"".join(_frame(len(data), kind, payload))
        return bytes(data)

    def on_replaced(self) -> None:
        """The file is another one now, and durable."""
        self._file = self._disk.open(PATH)
        self._whole_end = self._file.size_bytes

    def holds(self, whole: bytes) -> bool:
        """Whether the file is `whole`, after a replacement that may have failed."""
        return self._disk.read_whole(PATH) == whole

    @property
    def grown_bytes(self) -> int:
        """How much was written behind the snapshot."""
        return self.end_position - self._whole_end

    def sync_files(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(files, directories) of the next sync. Directories only for the first: it has the file's
        creation to make durable."""
        directories = () if self._is_created_durably else (DIRECTORY, ROOT_DIRECTORY)
        self._is_created_durably = True
        return (PATH,), directories

    @property
    def end_position(self) -> int:
        """Bytes written so far: what the next sync covers."""
        assert self._file is not None, "not open"
        return self._file.size_bytes

    def _replay(self, data: bytes) -> tuple[list[Entry], int]:
        """Entries of all valid frames behind the snapshot, and where they end."""
        entries: list[Entry] = []
        position = len(MAGIC)
        while position < len(data):
            payload = _payload_at(data, position)
            if payload is None:
                later = _find_frame(data, position + 1)
                if later is not None:
                    raise RaftStoreError(
                        position, f"damaged: an unreadable frame before the intact one at {later}"
                    )
                if _is_part_of_whole(data, position, self._whole_end):
                    raise RaftStoreError(position, "damaged: this was stored as a whole")
                return entries, position
            self._replay_frame(position, data[position + 8], payload, entries)
            position += _FRAME.size + len(payload)
        if self._snapshot is not None and position == self._whole_end:
            raise RaftStoreError(position, "damaged: nothing behind the snapshot")
        return entries, position

    def _replay_frame(
        self, position: int, kind: int, payload: memoryview, entries: list[Entry]
    ) -> None:
        if kind == SNAPSHOT_KIND and position == len(MAGIC):
            self._snapshot = _row(Snapshot, position, payload)
            self._whole_end = position + _FRAME.size + len(payload)
            return
        if kind != STATE_KIND:
            raise RaftStoreError(position, f"frame kind {kind} is unknown to this program")
        frame = _row(_Frame, position, payload)
        base_index, base_term = 0, 0
        if self._snapshot is not None:
            base_index, base_term = self._snapshot.index, self._snapshot.term
        if frame.term < self._hard_state.term:
            raise RaftStoreError(position, f"term {frame.term} after {self._hard_state.term}")
        if frame.entries:
            first_index = frame.entries[0].index
            last_index = base_index + len(entries)
            if not base_index < first_index <= last_index + 1:
                raise RaftStoreError(position, f"entry {first_index} after entry {last_index}")
            del entries[first_index - base_index - 1 :]
        for entry in frame.entries:
            last_index = base_index + len(entries)
            last_term = entries[-1].term if entries else base_term
            if entry.index != last_index + 1 or not last_term <= entry.term <= frame.term:
                raise RaftStoreError(
                    position,
                    f"entry {entry.index} of term {entry.term} after entry {last_index} "
                    f"of term {last_term}",
                )
            entries.append(entry)
        self._hard_state = HardState(frame.term, frame.voted_for)


T = TypeVar("T")


def _row(row_type: type[T], position: int, payload: memoryview) -> T:
    try:
        return from_row(row_type, unpack(payload))
    except RowError as error:
        raise RaftStoreError(position, f"frame of another program: {error}") from error


def _frame(position: int, kind: int, payload: bytes) -> tuple[bytes, bytes]:
    return _FRAME.pack(len(payload), _crc(position, kind, payload), kind), payload


def _crc(position: int, kind: int, payload: bytes | memoryview) -> int:
    covered = _COVERED.pack(position, len(payload), kind)
    return int(crc32c(payload, crc32c(covered)))


def _payload_at(data: bytes, position: int) -> memoryview | None:
    """The payload of the frame at `position`, or None if there is no whole, intact one."""
    start = position + _FRAME.size
    if start > len(data):
        return None
    size_bytes, crc, kind = _FRAME.unpack_from(data, position)
    if start + size_bytes > len(data):
        return None
    payload = memoryview(data)[start : start + size_bytes]
    return payload if _crc(position, kind, payload) == crc else None


def _is_part_of_whole(data: bytes, position: int, snapshot_end: int) -> bool:
    """Whether an unreadable frame is a snapshot's, or the one behind it: no crash tears these."""
    kind_at = position + 8
    is_snapshot = position == len(MAGIC) and data[kind_at : kind_at + 1] == bytes((SNAPSHOT_KIND,))
    return is_snapshot or position == snapshot_end


def _find_frame(data: bytes, position: int) -> int | None:
    """Where the first intact frame at or behind `position` begins."""
    kind_at = data.find(STATE_KIND, position + 8)
    while kind_at >= 0:
        if _payload_at(data, kind_at - 8) is not None:
            return kind_at - 8
        kind_at = data.find(STATE_KIND, kind_at + 1)
    return None
