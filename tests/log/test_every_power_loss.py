"""Short stories, and after each step every power loss there can be.

A story is a handful of verbs on a log with tiny segments. After each step the disk loses power in
every way that the simulated disk knows (of each file any number of its unsynced operations, of each
name likewise, independently); what recovery then finds must be a prefix of a history that the log
had, and hold all that was promised.
"""

from __future__ import annotations

import copy
import random

import pytest

from broker.log.partition_log import PartitionLog, SyncRequest
from broker.ports import DiskError
from broker.wire.batch_header import read_header
from chaos.sim.disk import PendingSync, SimDisk
from tests.log.logs import (
    KEY,
    append,
    drawing,
    make_batch,
    read_all,
    recovered,
    stamped,
    sync_all,
)

ONE = len(make_batch(value=b"00/"))
"""Bytes of every batch here."""


class Draws:
    """One sequence of draws after the other, until every one was made. Torn writes lose all."""

    def __init__(self) -> None:
        self._chosen: list[int] = []
        self._highs: list[int] = []
        self._begun = False

    def next(self) -> bool:
        """Begin the next sequence; False when there is none."""
        if not self._begun:
            self._begun = True
            return True
        del self._chosen[len(self._highs) :]
        while self._chosen and self._chosen[-1] == self._highs[len(self._chosen) - 1]:
            self._chosen.pop()
        if not self._chosen:
            return False
        self._chosen[-1] += 1
        self._highs = []
        return True

    def draw(self, label: str, low: int, high: int) -> int:
        if "bytes kept" in label:
            return low
        if "zeros" in label:
            return high
        if len(self._highs) == len(self._chosen):
            self._chosen.append(low)
        self._highs.append(high)
        return self._chosen[len(self._highs) - 1]


class Story:
    """Tells a log what to do and remembers what may be found."""

    def __init__(self, batches_per_segment: int, *, losses_max: int = 10_000) -> None:
        self.losses_max = losses_max
        self.disk = SimDisk()
        self.segment_bytes = ONE * batches_per_segment
        self.log = self.reopened(self.disk)
        self.history: list[bytes] = []
        self.possible: list[list[bytes]] = [[]]
        self.promised: list[bytes] = []
        self.number = 0
        self.leader_epoch = 0
        self.in_flight: tuple[SyncRequest, PendingSync] | None = None
        sync_all(self.disk, self.log)

    def reopened(self, disk: SimDisk) -> PartitionLog:
        manager = recovered(disk)
        assert manager.damages == ()
        return manager.create("t", *KEY, "ack", self.segment_bytes)

    def tell(self, verb: str) -> None:
        name, _, argument = verb.partition(" ")
        getattr(self, name)(*([int(argument)] if argument else []))

    def append(self, count: int = 1) -> None:
        """`count` batches, as far as the log takes them."""
        for _ in range(count):
            self.number += 1
            batch = make_batch(value=b"%02d/" % self.number)
            after = [*self.history, stamped(batch, len(self.history), self.leader_epoch)]
            try:
                append(self.log, batch, self.leader_epoch)
            except DiskError:
                assert self.log.log_end_offset == len(self.history)
                return
            self.history = after
            self.possible.append(after)

    def fail(self) -> None:
        """The leader's two batches, of which the disk takes one and then no more."""
        batches = [
            stamped(make_batch(value=b"f%d/" % at), len(self.history) + at, self.leader_epoch)
            for at in range(2)
        ]
        self.possible.append(self.history + batches)
        self.disk.fail_next("append")
        with pytest.raises(DiskError):
            self.log.append_as_follower(b"".join(batches))
        self.disk.fail_no_more()

    def truncate(self, offset: int) -> None:
        """With it comes another leader."""
        self.log.truncate_to(offset)
        self.history = self.history[:offset]
        self.promised = self.promised[:offset]
        self.possible.append(self.history)
        self.leader_epoch += 1

    def older(self) -> None:
        """The log that is followed now is of an older leader than the one cut off was."""
        self.leader_epoch = max(self.log.last_batch_epoch, 0)

    def request(self) -> None:
        request = self.log.sync_request()
        if request is not None:
            pending = self.disk.prepare_sync(request.files, request.directories)
            self.in_flight = (request, pending)

    def answer(self) -> None:
        if self.in_flight is not None:
            (request, pending), self.in_flight = self.in_flight, None
            pending.complete()
            if self.log.on_synced(request.generation, request.end_offset):
                self.promised = self.history[: self.log.synced_end]

    def sync(self) -> None:
        self.answer()
        sync_all(self.disk, self.log)
        self.promised = self.history

    def crash(self) -> None:
        self.disk.process_crash()
        self.in_flight = None
        self.log = self.reopened(self.disk)
        assert read_all(self.log) == b"".join(self.history)

    def check_every_power_loss(self) -> int:
        count = 0
        draws = Draws()
        some = drawing(len(self.possible))
        while draws.next() and count < 2 * self.losses_max:
            count += 1
            # If there are too many, the rest are drawn at random.
            draw = draws.draw if count <= self.losses_max else some
            disk = copy.deepcopy(self.disk)
            disk.power_loss(draw)
            log = self.reopened(disk)
            found = read_all(log)
            assert any(b"".join(history).startswith(found) for history in self.possible), (
                "invented: "
                + " ".join(_name(found[at : at + ONE]) for at in range(0, len(found), ONE))
            )
            assert found.startswith(b"".join(self.promised)), "lost"
        return count


def _name(batch: bytes) -> str:
    header = read_header(batch)
    return f"{header.base_offset}:{batch[-5:-2]!r}@{header.leader_epoch}"


STORIES = {
    "append": (2, "append 3; sync; append 3"),
    "a cut, one file after it, and one more": (2, "append 2; truncate 1; append 4; sync; append 1"),
    "a cut to nothing in place, and files after it": (
        1,
        "append 1; sync; append 1; truncate 1; append 3; sync",
    ),
    "files dropped": (1, "append 3; truncate 1; append 3; request; answer; append 3; sync"),
    "files dropped, synced before": (
        1,
        "append 4; sync; truncate 1; older; append 2; request; answer; append 3",
    ),
    "a sync of before the cut comes after it": (
        2,
        "append 3; request; truncate 1; append 3; answer; append 2; request; answer; append 2",
    ),
    "a sync of before the cut proves no cut": (
        1,
        "append 1; request; truncate 0; append 1; answer; append 1; sync; append 2",
    ),
    "a sync of before a failed append proves no cut": (
        2,
        "append 1; request; fail; append 3; answer; append 3; sync; append 2",
    ),
    "cut, and cut again in the new file": (
        3,
        "append 3; truncate 2; append 2; truncate 3; append 2; sync; append 2",
    ),
    "cut, and cut again before it": (
        3,
        "append 3; truncate 2; append 2; truncate 1; append 2; request; answer; append 2",
    ),
    "cut, crash, go on, roll": (
        2,
        "append 2; truncate 1; append 1; crash; append 4; sync; append 2",
    ),
    "cut, crash, go on in the file": (
        3,
        "append 3; sync; truncate 1; older; crash; append 4; request; answer; append 2",
    ),
    "dropped, crash, go on": (1, "append 3; truncate 1; crash; append 3; sync; append 2"),
    "crash, crash": (2, "append 3; crash; append 2; crash; append 1; sync; append 2"),
    "an append that fails": (4, "append 1; sync; fail; append 2; append 4; sync; append 1"),
    "an append that fails, and more than a file": (2, "append 1; fail; append 4; sync; append 1"),
    "a cut that fails to come first": (
        2,
        "append 2; sync; truncate 1; append 2; request; append 2; answer; append 3",
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str) -> None:
    batches_per_segment, text = STORIES[name]
    story = Story(batches_per_segment)
    for verb in text.split("; "):
        story.tell(verb)
        assert story.check_every_power_loss() >= 1


VERBS = [
    "append",
    "append 2",
    "append 3",
    "truncate",
    "truncate",
    "request",
    "answer",
    "crash",
    "fail",
    "sync",
    "older",
]


@pytest.mark.parametrize("block", range(8))
def test_random_stories(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        generator = random.Random(seed)
        story = Story(generator.randint(1, 3), losses_max=30)
        told = []
        for _ in range(9):
            verb = generator.choice(VERBS)
            if verb == "truncate":
                verb = f"truncate {generator.randint(0, len(story.history))}"
            told.append(verb)
            story.tell(verb)
            assert story.check_every_power_loss() >= 1, f"seed {seed}: {'; '.join(told)}"


def test_all_draws_are_made() -> None:
    """Three files of one operation each: a name kept or not, and if kept, content or not."""
    disk = SimDisk()
    for name in ("a", "b", "c"):
        disk.open(name, create=True).append((b"x",))
    seen = []
    draws = Draws()
    while draws.next():
        lost = copy.deepcopy(disk)
        lost.power_loss(draws.draw)
        seen.append(tuple(lost.files().items()))
    assert len(seen) == len(set(seen)) == 3**3
