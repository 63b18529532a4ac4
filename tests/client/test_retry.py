"""What follows from an attempt, as tables."""

from __future__ import annotations

import pytest

from broker.wire.errors import ERRORS, ErrorCode
from broker.wire.messages import Appended
from client.retry import Action, Attempt, Outcome, backoff_ms, decide, give_up, join, unanswered

E = ErrorCode
NO, MAYBE, YES = Appended.NO, Appended.MAYBE, Appended.YES
RETRIES = 2**31 - 1


def answered(error: ErrorCode, appended: Appended = NO, *, behind: bool = False) -> Attempt:
    return Attempt(1, 0, error, appended, behind)


OK = answered(E.NONE, YES)
REFUSED = answered(E.NOT_ENOUGH_REPLICAS)
LOST = unanswered(1, 0, sent=True)
UNSENT = unanswered(1, 0, sent=False)
AFTER_APPEND = answered(E.NOT_ENOUGH_REPLICAS_AFTER_APPEND, MAYBE)
TIMED_OUT = answered(E.REQUEST_TIMED_OUT, MAYBE)
GAP = answered(E.OUT_OF_ORDER_SEQUENCE_NUMBER)
GAP_BEHIND = answered(E.OUT_OF_ORDER_SEQUENCE_NUMBER, behind=True)
FORGOTTEN = answered(E.UNKNOWN_PRODUCER_ID)
FORGOTTEN_BEHIND = answered(E.UNKNOWN_PRODUCER_ID, behind=True)
TOO_LARGE = answered(E.MESSAGE_TOO_LARGE)

DECISIONS: list[tuple[str, list[Attempt], Action]] = [
    ("success", [OK], Action.DELIVERED),
    ("success after a lost ack", [LOST, OK], Action.DELIVERED),
    ("refused before the append", [REFUSED], Action.REFRESH),
    ("appended, then too few", [AFTER_APPEND], Action.REFRESH),
    ("the broker's deadline", [TIMED_OUT], Action.RETRY),
    ("no answer", [LOST], Action.REFRESH),
    ("never sent", [UNSENT], Action.REFRESH),
    ("corrupt on the way", [answered(E.CORRUPT_MESSAGE)], Action.RETRY),
    ("at a limit", [answered(E.BUSY)], Action.RETRY),
    ("too large", [TOO_LARGE], Action.FAIL_DEFINITE),
    ("too large, but an attempt was lost before", [LOST, TOO_LARGE], Action.FAIL_UNKNOWN),
    ("state lost, first attempt", [FORGOTTEN], Action.FAIL_DEFINITE),
    ("state lost after a refusal", [REFUSED, FORGOTTEN], Action.FAIL_DEFINITE),
    ("state lost after an unknown attempt", [LOST, FORGOTTEN], Action.FAIL_UNKNOWN),
    ("state lost after a time-out", [TIMED_OUT, FORGOTTEN], Action.FAIL_UNKNOWN),
    ("state lost, but never sent before", [UNSENT, FORGOTTEN], Action.FAIL_DEFINITE),
    ("gap, first attempt", [GAP], Action.FAIL_DEFINITE),
    ("gap after an unknown attempt", [LOST, GAP], Action.FAIL_UNKNOWN),
    ("gap behind an unacknowledged batch", [GAP_BEHIND], Action.RETRY),
    ("the same after an unknown attempt", [LOST, GAP_BEHIND], Action.RETRY),
    ("no state behind an unacknowledged first batch", [FORGOTTEN_BEHIND], Action.RETRY),
    ("gap behind, then at the head", [GAP_BEHIND, GAP], Action.FAIL_DEFINITE),
    ("fenced", [answered(E.INVALID_PRODUCER_EPOCH)], Action.FAIL_DEFINITE),
    ("broker failed, fate open", [answered(E.UNKNOWN_SERVER_ERROR, MAYBE)], Action.FAIL_UNKNOWN),
    ("disk failed before", [answered(E.STORAGE_ERROR)], Action.REFRESH),
    ("disk failed, fate open", [answered(E.STORAGE_ERROR, MAYBE)], Action.REFRESH),
]


@pytest.mark.parametrize(
    ("attempts", "action"), [row[1:] for row in DECISIONS], ids=[row[0] for row in DECISIONS]
)
def test_decision(attempts: list[Attempt], action: Action) -> None:
    assert decide(attempts, RETRIES) is action


@pytest.mark.parametrize("error", list(ErrorCode), ids=lambda error: error.name)
def test_the_table_of_errors_decides_for_a_lone_definite_attempt(error: ErrorCode) -> None:
    row = ERRORS[error]
    expected = Action.FAIL_DEFINITE
    if row.retriable:
        expected = Action.REFRESH if row.refresh_metadata else Action.RETRY
    if error is E.NONE:
        expected = Action.DELIVERED
    assert decide([answered(error)], RETRIES) is expected


@pytest.mark.parametrize(
    ("attempts", "action"),
    [
        ([REFUSED], Action.FAIL_DEFINITE),
        ([LOST], Action.FAIL_UNKNOWN),
        ([AFTER_APPEND], Action.FAIL_UNKNOWN),
        ([UNSENT], Action.FAIL_DEFINITE),
        ([OK], Action.DELIVERED),
    ],
)
def test_without_retries_an_attempt_is_the_outcome(attempts: list[Attempt], action: Action) -> None:
    assert decide(attempts, 0) is action


def test_retries_are_counted() -> None:
    assert decide([REFUSED] * 3, 3) is Action.REFRESH
    assert decide([REFUSED] * 4, 3) is Action.FAIL_DEFINITE


JOINS: list[tuple[list[Attempt], Outcome]] = [
    ([], Outcome.DEFINITE),
    ([REFUSED, REFUSED], Outcome.DEFINITE),
    ([UNSENT, REFUSED], Outcome.DEFINITE),
    ([LOST], Outcome.UNKNOWN),
    ([LOST, REFUSED, REFUSED], Outcome.UNKNOWN),
    ([REFUSED, AFTER_APPEND, REFUSED], Outcome.UNKNOWN),
    ([LOST, REFUSED, OK], Outcome.DELIVERED),
    ([answered(E.STORAGE_ERROR, YES)], Outcome.UNKNOWN),
]


@pytest.mark.parametrize(("attempts", "outcome"), JOINS)
def test_one_maybe_makes_unknown_unless_a_later_attempt_succeeds(
    attempts: list[Attempt], outcome: Outcome
) -> None:
    assert join(attempts) is outcome
    assert give_up(attempts).name.endswith(outcome.name)


def test_back_off_doubles_up_to_its_limit_with_jitter_down_to_half() -> None:
    def highest(label: str, low: int, high: int) -> int:
        return high

    def low(label: str, low: int, high: int) -> int:
        return low

    assert [backoff_ms(n, 50, 500, highest) for n in range(1, 7)] == [50, 100, 200, 400, 500, 500]
    assert [backoff_ms(n, 50, 500, low) for n in range(1, 6)] == [25, 50, 100, 200, 250]
    assert backoff_ms(10_000, 50, 500, highest) == 500
