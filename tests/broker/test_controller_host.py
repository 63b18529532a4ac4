"""The controller in a voter, and the order of a turn: three real nodes, wires held in the hand."""

from __future__ import annotations

from collections import deque

from broker.config import NodeConfig, VoterAddress
from broker.core import Identity, NodeCore
from broker.events import (
    Connection,
    Continue,
    Effect,
    Event,
    Plane,
    Received,
    Reply,
    Resume,
    Send,
    Store,
    Stored,
    Sync,
    Synced,
)
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    DeleteTopicRequest,
    DeleteTopicResponse,
    MetadataFetchRequest,
    MetadataFetchResponse,
)
from chaos.sim.disk import SimDisk

ASKER = Connection(Plane.CONTROLLER, b"asker")
VOTERS = tuple(VoterAddress(n, f"disk{n}", "127.0.0.1", 100 + n) for n in (1, 2, 3))


class Voters:
    """Controllers only. Messages between them arrive in the order in which they left."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.cores: dict[int, NodeCore] = {}
        self.disks = {voter.node_id: SimDisk() for voter in VOTERS}
        self.wires: deque[tuple[int, Event]] = deque()
        self.replies: list[Reply] = []
        self.cut_off: int | None = None
        for voter in VOTERS:
            config = NodeConfig(
                node_id=voter.node_id,
                cluster_id="voters",
                data_dir="voters",
                roles=("controller",),
                controller_port=voter.port,
                voters=VOTERS,
            )
            # The first has the shortest election timeout.
            self.cores[voter.node_id] = NodeCore(
                config,
                Identity("voters", voter.node_id, voter.disk_id),
                self.disks[voter.node_id],
                "first",
                lambda label, low, high, voter=voter: low + 20 * voter.node_id,
                lambda: 0,
            )
            self._carry_out(voter.node_id, self.cores[voter.node_id].start(self.now_ms))
        self.deliver()

    def _carry_out(self, node_id: int, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Sync():
                    self.disks[node_id].sync(effect.files, effect.directories)
                    self.wires.append((node_id, Synced(effect.token)))
                case Store(path, generation, data):
                    self.disks[node_id].store(path, data)
                    self.wires.append((node_id, Stored(path, generation)))
                case Resume(work):
                    self.wires.append((node_id, Continue(work)))
                case Send(peer, plane, correlation_id, body):
                    if self.cut_off not in (node_id, peer):
                        at = Connection(plane, f"n{node_id}".encode())
                        self.wires.append((peer, Received(at, correlation_id, body)))
                case Reply():
                    self.replies.append(effect)

    def deliver(self) -> None:
        while self.wires:
            node_id, event = self.wires.popleft()
            self._carry_out(node_id, self.cores[node_id].handle((event,), self.now_ms))

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds // 10):
            self.now_ms += 10
            for node_id, core in self.cores.items():
                self._carry_out(node_id, core.handle((), self.now_ms))
            self.deliver()

    def leader(self) -> int:
        self.run(2_000)
        leaders = [
            node_id
            for node_id, core in self.cores.items()
            if core.controller is not None and core.controller.is_active
        ]
        assert len(leaders) == 1, leaders
        return leaders[0]

    def ask(self, node_id: int, body: object, correlation_id: int = 7) -> None:
        event = Received(ASKER, correlation_id, body)
        self._carry_out(node_id, self.cores[node_id].handle((event,), self.now_ms))

    def answer(self, correlation_id: int = 7) -> object | None:
        found = [reply.body for reply in self.replies if reply.correlation_id == correlation_id]
        assert len(found) <= 1
        return found[0] if found else None


def registration(incarnation: str = "first") -> BrokerRegistrationRequest:
    return BrokerRegistrationRequest(
        "voters", 8, "disk8", incarnation, "127.0.0.1", 8, clean_shutdown=True, damaged=()
    )


def test_a_request_is_answered_when_its_entry_is_applied_and_not_before() -> None:
    voters = Voters()
    leader = voters.leader()
    voters.ask(leader, registration())
    assert voters.answer() is None, "appended, not committed"
    voters.deliver()
    answer = voters.answer()
    assert isinstance(answer, BrokerRegistrationResponse)
    assert answer.error is ErrorCode.NONE
    assert voters.cores[leader].image.brokers[8].broker_epoch == answer.broker_epoch


def test_requests_in_a_row_are_judged_as_if_the_first_were_committed() -> None:
    voters = Voters()
    leader = voters.leader()
    voters.ask(leader, registration(), 1)
    voters.ask(leader, registration(), 2)
    assert voters.answer(2) is None, "an answer that rests on what is not committed waits too"
    voters.deliver()
    assert voters.answer(1) == voters.answer(2)


def test_on_losing_the_office_who_waits_hears_that_the_outcome_is_unknown() -> None:
    voters = Voters()
    leader = voters.leader()
    voters.cut_off = leader
    voters.ask(leader, DeleteTopicRequest("t", 1_000))
    voters.run(1_000)
    assert voters.answer() is None
    voters.run(2_000)
    answer = voters.answer()
    assert isinstance(answer, DeleteTopicResponse)
    assert (answer.error, answer.maybe_done) == (ErrorCode.NOT_CONTROLLER, True)
    voters.cut_off = None
    voters.ask(voters.leader(), registration(), 9)
    voters.deliver()
    assert isinstance(voters.answer(9), BrokerRegistrationResponse)


def test_who_does_not_lead_says_so_at_once_and_nothing_was_done() -> None:
    voters = Voters()
    leader = voters.leader()
    other = next(n for n in voters.cores if n != leader)
    voters.ask(other, DeleteTopicRequest("t", 1_000))
    answer = voters.answer()
    assert isinstance(answer, DeleteTopicResponse)
    assert (answer.error, answer.maybe_done) == (ErrorCode.NOT_CONTROLLER, False)


def test_brokers_that_fall_silent_are_fenced() -> None:
    voters = Voters()
    leader = voters.leader()
    voters.ask(leader, registration(), 1)
    voters.deliver()
    answer = voters.answer(1)
    assert isinstance(answer, BrokerRegistrationResponse)
    core = voters.cores[leader]
    heartbeat = BrokerHeartbeatRequest(8, answer.broker_epoch, core.image.index, False, ())
    voters.ask(leader, heartbeat, 2)
    voters.deliver()
    assert not core.image.brokers[8].fenced
    voters.run(1_400)
    assert not core.image.brokers[8].fenced
    voters.run(300)
    assert core.image.brokers[8].fenced


def test_what_is_in_the_inbox_wins_against_the_election_timer() -> None:
    """A leader's message that has arrived proves that there is one, however late we read it."""
    voters = Voters()
    leader = voters.leader()
    other = next(n for n in voters.cores if n != leader)
    core = voters.cores[other]
    voters.run(100)
    kept: list[Event] = []
    voters.now_ms += 100
    voters._carry_out(leader, voters.cores[leader].handle((), voters.now_ms))
    while voters.wires:
        node_id, event = voters.wires.popleft()
        if node_id == other:
            kept.append(event)
    assert kept, "the leader's heartbeat"
    effects = core.handle(kept, voters.now_ms + 5_000)
    assert core.driver is not None
    assert core.driver.node is not None
    assert core.driver.node.leader_id == leader
    assert len([e for e in effects if isinstance(e, Send)]) == len(kept), "answers, no campaign"


def test_a_voter_whose_log_is_not_on_disk_sends_observers_to_another() -> None:
    voters = Voters()
    core = NodeCore(
        voters.cores[1].config,
        Identity("voters", 1, "disk1"),
        SimDisk(),
        "second",
        lambda label, low, high: low,
        lambda: 0,
    )
    core.start(0)
    request = MetadataFetchRequest("voters", 8, 1, 500, 1_000, 0, 0)
    effects = core.handle((Received(ASKER, 7, request),), 0)
    (reply,) = [effect for effect in effects if isinstance(effect, Reply)]
    assert isinstance(reply.body, MetadataFetchResponse)
    assert reply.body.error is ErrorCode.BUSY
    assert core.next_deadline_ms() > 10_000, "nobody waits for a turn"


def test_an_observer_waits_for_news_and_gets_each_entry_once() -> None:
    voters = Voters()
    leader = voters.leader()
    index = voters.cores[leader].image.index
    voters.ask(leader, MetadataFetchRequest("voters", 8, index + 1, 60_000, 1_000, 0, 0), 1)
    assert voters.answer(1) is None
    voters.ask(leader, registration(), 2)
    voters.deliver()
    answer = voters.answer(1)
    assert isinstance(answer, MetadataFetchResponse)
    assert [entry.index for entry in answer.entries] == [index + 1]
    voters.ask(leader, MetadataFetchRequest("elsewhere", 8, 1, 0, 1_000, 0, 0), 3)
    refused = voters.answer(3)
    assert isinstance(refused, MetadataFetchResponse)
    assert refused.error is ErrorCode.INCONSISTENT_CLUSTER_ID
