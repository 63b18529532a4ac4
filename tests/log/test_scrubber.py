"""Cold batches are judged as they must be, and read at a bounded rate."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from broker.log.cold_batches import CHUNK_BYTES, ColdRead, look, walk
from broker.log.leader_epochs import LeaderEpochs
from broker.log.log_manager import LogManager
from broker.log.scrubber import Scrubber
from broker.ports import DiskError
from broker.wire.batch_header import read_header
from broker.wire.record_batch import encode_batch
from chaos.sim.disk import SimDisk

TOPIC_ID = "0" * 32


def batch(base: int, leader_epoch: int = 0, value: bytes = b"v") -> bytes:
    encoded = bytearray(encode_batch([(1_000, None, value, ())]))
    encoded[0:8] = base.to_bytes(8, "big")
    encoded[12:16] = leader_epoch.to_bytes(4, "big")
    return bytes(encoded)


SOUND = batch(5) + batch(6) + batch(7, 2)
SIZE = len(batch(5))
EPOCHS = LeaderEpochs(((0, 0), (2, 7)))


def flipped(position: int, mask: int = 1) -> bytes:
    data = bytearray(SOUND)
    data[position] ^= mask
    return bytes(data)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda position, size_bytes: data[position : position + size_bytes]


def test_sound_batches_are_walked_to_their_end() -> None:
    assert walk(SOUND, 5, EPOCHS) == ColdRead(len(SOUND), 8, "")
    assert walk(SOUND[:-1], 5, EPOCHS) == ColdRead(2 * SIZE, 7, "")
    assert walk(b"", 5, EPOCHS) == ColdRead(0, 5, "")


@pytest.mark.parametrize("position", range(SIZE, 2 * SIZE))
def test_every_flipped_bit_is_found(position: int) -> None:
    """Also in base offset and leader epoch, which no checksum covers; a wrong length may look like
    a batch that is cut short."""
    for bit in range(8):
        seen = walk(flipped(position, 1 << bit), 5, EPOCHS)
        assert (seen.position, seen.next_offset) == (SIZE, 6)
        is_length = SIZE + 8 <= position < SIZE + 12
        assert seen.problem or is_length
        data = flipped(position, 1 << bit)
        whole = look(reader(data), SIZE, len(data), 6, ((0, 0), (2, 7)))
        assert whole.problem, "with the whole file at hand, that too"


def test_a_batch_of_the_wrong_place_is_found() -> None:
    assert walk(batch(6), 5, EPOCHS).problem == "a batch of offset 6 where 5 must be"
    assert walk(batch(7), 7, EPOCHS).problem == "leader epoch 0 at offset 7, written in 2"


def test_a_batch_longer_than_a_chunk_is_read_whole() -> None:
    large = batch(5, value=b"v" * (2 * CHUNK_BYTES))
    data = large + batch(6)
    reads: list[int] = []

    def read(position: int, size_bytes: int) -> bytes:
        reads.append(size_bytes)
        return data[position : position + size_bytes]

    seen = look(read, 0, len(data), 5, ((0, 0),))
    assert seen == ColdRead(len(large), 6, "")
    assert reads == [CHUNK_BYTES, len(large)]
    assert look(read, seen.position, len(data), 6, ((0, 0),)) == ColdRead(len(data), 7, "")


def test_what_the_device_cannot_read_is_damage_and_what_is_gone_is_not() -> None:
    def fail(number: int) -> ColdRead:
        def read(position: int, size_bytes: int) -> bytes:
            raise DiskError("a.log", number, "no", unchanged=True)

        return look(read, 0, 100, 0, ())

    assert fail(errno.EIO).problem == "a.log: no (errno 5)"
    with pytest.raises(DiskError):
        fail(errno.ENOENT)


# --- what is read next ------------------------------------------------------------------------


def manager(segment_count: int, values: tuple[int, ...] = (1,)) -> LogManager:
    """Logs of two topics, each with segments of one batch."""
    disk = SimDisk()
    logs = LogManager(disk)
    for partition in range(2):
        log = logs.create("t", TOPIC_ID, partition, segment_bytes=100)
        for number in range(segment_count):
            data = bytearray(batch(number, value=b"v" * values[number % len(values)]))
            log.append_as_leader(data, read_header(data), 0)
        request = log.sync_request()
        assert request is not None
        disk.sync(request.files, request.directories)
        log.on_synced(request.generation, request.end_offset)
    return logs


def sound(scrubber: Scrubber, logs: LogManager, now_ms: int) -> str:
    request = scrubber.request(logs, now_ms)
    if request is None:
        return ""
    assert scrubber.request(logs, now_ms + 10**9) is None, "one at a time"
    assert scrubber.next_deadline_ms() is None
    assert (
        scrubber.on_read(logs, ColdRead(request.end_position, request.next_offset + 1, "")) is None
    )
    return f"{request.log[1]}:{request.next_offset}"


def test_a_pass_reads_every_cold_segment_once_and_then_there_is_a_pause() -> None:
    logs = manager(3)
    scrubber = Scrubber(1_000, 10**9)
    assert sound(scrubber, logs, 0) == "", "not at once after a start"
    assert sound(scrubber, logs, 999) == ""
    assert [sound(scrubber, logs, 1_000) for _ in range(5)] == ["0:0", "0:1", "1:0", "1:1", ""]
    assert scrubber.next_deadline_ms() == 2_000
    assert sound(scrubber, logs, 1_999) == ""
    assert sound(scrubber, logs, 2_000) == "0:0"


def test_the_rate_is_bounded() -> None:
    logs = manager(3, values=(10_000,))
    size_bytes = logs.all()[0].segments[0].size_bytes
    scrubber = Scrubber(1_000, size_bytes * 2)
    sound(scrubber, logs, 0)
    assert sound(scrubber, logs, 1_000) == "0:0"
    assert sound(scrubber, logs, 1_499) == ""
    assert sound(scrubber, logs, 1_500) == "0:1"


def test_a_long_file_is_read_in_pieces() -> None:
    logs = manager(2)
    scrubber = Scrubber(1_000, 10**9)
    scrubber.request(logs, 0)
    first = scrubber.request(logs, 1_000)
    assert first is not None
    scrubber.on_read(logs, ColdRead(40, 0, ""))
    second = scrubber.request(logs, 1_001)
    assert second == first._replace(position=40)


def test_damage_counts_only_for_what_is_still_there() -> None:
    bad = ColdRead(0, 0, "bad")
    for change, counts in (("nothing", True), ("cut", False), ("removed", False)):
        logs = manager(3)
        scrubber = Scrubber(1_000, 10**9)
        scrubber.request(logs, 0)
        request = scrubber.request(logs, 1_000)
        assert request is not None
        if change == "cut":
            logs.all()[0].truncate_to(0)
        elif change == "removed":
            logs.remove(TOPIC_ID, 0)
        assert scrubber.on_read(logs, bad) == (request if counts else None), change
        assert sound(scrubber, logs, 2_000) == ("0:1" if change == "nothing" else "1:0")


def test_what_could_not_be_read_is_passed_over() -> None:
    logs = manager(3)
    scrubber = Scrubber(1_000, 10**9)
    scrubber.request(logs, 0)
    assert scrubber.request(logs, 1_000) is not None
    assert scrubber.on_read(logs, None) is None
    assert sound(scrubber, logs, 1_001) == "0:1"
