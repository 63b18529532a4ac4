"""A log against the plainest model of it, a list of batches, under random use and crashes."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.log.producer_state import ProducerStateTable
from broker.ports import DiskError
from broker.wire.batch_header import read_header
from chaos.sim.disk import SimDisk
from tests.log.logs import (
    KEY,
    append,
    checkpoint,
    drawing,
    headers_of,
    keep_nothing,
    make_batch,
    read_all,
    recovered,
    stamped,
    sync_all,
)


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk()
        self.manager = recovered(self.disk)
        self.log = self.manager.create("t", *KEY, "ack", 600)
        self.batches: list[bytes] = []
        """As written: with offsets and leader epoch."""
        self.synced_end = 0
        self.high_watermark = 0
        self.leader_epoch = 0
        self.sequences: dict[int, int] = {}
        self.number = 0

    @property
    def end(self) -> int:
        return read_header(self.batches[-1]).next_offset if self.batches else 0

    def client_batch(self, count: int, size_bytes: int, producer_id: int) -> bytes:
        self.number += 1
        value = b"%d/" % self.number + b"x" * size_bytes
        if producer_id < 0:
            return make_batch(count, value=value)
        sequence = self.sequences.get(producer_id, 0)
        self.sequences[producer_id] = sequence + count
        return make_batch(count, value=value, producer=(producer_id, 0, sequence))

    @rule(
        count=st.integers(1, 3),
        size_bytes=st.sampled_from([0, 30, 400]),
        producer_id=st.integers(-1, 2),
        new_epoch=st.booleans(),
    )
    def append_as_leader(
        self, count: int, size_bytes: int, producer_id: int, new_epoch: bool
    ) -> None:
        self.leader_epoch += new_epoch
        batch = self.client_batch(count, size_bytes, producer_id)
        assert self.retried(lambda: append(self.log, batch, self.leader_epoch)) == self.end
        self.batches.append(stamped(batch, self.end, self.leader_epoch))

    @rule(
        counts=st.lists(st.integers(1, 3), min_size=1, max_size=4), producer_id=st.integers(-1, 2)
    )
    def append_as_follower(self, counts: list[int], producer_id: int) -> None:
        offset, fetched = self.end, []
        for count in counts:
            batch = self.client_batch(count, 20, producer_id)
            fetched.append(stamped(batch, offset, self.leader_epoch))
            offset += count
        data = b"".join(fetched)
        assert self.retried(lambda: self.log.append_as_follower(data)) == offset
        self.batches += fetched

    @rule()
    def append_in_vain(self) -> None:
        self.disk.fail_next("append")
        with pytest.raises(DiskError):
            append(self.log, make_batch(), self.leader_epoch)
        self.disk.fail_no_more()

    def retried(self, attempt: Callable[[], int]) -> int:
        """What it returns, if need be after a sync: a cut may have to be on disk first."""
        try:
            return attempt()
        except DiskError as error:
            if error.errno != errno.EAGAIN or not error.unchanged:
                raise
        self.sync()
        return attempt()

    @rule()
    def sync(self) -> None:
        sync_all(self.disk, self.log)
        self.synced_end = self.end

    @rule(share=st.integers(0, 100))
    def commit(self, share: int) -> None:
        """The high watermark moves to a batch boundary that is on disk."""
        ends = [read_header(batch).next_offset for batch in self.batches]
        ends = [end for end in ends if self.high_watermark <= end <= self.synced_end]
        if ends:
            self.high_watermark = ends[share * (len(ends) - 1) // 100]

    @rule()
    def checkpoint(self) -> None:
        checkpoint(self.disk, self.manager, {KEY: self.high_watermark})

    @rule(share=st.integers(0, 100))
    def truncate(self, share: int) -> None:
        offset = self.high_watermark + (self.end - self.high_watermark) * share // 100
        self.log.truncate_to(offset)
        self.batches = [batch for batch in self.batches if read_header(batch).next_offset <= offset]
        self.synced_end = min(self.synced_end, self.end)

    @rule()
    def process_crash(self) -> None:
        self.disk.process_crash()
        self.reopen()
        assert read_all(self.log) == b"".join(self.batches)

    @rule(seed=st.integers(0, 10_000))
    def power_loss(self, seed: int) -> None:
        """Whatever survives, here only what was synced is relied upon: the rest is dropped."""
        self.disk.power_loss(keep_nothing if seed % 3 == 0 else drawing(seed))
        self.reopen()
        assert self.log.log_end_offset >= self.synced_end
        sync_all(self.disk, self.log)
        self.log.truncate_to(self.synced_end)
        self.batches = [
            batch for batch in self.batches if read_header(batch).next_offset <= self.synced_end
        ]
        sync_all(self.disk, self.log)

    def reopen(self) -> None:
        self.manager = recovered(self.disk)
        assert self.manager.damages == ()
        self.log = self.manager.create("t", *KEY, "ack", 600)
        self.leader_epoch = max(self.leader_epoch, self.log.last_batch_epoch)

    # --- the model ------------------------------------------------------------------------------

    @invariant()
    def same_bytes(self) -> None:
        assert self.log.log_end_offset == self.end
        assert read_all(self.log) == b"".join(self.batches)
        assert self.log.size_between(0, self.end) == sum(map(len, self.batches))

    @invariant()
    def same_epochs(self) -> None:
        expected: list[tuple[int, int]] = []
        for batch in self.batches:
            header = read_header(batch)
            if not expected or expected[-1][0] != header.leader_epoch:
                expected.append((header.leader_epoch, header.base_offset))
        assert list(self.log.epochs.entries()) == expected
        assert self.log.last_batch_epoch == (expected[-1][0] if expected else -1)

    @invariant()
    def same_producers(self) -> None:
        table = ProducerStateTable()
        for batch in self.batches:
            header = read_header(batch)
            table.note(header, header.base_offset)
        assert self.log.producers.entries() == table.entries()

    @invariant()
    def ends_in_order(self) -> None:
        log = self.log
        assert log.log_start_offset <= log.recovery_point <= log.synced_end <= log.log_end_offset
        assert log.synced_end <= self.synced_end or log.synced_end == self.end

    @rule(
        share=st.integers(0, 100),
        max_bytes=st.sampled_from([1, 90, 250, 10_000]),
        end_share=st.integers(0, 100),
    )
    def read(self, share: int, max_bytes: int, end_share: int) -> None:
        offset, end = self.end * share // 100, self.end * end_share // 100
        data = self.log.read(offset, max_bytes, end)
        below = [
            batch
            for batch in self.batches
            if read_header(batch).next_offset > offset and read_header(batch).next_offset <= end
        ]
        assert b"".join(below).startswith(data)
        assert bool(data) == bool(below)
        assert len(data) <= max_bytes or len(headers_of(data)) == 1


LogMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
test_a_log_is_a_list_of_batches = LogMachine.TestCase
