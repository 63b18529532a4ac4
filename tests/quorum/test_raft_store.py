"""The voter's file: crashes of both kinds at every call, and every damaged byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from crc32c import crc32c

from broker.ports import DiskError
from broker.quorum.raft_store import MAGIC, PATH, RaftStore, RaftStoreError, Recovered
from broker.quorum.rows import pack
from chaos.sim.choices import Choices, from_seed
from chaos.sim.disk import Crash, SimDisk
from raft.types import Entry, HardState

Log = tuple[Entry, ...]
State = tuple[HardState, Log]

START: State = (HardState(0, None), ())
# What one voter writes: a vote, entries, the same indexes again by another leader, a lone vote.
FRAMES: tuple[tuple[HardState | None, Log], ...] = (
    (HardState(1, 1), ()),
    (None, (Entry(1, 1, b""), Entry(2, 1, b"two" * 40), Entry(3, 1, b"three"))),
    (HardState(2, None), (Entry(2, 2, b"other"),)),
    (HardState(3, 2), ()),
    (None, (Entry(3, 3, b"x" * 200), Entry(4, 3, b""))),
    (None, (Entry(1, 3, b"all anew"),)),
)


def states() -> Iterator[State]:
    """What is stored after each frame, in the plainest way to say it."""
    hard_state, log = START
    yield hard_state, log
    for new_hard_state, entries in FRAMES:
        hard_state = new_hard_state or hard_state
        if entries:
            log = log[: entries[0].index - 1] + entries
        yield hard_state, log


STATES = tuple(states())


def state_of(recovered: Recovered) -> State:
    return recovered.hard_state, recovered.entries


def opened(disk: SimDisk) -> tuple[RaftStore, Recovered]:
    store = RaftStore(disk)
    return store, store.open()


def written(frame_count: int = len(FRAMES)) -> SimDisk:
    """A disk with that many frames, all durable."""
    disk = SimDisk()
    store, _ = opened(disk)
    disk.sync(*store.sync_files())
    for frame in FRAMES[:frame_count]:
        store.append(*frame)
        disk.sync(*store.sync_files())
    return disk


def test_everything_comes_back() -> None:
    for count, state in enumerate(STATES):
        disk = written(count)
        disk.process_crash()
        assert state_of(opened(disk)[1]) == state


class Life:
    """A voter that writes its frames until something happens to it."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.promised = 0
        """Frames whose sync has returned: what may have been told to others."""
        self.begun = 0

    def live(self) -> None:
        store, recovered = opened(self.disk)
        stored = STATES.index(state_of(recovered))
        assert self.promised <= stored <= self.begun
        self.begun = stored
        self.disk.sync(*store.sync_files())
        self.promised = stored
        for count, frame in enumerate(FRAMES[stored:], start=stored + 1):
            self.begun = count
            store.append(*frame)
            self.disk.sync(*store.sync_files())
            self.promised = count


def calls_of_a_life() -> int:
    disk = SimDisk()
    Life(disk).live()
    return disk.call_count


@pytest.mark.parametrize("part", ["before", "torn", "after"])
@pytest.mark.parametrize("kind", ["process_crash", "power_loss", "one after the other"])
def test_a_crash_at_every_call_loses_no_promise(kind: str, part: str) -> None:
    """Afterwards the file opens, holds all that was promised and nothing that was never written.

    "One after the other": what a process crash leaves readable must not count as durable, or a
    power loss right after the restart would take back what the restarted voter then says.
    """
    for call in range(1, calls_of_a_life() + 1):
        for seed in range(1 if kind == "process_crash" else 12):
            choices = Choices(from_seed(seed))
            disk = SimDisk()
            life = Life(disk)
            disk.crash_at(call, part)
            with pytest.raises(Crash):
                life.live()
            if kind == "process_crash":
                disk.process_crash()
            elif kind == "power_loss":
                disk.power_loss(choices.draw)
            else:
                disk.process_crash()
                disk.crash_at(choices.draw("second crash", 1, 3), part)
                with suppress(Crash):
                    life.live()
                disk.power_loss(choices.draw)
            life.live()
            disk.power_loss(choices.draw)
            assert state_of(opened(disk)[1]) == STATES[-1]


def frame_ends() -> list[int]:
    """Where the file ends after each frame."""
    return [len(written(count).files()[PATH]) for count in range(len(STATES))]


def test_every_flipped_byte_is_found() -> None:
    """Before the last frame it is damage and names the file; in the last one it may be a torn
    write, so that frame is cut. Never does anything else come back."""
    ends = frame_ends()
    for position in range(ends[-1]):
        for mask in (0x01, 0x80, 0xFF):
            disk = written()
            disk.process_crash()
            disk.corrupt(PATH, position, mask)
            if position >= ends[-2]:
                _, recovered = opened(disk)
                assert state_of(recovered) == STATES[-2]
                assert recovered.cut_bytes == ends[-1] - ends[-2]
                assert len(disk.files()[PATH]) == ends[-2]
                continue
            with pytest.raises(RaftStoreError, match=r"^raft/quorum.log: position \d+: ") as raised:
                opened(disk)
            assert raised.value.position <= position
            assert len(disk.files()[PATH]) == ends[-1], "evidence is not touched"


def test_every_cut_of_the_last_frame_is_a_torn_tail() -> None:
    ends = frame_ends()
    for size_bytes in range(ends[-2], ends[-1]):
        for zeros in (0, 7):
            disk = written()
            file = disk.open(PATH)
            file.truncate(size_bytes)
            file.append([bytes(zeros)])
            disk.process_crash()
            _, recovered = opened(disk)
            assert state_of(recovered) == STATES[-2]
            assert recovered.cut_bytes == size_bytes + zeros - ends[-2]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"GET / HTTP/1.1\r\n", "position 0: not a metadata quorum log"),
        (b"abc", "position 0: not a metadata quorum log"),
        (b"PRZRAFT\x02" + bytes(50), "position 0: format version 2, this program knows 1"),
    ],
)
def test_a_foreign_file_is_left_alone(content: bytes, what: str) -> None:
    disk = SimDisk()
    disk.make_dir("raft")
    disk.open(PATH, create=True).append([content])
    with pytest.raises(RaftStoreError, match=what):
        opened(disk)
    assert disk.files()[PATH] == content


def test_a_file_half_created_begins_anew() -> None:
    for size_bytes in range(len(MAGIC)):
        for content in (MAGIC[:size_bytes], MAGIC[:size_bytes].ljust(len(MAGIC), b"\0")):
            disk = SimDisk()
            disk.make_dir("raft")
            disk.open(PATH, create=True).append([content])
            assert state_of(opened(disk)[1]) == START
            assert disk.files()[PATH] == MAGIC


@pytest.mark.parametrize(
    ("payload", "kind", "what"),
    [
        (b"\xc1", 1, "frame of another program: not msgpack"),
        (pack((1, None)), 1, "frame of another program: not a row of 3 fields"),
        (pack(("1", None, ())), 1, "_Frame.term cannot be str"),
        (pack((9, None, ())), 2, "frame kind 2 is unknown"),
        (pack((2, None, ())), 1, "term 2 after 3"),
        (pack((3, None, (Entry(3, 3, b""),))), 1, "entry 3 after entry 1"),
        (pack((3, None, (Entry(0, 3, b""),))), 1, "entry 0 after entry 1"),
        (pack((3, None, (Entry(2, 3, b""), Entry(4, 3, b"")))), 1, "entry 4 of term 3"),
        (pack((3, None, (Entry(2, 4, b""),))), 1, "entry 2 of term 4"),
        (pack((3, None, (Entry(2, 2, b""),))), 1, "entry 2 of term 2 after entry 1 of term 3"),
    ],
)
def test_an_intact_frame_that_makes_no_sense_is_damage(
    payload: bytes, kind: int, what: str
) -> None:
    """Its checksum is right, so no crash explains it."""
    disk = written()
    file = disk.open(PATH)
    file.append([frame_bytes(file.size_bytes, kind, payload)])
    position = file.size_bytes - len(payload) - 9
    disk.process_crash()
    with pytest.raises(RaftStoreError, match=f"position {position}: .*{what}"):
        opened(disk)


def frame_bytes(position: int, kind: int, payload: bytes) -> bytes:
    """The format written out a second time, independently of the store."""
    covered = position.to_bytes(8, "big") + len(payload).to_bytes(4, "big") + bytes((kind,))
    crc = crc32c(covered + payload)
    return len(payload).to_bytes(4, "big") + crc.to_bytes(4, "big") + bytes((kind,)) + payload


def test_the_format_on_disk() -> None:
    """Golden bytes: an older program's file must stay readable."""
    payload = bytes.fromhex("93010190")
    assert written(1).files()[PATH] == MAGIC + frame_bytes(len(MAGIC), 1, payload)


def test_an_intact_frame_elsewhere_does_not_count() -> None:
    """Entry data may hold the bytes of a frame; as the CRC covers the position, a torn frame with
    such data in it is still a torn tail and not damage."""
    disk = written()
    end = len(disk.files()[PATH])
    inner = frame_bytes(0, 1, pack((9, 9, ())))
    torn = frame_bytes(end, 1, pack((3, 2, (Entry(2, 3, inner),))))[:-1]
    disk.open(PATH).append([torn])
    disk.process_crash()
    _, recovered = opened(disk)
    assert state_of(recovered) == STATES[-1]
    assert recovered.cut_bytes == len(torn)


def test_a_failed_write_leaves_the_file_as_it_was() -> None:
    disk = written(1)
    disk.process_crash()
    store, _ = opened(disk)
    before = disk.files()
    disk.fail_next("append")
    with pytest.raises(DiskError):
        store.append(HardState(8, 8), ())
    assert disk.files() == before


def test_the_first_sync_covers_the_creation() -> None:
    store, _ = opened(SimDisk())
    assert store.sync_files() == ((PATH,), ("raft", "."))
    assert store.sync_files() == ((PATH,), ())
