"""What to do after an attempt, and what a record's attempts say together. Pure.

A code alone never makes an attempt definite; the `appended` bit of the answer does, and no answer
at all means maybe. The outcome of a record is the join of its attempts: a single maybe makes it
unknown for ever, unless a later attempt of the same (producer id, producer epoch, sequence)
succeeds: then the broker has found the first copy, or written the only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from broker.wire.errors import ERRORS, ErrorCode
from broker.wire.messages import Appended
from client.errors import ClientError
from client.events import Draw

GAP_ERRORS = frozenset({ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.UNKNOWN_PRODUCER_ID})
"""What a broker answers to a batch whose predecessor it has not got."""


class Attempt(NamedTuple):
    """One try to send a batch, and how it ended."""

    node_id: int
    leader_epoch: int
    """The answering leader's epoch if it took the batch; else the one believed in when sending."""
    error: ErrorCode | None
    """None: no answer (time-out, broken connection), or never handed to the network."""
    appended: Appended
    behind: bool = False
    """An earlier batch of the partition was not yet acknowledged when this one was sent."""


def unanswered(node_id: int, leader_epoch: int, *, sent: bool, behind: bool = False) -> Attempt:
    """An attempt without an answer: maybe, if bytes may have left (`sent`)."""
    appended = Appended.MAYBE if sent else Appended.NO
    return Attempt(node_id, leader_epoch, None, appended, behind)


class Outcome(Enum):
    """The join of a record's attempts."""

    DELIVERED = "delivered"
    DEFINITE = "not in the log"
    UNKNOWN = "may be in the log"


class Action(Enum):
    DELIVERED = "delivered"
    RETRY = "try again after the back-off"
    REFRESH = "refresh the metadata and try again"
    FAIL_DEFINITE = "failed, certainly not in the log"
    FAIL_UNKNOWN = "failed, may be in the log"


class Delivered(NamedTuple):
    """Where a record stands. With acks=0 the offset is -1: nobody was asked."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int
    timestamp_ms: int


class SendFailed(ClientError):
    """A record was given up. `definite`: it is certainly not in the log and never will be.

    `code` is the last attempt's, or REQUEST_TIMED_OUT where time ran out without an answer.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        definite: bool,
        code: ErrorCode,
        attempts: Sequence[Attempt],
        detail: str = "",
    ) -> None:
        fate = "it is not in the log" if definite else "it may be in the log"
        super().__init__(
            f"{topic}-{partition}: {code.name}: {detail or ERRORS[code].meaning}; "
            f"{fate} ({len(attempts)} attempt{'s' if len(attempts) != 1 else ''})"
        )
        self.topic = topic
        self.partition = partition
        self.definite = definite
        self.code = code
        self.attempts = tuple(attempts)
        self.detail = detail

    def copy(self) -> SendFailed:
        """The same to be raised anew: one batch's failure is raised for each of its records."""
        return SendFailed(
            self.topic, self.partition, self.definite, self.code, self.attempts, self.detail
        )


def join(attempts: Sequence[Attempt]) -> Outcome:
    """What all attempts of one record say together. No attempt at all: definite."""
    if any(attempt.error is ErrorCode.NONE for attempt in attempts):
        return Outcome.DELIVERED
    if any(attempt.appended is not Appended.NO for attempt in attempts):
        return Outcome.UNKNOWN
    return Outcome.DEFINITE


def decide(attempts: Sequence[Attempt], retries: int) -> Action:
    """What to do after the last of `attempts` (at least one); at most `retries` more tries.

    A gap error is fatal only for the first unacknowledged batch of a partition: one sent behind
    others found a gap because its predecessor was refused or lost, and follows it again.
    """
    last = attempts[-1]
    if last.error is ErrorCode.NONE:
        return Action.DELIVERED
    if len(attempts) <= retries:
        if last.error is None:
            return Action.REFRESH
        if last.error in GAP_ERRORS and last.behind and last.appended is Appended.NO:
            return Action.RETRY
        row = ERRORS[last.error]
        if row.retriable:
            return Action.REFRESH if row.refresh_metadata else Action.RETRY
    return give_up(attempts)


def give_up(attempts: Sequence[Attempt]) -> Action:
    """How a record ends that is not tried again."""
    match join(attempts):
        case Outcome.DELIVERED:
            return Action.DELIVERED
        case Outcome.UNKNOWN:
            return Action.FAIL_UNKNOWN
        case Outcome.DEFINITE:
            return Action.FAIL_DEFINITE


def backoff_ms(failures: int, backoff_min_ms: int, backoff_max_ms: int, draw: Draw) -> int:
    """How long to wait after `failures` (from 1) in a row: doubled each time, minus up to half.

    Without the jitter all clients of a failed broker would come back at the same moment.
    """
    ceiling_ms = min(backoff_max_ms, backoff_min_ms << min(failures - 1, 16))
    return draw("backoff", (ceiling_ms + 1) // 2, ceiling_ms)
