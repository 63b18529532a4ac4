"""What became of each line that `prozess produce` sent: counts, offsets, and the first that failed.

Lines are followed by ranges, not one by one: neighbours in one batch share its outcome. What is
settled is forgotten, so memory is bounded by what is under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from client.delivery import BatchDelivered, ProducerBatch, RangeHandle, RecordHandle, make_handle
from client.errors import ClientTimeout
from client.retry import SendFailed


@dataclass(slots=True)
class _Run:
    """Lines that are consecutive records of one batch, and the first of them."""

    batch: ProducerBatch
    first_index: int
    count: int
    first_line: int


@dataclass(slots=True)
class Failures:
    """Records of one fate, and the first of them."""

    count: int = 0
    first_line: int = 0
    reason: str = ""

    def add(self, first_line: int, count: int, reason: str) -> None:
        if not self.count or first_line < self.first_line:
            self.first_line = first_line
            self.reason = reason
        self.count += count


@dataclass(slots=True)
class Span:
    """Offsets that one partition gave us. Others may have written between them."""

    count: int
    first_offset: int
    last_offset: int


@dataclass(slots=True)
class DeliveryReport:
    """Lines are numbered from 1, in the order in which they are added."""

    sent_count: int = 0
    delivered_count: int = 0
    failed: Failures = field(default_factory=Failures)
    """Certainly not in the log."""
    unknown: Failures = field(default_factory=Failures)
    """May be in the log."""
    spans: dict[int, Span] = field(default_factory=dict)
    """By partition."""
    _pending: deque[_Run] = field(default_factory=deque)

    @property
    def pending_runs(self) -> int:
        return len(self._pending)

    @property
    def has_losses(self) -> bool:
        return bool(self.failed.count or self.unknown.count)

    def add_range(self, handle: RangeHandle) -> None:
        for batch, first_index, count, _ in handle.ranges:
            self._add(batch, first_index, count)

    def add(self, handle: RecordHandle) -> None:
        self._add(handle[0], handle[1], 1)

    def add_refused(self, reason: str) -> None:
        """A line that the client did not accept."""
        self.sent_count += 1
        self.failed.add(self.sent_count, 1, reason)

    def _add(self, batch: ProducerBatch, first_index: int, count: int) -> None:
        first_line = self.sent_count + 1
        self.sent_count += count
        if self._pending:
            last = self._pending[-1]
            if last.batch is batch and last.first_index + last.count == first_index:
                last.count += count
                return
        self._pending.append(_Run(batch, first_index, count, first_line))

    def settle(self) -> None:
        """Take the outcomes of lines that are done, up to the first that is not."""
        while self._pending and self._pending[0].batch.outcome is not None:
            self._take(self._pending.popleft())

    def wait_for_oldest(self, timeout_s: float) -> None:
        """Until the oldest line that is under way is done, or the time is over."""
        run = self._pending[0]
        handle = make_handle((run.batch, run.first_index, 0))
        try:
            handle.result(timeout_s)
        except (SendFailed, ClientTimeout):
            return  # `settle` and `give_up` look at the outcome

    def give_up(self, reason: str) -> None:
        """Nothing more is awaited: what has no outcome now is unknown."""
        for run in self._pending:
            if run.batch.outcome is not None:
                self._take(run)
            else:
                self.unknown.add(run.first_line, run.count, reason)
        self._pending.clear()

    def _take(self, run: _Run) -> None:
        outcome = run.batch.outcome
        if isinstance(outcome, SendFailed):
            failures = self.failed if outcome.definite else self.unknown
            failures.add(run.first_line, run.count, str(outcome))
            return
        assert isinstance(outcome, BatchDelivered), "a settled batch has its outcome"
        self.delivered_count += run.count
        if outcome.base_offset >= 0:
            first = outcome.base_offset + run.first_index
            self._note_offsets(run.batch.partition, first, run.count)

    def _note_offsets(self, partition: int, first_offset: int, count: int) -> None:
        last_offset = first_offset + count - 1
        span = self.spans.get(partition)
        if span is None:
            self.spans[partition] = Span(count, first_offset, last_offset)
            return
        span.count += count
        span.first_offset = min(span.first_offset, first_offset)
        span.last_offset = max(span.last_offset, last_offset)

    # --- telling ----------------------------------------------------------------------------------

    def lines(self, topic: str) -> Iterator[str]:
        """The summary in words."""
        yield f"{_records(self.delivered_count)} delivered to {topic}" + self._where()
        for what, failures in (
            ("failed and are not in the log", self.failed),
            ("may or may not be in the log", self.unknown),
        ):
            if failures.count:
                yield (
                    f"{_records(failures.count)} {what}, the first from line "
                    f"{failures.first_line}: {failures.reason}"
                )

    def _where(self) -> str:
        shown = [
            f"partition {partition} {span.first_offset}-{span.last_offset}"
            for partition, span in sorted(self.spans.items())
        ]
        more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        return f": offsets of {', '.join(shown[:6])}{more}" if shown else ""

    def to_json(self, topic: str) -> dict[str, Any]:
        return {
            "topic": topic,
            "sent": self.sent_count,
            "delivered": self.delivered_count,
            "failed": _failures_json(self.failed),
            "unknown": _failures_json(self.unknown),
            "partitions": [
                {
                    "partition": partition,
                    "count": span.count,
                    "first_offset": span.first_offset,
                    "last_offset": span.last_offset,
                }
                for partition, span in sorted(self.spans.items())
            ],
        }


def _records(count: int) -> str:
    return f"{count} record{'s' if count != 1 else ''}"


def _failures_json(failures: Failures) -> dict[str, Any]:
    if not failures.count:
        return {"count": 0}
    return {
        "count": failures.count,
        "first_line": failures.first_line,
        "reason": failures.reason,
    }
