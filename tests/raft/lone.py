"""One node of a cluster whose other members exist only as the messages a test writes down."""

from __future__ import annotations

from collections.abc import Callable

from raft.messages import PreVoteResponse, RaftMessage, VoteResponse
from raft.node import RaftNode
from raft.ready import Ready
from raft.types import Entry, HardState, RaftConfig, Voter
from tests.raft.messages import said

LOW, HIGH = 500, 1000


class Lone:
    """Node 1 of `voter_count`, with a disk that is fast. `sent` returns its messages and forgets
    them. Its election timeout is always the shortest."""

    def __init__(
        self,
        voter_count: int = 3,
        hard_state: HardState | None = None,
        entries: tuple[Entry, ...] = (),
        draw: Callable[[int, int], int] | None = None,
        **settings: int,
    ) -> None:
        voters = tuple(Voter(node_id, f"d{node_id}") for node_id in range(1, voter_count + 1))
        last_term = entries[-1].term if entries else 0
        self.now_ms = 0
        self.outbox: list[RaftMessage] = []
        self.applied: list[Entry] = []
        self.node = RaftNode(
            RaftConfig(1, "d1", voters, **settings),
            hard_state or HardState(last_term, None),
            entries,
            draw or (lambda low, high: low),
            self.now_ms,
        )

    def take_ready(self) -> Ready:
        ready = self.node.ready()
        assert ready is not None
        return ready

    def work(self) -> None:
        """Everything the node asks for is done at once; its disk is fast."""
        while (ready := self.node.ready()) is not None:
            self.outbox.extend(ready.messages_now + ready.messages_after_durable)
            self.applied.extend(ready.committed)
            self.node.advance(ready)

    def hear(self, *messages: RaftMessage) -> None:
        for message in messages:
            self.node.step(message, self.now_ms)
        self.work()

    def wait(self, duration_ms: int) -> None:
        """Time passes and what is due fires."""
        self.now_ms += duration_ms
        self.node.tick(self.now_ms)
        self.work()

    def sent(self) -> list[RaftMessage]:
        messages, self.outbox = self.outbox, []
        return messages

    def sent_to(self, node_id: int) -> list[RaftMessage]:
        """As `sent`, but only what one node gets is returned; the rest is forgotten too."""
        return [message for message in self.sent() if message.to_id == node_id]

    def become_candidate(self) -> None:
        """Time out and win the pre-vote; the vote requests stay in the outbox."""
        self.wait(HIGH)
        self.sent()
        term = self.node.term
        self.hear(
            *(
                said(PreVoteResponse, node_id, 1, term, asked_term=term)
                for node_id in self.majority_of_others()
            )
        )

    def become_leader(self) -> None:
        """Win an election; nothing stays in the outbox, the probes are on their way."""
        self.become_candidate()
        self.hear(
            *(
                said(VoteResponse, node_id, 1, self.node.term)
                for node_id in self.majority_of_others()
            )
        )
        self.sent()
        assert self.node.is_leader

    def majority_of_others(self) -> range:
        voter_count = len(self.node.config.voters)
        return range(2, 2 + voter_count // 2)
