"""Crash at every change of the disk, both ways, and see that the log kept its word.

A random script of appends, cuts at both ends, restarts, syncs and checkpoints runs until the n-th
change of the disk, for every n. What recovery then finds must be a history that the log went
through: everything below the synced end at the crash byte for byte, and beyond that a prefix of
what was in the log since. Then life goes on, and another crash comes.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from broker.log.log_manager import LogManager
from broker.log.partition_log import PartitionLog
from broker.log.sync_state import SyncRequest
from broker.ports import DiskError
from broker.wire.batch_header import read_header
from chaos.sim.disk import Crash, SimDisk
from tests.log.logs import (
    KEY,
    TOPIC_ID,
    drawing,
    keep_everything,
    keep_nothing,
    make_batch,
    read_all,
    recovered,
    stamped,
)

History = list[tuple[int, bytes]]
"""(base offset, bytes) of each batch."""


def ends_of(history: History) -> list[int]:
    return [base_offset + read_header(data).last_offset_delta + 1 for base_offset, data in history]


def from_start(history: History, start_offset: int) -> list[bytes]:
    """The batches of which some record stands at `start_offset` or above."""
    return [data for _, data in history if read_header(data).next_offset > start_offset]


@dataclass
class Driver:
    """Runs a script against a log and remembers all that may lawfully be found after a crash."""

    disk: SimDisk
    seed: int
    manager: LogManager = field(init=False)
    log: PartitionLog = field(init=False)
    history: History = field(default_factory=list)
    possible: list[History] = field(default_factory=list)
    """Histories of the log since its last completed sync; each prefix of one may be found."""
    starts: list[int] = field(default_factory=lambda: [0])
    """Where the log may begin: as promised, or as it was told since."""
    promised_end: int = 0
    high_watermark: int = 0
    highest_mark: int = 0
    leader_epoch: int = 0
    restarted: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.in_flight: SyncRequest | None = None
        self.covered: list[History] = []
        self.stores: list[tuple[str, bytes]] = []
        self.number = 0

    def begin(self) -> None:
        self.manager = recovered(self.disk)
        self.manager.on_damage_reported()  # the controller's part
        self.log = self.manager.create("t", TOPIC_ID, 0, "ack", 700)

    def run(self, steps: int) -> None:
        actions = (
            [self.append] * 8
            + [self.append_as_follower] * 3
            + [self.sync] * 4
            + [self.finish_sync] * 4
            + [self.checkpoint] * 2
            + [self.finish_store] * 5
            + [self.truncate] * 2
            + [self.delete] * 2
            + [self.advance] * 2
            + [self.append_in_vain]
            + [self.restart] * (self.random.random() < 0.4)
        )
        for _ in range(steps):
            self.random.choice(actions)()

    def batch(self) -> bytes:
        self.number += 1
        value = b"%d:%d " % (self.seed, self.number) * self.random.randint(1, 8)
        return make_batch(self.random.randint(1, 3), value=value)

    def append(self) -> None:
        batch = self.batch()
        if self.random.random() < 0.1:
            self.leader_epoch += 1
        expected = stamped(batch, self.log.log_end_offset, self.leader_epoch)
        self.write(
            [expected],
            lambda: self.log.append_as_leader(batch, read_header(batch), self.leader_epoch),
        )

    def append_as_follower(self) -> None:
        batches = []
        offset = self.log.log_end_offset
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.1:
                self.leader_epoch += 1
            batches.append(stamped(self.batch(), offset, self.leader_epoch))
            offset = read_header(batches[-1]).next_offset
        self.write(batches, lambda: self.log.append_as_follower(b"".join(batches)))

    def write(self, batches: list[bytes], call: Callable[[], int]) -> None:
        after = self.history + [(read_header(data).base_offset, data) for data in batches]
        self.possible.append(after)
        try:
            call()
        except DiskError as error:
            if error.errno != errno.EAGAIN:
                raise
            self.possible.pop()
        else:
            self.history = after

    def append_in_vain(self) -> None:
        """The disk is full for a moment: half a batch is written and cut again."""
        if self.log.is_open:
            end = self.log.log_end_offset
            self.disk.fail_next("append", error=errno.ENOSPC)
            batch = self.batch()
            with pytest.raises(DiskError):
                self.log.append_as_leader(batch, read_header(batch), self.leader_epoch)
            self.disk.fail_no_more()
            assert self.log.log_end_offset == end

    def sync(self) -> None:
        request = self.log.sync_request()
        if request is not None:
            self.in_flight = request
            self.pending = self.disk.prepare_sync(request.files, request.directories)
            self.at_request = len(self.possible)

    def finish_sync(self) -> None:
        if self.in_flight is None:
            return
        request, self.in_flight = self.in_flight, None
        self.disk.mutate("sync", "all", self.pending.complete)
        before = self.log.synced_end
        counted = self.log.on_synced(request.generation, request.end_offset)
        if counted:
            assert self.log.synced_end == request.end_offset >= before
            self.promised_end = self.log.synced_end
            del self.starts[: self.starts.index(self.log.durable_start)]
        else:
            assert self.log.synced_end == before

    def advance(self) -> None:
        self.high_watermark = max(self.high_watermark, self.log.synced_end)
        self.highest_mark = max(self.highest_mark, self.high_watermark)

    def checkpoint(self) -> None:
        for request in self.manager.begin_checkpoint({KEY: self.high_watermark}):
            self.stores.append((request.path, request.data))

    def finish_store(self) -> None:
        if self.stores:
            path, data = self.stores.pop(self.random.randrange(len(self.stores)))
            self.disk.store(path, data)
            for request in self.manager.on_stored(path):
                self.stores.append((request.path, request.data))

    def truncate(self) -> None:
        low = self.high_watermark
        if self.log.log_end_offset > low and self.random.random() < 0.5:
            offset = self.random.randint(low, self.log.log_end_offset)
            ends = [end for end in ends_of(self.history) if end <= offset]
            kept = self.history[: len(ends)]
            self.possible.append(kept)
            self.promised_end = min(self.promised_end, ends[-1] if ends else 0)
            self.log.truncate_to(offset)
            self.history = kept
            self.leader_epoch += self.random.randint(0, 1)

    def delete(self) -> None:
        """The log begins later: somewhere within what is committed."""
        offset = self.random.randint(self.log.log_start_offset, self.high_watermark)
        if offset > self.log.log_start_offset:
            self.starts.append(offset)
            self.log.raise_start_to(offset)

    def restart(self) -> None:
        """The leader's log begins above our end; all that we had is of no use."""
        offset = max(self.log.log_end_offset, self.highest_mark) + self.random.randint(0, 3)
        self.restarted = True
        self.possible.append([])
        self.promised_end = 0
        self.high_watermark = offset
        self.starts.append(offset)
        self.log.restart_at(offset)
        self.history = []

    # --- after a crash ----------------------------------------------------------------------------

    def check_recovered(self) -> None:
        """A prefix of one of the possible histories, with all in it that was promised."""
        if self.manager.damages:
            # Only after a restart may there be less than the checkpoints say: until the log has
            # grown as long again it is in no set of replicas that count, and loses no promise.
            assert self.restarted, self.manager.damages
            assert self.promised_end < self.highest_mark, self.manager.damages
            self.promised_end = 0
        found = read_all(self.log)
        # A restart may reach the disk before a truncation that came earlier: the log is then an
        # older one, from the new beginning on.
        start_offset = self.log.log_start_offset
        assert start_offset in self.starts or (start_offset == 0 and self.manager.damages)
        prefixes = [b"".join(from_start(history, start_offset)) for history in self.possible]
        assert any(whole.startswith(found) for whole in [*prefixes, b""]), "invented"
        assert self.log.log_end_offset >= self.promised_end, "lost"
        assert self.log.synced_end <= self.log.log_end_offset
        promised = b"".join(
            data
            for data in from_start(self.history, start_offset)
            if read_header(data).next_offset <= self.promised_end
        )
        # What was below the beginning may be there again, if that was not on disk.
        assert promised in found, "changed"

    def go_on(self) -> None:
        """Take what was found as the history from now on."""
        found = read_all(self.log)
        position = 0
        start_offset = self.log.log_start_offset
        self.starts.append(start_offset)
        # A beginning that is not on disk may be an older one again: with what stood there.
        self.history = [
            (offset, data)
            for offset, data in self.history
            if read_header(data).next_offset <= start_offset
        ]
        while position < len(found):
            header = read_header(found, position)
            self.history.append(
                (header.base_offset, found[position : position + header.size_bytes])
            )
            position += header.size_bytes
        # Nothing is durable that was not: older histories may still come back.
        self.possible.append(self.history)
        self.in_flight = None
        self.stores = []
        self.high_watermark = min(self.high_watermark, self.log.log_end_offset)
        self.leader_epoch = max(self.leader_epoch, self.log.last_batch_epoch)


STEPS = 120


def crash_points(seed: int) -> int:
    """How many changes of the disk the script makes."""
    disk = SimDisk()
    driver = Driver(disk, seed)
    driver.begin()
    driver.possible.append([])
    driver.run(STEPS)
    return disk.call_count


def run_to_crash(seed: int, call: int, part: str, power: str) -> Driver:
    disk = SimDisk()
    driver = Driver(disk, seed)
    driver.possible.append([])
    disk.crash_at(call, part)
    with suppress(Crash):
        driver.begin()
        driver.run(STEPS)
    lose(disk, power, seed * 1_000 + call)
    return driver


def lose(disk: SimDisk, power: str, seed: int) -> None:
    if power == "process":
        disk.process_crash()
    elif power == "all":
        disk.power_loss(keep_nothing)
    elif power == "none":
        disk.power_loss(keep_everything)
    else:
        disk.power_loss(drawing(seed))


@pytest.mark.parametrize("power", ["process", "all", "none", "some"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_moment_of_the_crash(seed: int, power: str) -> None:
    for call in range(1, crash_points(seed) + 1):
        for part in ("torn", "after"):
            driver = run_to_crash(seed, call, part, power)
            driver.begin()
            driver.check_recovered()


@pytest.mark.parametrize("seed", range(3))
def test_crash_after_crash(seed: int) -> None:
    """process_crash, more work, power_loss, more work, power_loss: each time the word is kept."""
    for call in range(1, crash_points(seed) + 1, 3):
        driver = run_to_crash(seed, call, "torn", "process")
        for round_number, power in enumerate(("some", "process", "some", "all")):
            driver.begin()
            driver.check_recovered()
            driver.go_on()
            driver.disk.crash_at(1 + (call * 7 + round_number * 5) % 25, "torn")
            with suppress(Crash):
                driver.run(30)
            lose(driver.disk, power, call * 10 + round_number)
        driver.begin()
        driver.check_recovered()
