"""Rounds that build on each other: only what changed is said, and nothing is believed to have
arrived that may not have."""

from __future__ import annotations

from broker.events import Connection, Plane, Received
from broker.handlers.fetch_sessions import FetchSessions
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    FetchPart,
    FetchRequest,
    FetchResponse,
    FetchSessionPart,
    Isolation,
    ReplicaName,
)
from tests.replica.stage import TOPIC, Stage, batch

FOLLOWER = Connection(Plane.BROKER, b"follower")


class Follower:
    """Replica 2 of partitions that node 1 leads; asks in sessions as the test says."""

    def __init__(self, partitions: int = 3) -> None:
        self.stage = Stage()
        self.stage.start()
        self.stage.create_topic(leader=1, replicas=(1, 2), min_isr=1, partitions=partitions)
        self.round = 0
        self.session_id = self.epoch = 0
        self.echo = -1

    def part(self, partition: int, offset: int, leader_epoch: int = 0) -> FetchPart:
        last_epoch = leader_epoch if offset else -1
        return FetchPart(TOPIC, partition, leader_epoch, last_epoch, offset, offset, 0, 1_000_000)

    def ask(
        self,
        *parts: FetchPart,
        begins: bool = False,
        forgets: tuple[int, ...] = (),
        wait_ms: int = 0,
        epoch: int | None = None,
    ) -> int:
        self.round += 1
        self.epoch = 0 if begins else self.epoch + 1
        if begins:
            self.session_id = self.round
        request = FetchRequest(
            2,
            self.stage.epochs[2],
            self.round,
            self.echo,
            wait_ms,
            1,
            1_000_000,
            Isolation.READ_UNCOMMITTED,
            parts,
            FetchSessionPart(
                self.session_id,
                self.epoch if epoch is None else epoch,
                tuple(ReplicaName(TOPIC, number) for number in forgets),
            ),
        )
        correlation_id = self.stage.next_correlation_id()
        self.stage.handle(Received(FOLLOWER, correlation_id, request))
        return correlation_id

    def answer(self, correlation_id: int, *, arrives: bool = True) -> FetchResponse | None:
        replies = self.stage.replies(correlation_id)
        if not replies:
            return None
        (reply,) = replies
        assert isinstance(reply.body, FetchResponse)
        if arrives:
            self.echo = reply.body.counter
        return reply.body

    def told(self, correlation_id: int, *, arrives: bool = True) -> list[tuple[int, bool]]:
        """(partition, has bytes) of what the answer speaks of."""
        answer = self.answer(correlation_id, arrives=arrives)
        assert answer is not None
        assert not answer.session_lost
        return [(part.partition, part.has_batches) for part in answer.parts]

    def begin(self) -> None:
        parts = [self.part(number, 0) for number in range(3)]
        assert self.told(self.ask(*parts, begins=True)) == [(0, False), (1, False), (2, False)]
        assert self.told(self.ask()) == [], "all marks have arrived"


def test_only_what_is_new_is_told() -> None:
    follower = Follower()
    follower.begin()
    follower.stage.produce("a", partition=1)
    assert follower.told(follower.ask()) == [(1, True)]
    assert follower.told(follower.ask(follower.part(1, 1))) == [(1, False)], "the watermark"
    assert follower.told(follower.ask()) == []


def test_a_round_that_waits_is_answered_by_what_happens_to_any_of_them() -> None:
    follower = Follower()
    follower.begin()
    waiting = follower.ask(wait_ms=500)
    assert follower.answer(waiting) is None
    follower.stage.produce("a", partition=2)
    assert follower.told(waiting) == [(2, True)]


def test_what_may_not_have_arrived_is_told_again() -> None:
    """The answer is lost, or a newer round has overtaken it: the newer one does not list it."""
    follower = Follower()
    follower.begin()
    follower.stage.produce("a", partition=1)
    assert follower.told(follower.ask(), arrives=False) == [(1, True)]
    assert follower.told(follower.ask()) == [(1, True)]


def test_a_watermark_that_may_not_have_arrived_is_told_again() -> None:
    follower = Follower()
    follower.begin()
    follower.stage.produce("a", partition=1)
    follower.told(follower.ask())
    assert follower.told(follower.ask(follower.part(1, 1)), arrives=False) == [(1, False)]
    assert follower.told(follower.ask()) == [(1, False)]
    assert follower.told(follower.ask()) == []


def test_the_ends_of_what_is_not_listed_still_count() -> None:
    follower = Follower()
    follower.begin()
    follower.stage.produce("a", partition=0)
    follower.stage.sync()
    assert follower.stage.partition(0).high_watermark == 0
    follower.ask(follower.part(0, 1))
    assert follower.stage.partition(0).high_watermark == 1
    follower.ask()
    assert follower.stage.partition(0).progress[2].counted_end == 1


def test_a_listing_that_came_too_early_counts_when_it_is_good() -> None:
    """The leader hears of the epoch later than its follower does."""
    follower = Follower()
    stage = follower.stage
    stage.produce("a", partition=0)
    stage.sync()
    early = follower.ask(follower.part(0, 1, leader_epoch=1), begins=True)
    answer = follower.answer(early, arrives=False)
    assert answer is not None
    assert answer.parts[0].error is ErrorCode.UNKNOWN_LEADER_EPOCH
    waiting = follower.ask(wait_ms=500)
    assert follower.answer(waiting) is not None, "it is told again"
    stage.metadata(stage.changed(leader=2))
    stage.metadata(stage.changed(leader=1))
    follower.ask(follower.part(0, 1, leader_epoch=2))
    stage.handle()
    assert stage.partition(0).progress[2].counted_end == 1


def test_what_is_forgotten_is_told_no_more() -> None:
    follower = Follower()
    follower.begin()
    follower.ask(forgets=(1,))
    follower.stage.produce("a", partition=1)
    follower.stage.produce("a", partition=2)
    assert follower.told(follower.ask()) == [(2, True)]


def test_a_round_that_does_not_follow_the_last_ends_the_session() -> None:
    follower = Follower()
    follower.begin()
    lost = follower.answer(follower.ask(epoch=7))
    assert lost is not None
    assert lost.session_lost
    again = follower.ask(follower.part(0, 0), begins=True)
    assert follower.told(again) == [(0, False)]


def test_an_old_round_that_comes_late_changes_nothing() -> None:
    sessions = FetchSessions()

    def request(fetch_round: int, epoch: int, session_id: int = 1, life: int = 5) -> FetchRequest:
        return FetchRequest(
            2,
            life,
            fetch_round,
            -1,
            0,
            1,
            1,
            Isolation.READ_UNCOMMITTED,
            (),
            FetchSessionPart(session_id, epoch, ()),
        )

    begun = sessions.take(request(1, 0))
    assert begun is not None
    assert sessions.take(request(2, 1)) is begun
    assert sessions.take(request(1, 0)) is None, "its beginning, once more"
    assert sessions.take(request(2, 1)) is None
    assert sessions.take(request(3, 2)) is begun
    assert sessions.take(request(9, 0, 9)) is not begun
    assert sessions.take(request(4, 3)) is None, "of a session that is over"
    assert sessions.take(request(1, 0, life=6)) is not None, "a new life"
    assert sessions.take(request(10, 1, 9)) is None, "of a dead process"


# --- the follower's side --------------------------------------------------------------------------


def following(sessions_from: int = 2) -> Stage:
    stage = Stage(settings={"replica_fetch_session_partitions": sessions_from})
    stage.start()
    stage.create_topic(leader=2, partitions=3)
    stage.sync()
    stage.release_round(2)
    return stage


def listed(stage: Stage) -> list[tuple[int, int]]:
    return [(part.partition, part.fetch_offset) for part in stage.last_round[1].parts]


def test_a_follower_of_many_lists_each_once() -> None:
    stage = following()
    assert listed(stage) == []
    data = batch("a", leader_epoch=0)
    stage.handle(stage.answer_event(data, end=1))
    stage.sync()
    assert listed(stage) == [(0, 1)]
    session = stage.last_round[1].session
    assert session is not None
    assert (session.session_id, session.forgotten) == (1, ())


def test_a_follower_of_few_lists_all() -> None:
    stage = following(sessions_from=4)
    assert listed(stage) == [(0, 0), (1, 0), (2, 0)]
    assert stage.last_round[1].session is None


def test_who_backs_off_is_forgotten_and_listed_again() -> None:
    stage = following()
    stage.handle(stage.answer_event(error=ErrorCode.NOT_LEADER_OR_FOLLOWER))
    session = stage.last_round[1].session
    assert session is not None
    assert session.forgotten == (ReplicaName(TOPIC, 0),)
    stage.release_round(2)
    stage.later(stage.config.replica_fetch_backoff_ms)
    stage.release_round(2)
    assert (0, 0) in [row for send in stage.sent(FetchRequest)[-3:] for row in rows(send.body)]


def rows(body: object) -> list[tuple[int, int]]:
    assert isinstance(body, FetchRequest)
    return [(part.partition, part.fetch_offset) for part in body.parts]


def test_a_session_that_the_leader_has_lost_begins_anew() -> None:
    stage = following()
    correlation_id, request = stage.last_round
    lost = FetchResponse(request.fetch_round, 9, (), session_lost=True)
    stage.handle(stage.answer_of(2, correlation_id, lost))
    session = stage.last_round[1].session
    assert session is not None
    assert session.epoch == 0
    assert len(listed(stage)) == 3


def test_a_round_without_an_answer_ends_the_session() -> None:
    stage = following()
    stage.later(stage.config.replica_fetch_timeout_ms)
    session = stage.last_round[1].session
    assert session is not None
    assert session.epoch == 0
    assert len(listed(stage)) == 3


def test_a_watermark_told_before_the_sync_is_known_after_it() -> None:
    """In a session it is not told again."""
    stage = following()
    stage.handle(stage.answer_event(batch("a", leader_epoch=0), end=1, high_watermark=1))
    assert stage.ends == (1, 0, 0)
    stage.sync()
    assert stage.ends == (1, 1, 1)
