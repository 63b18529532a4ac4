"""Where one turn of a node gathers its effects, in order.

A message to ourselves never leaves the node: it waits in `local` and is handled in the same turn,
so a combined node talks to its own controller by the same messages as to another's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from broker.events import (
    Answered,
    Body,
    Connection,
    Effect,
    Event,
    Fact,
    Plane,
    Received,
    Reply,
    Send,
)
from broker.ports import Buffer

LOCAL = Connection(Plane.CONTROLLER, b"")
"""The connection of requests that a node sends to itself."""

FREQUENT_FACTS = ("Appended", "HwAdvanced")
EVIDENCE_FACTS = ("Acked", "Applied")


class Outbox:
    """Effects of the current turn.

    `facts` is off (roles, ISR and the like only), acks (with Acked and Applied) or all.
    """

    def __init__(self, node_id: int, facts: str) -> None:
        self.node_id = node_id
        self.facts_on = facts != "off"
        self.frequent_facts_on = facts == "all"
        self.effects: list[Effect] = []
        self.local: deque[Event] = deque()
        self._next_correlation_id = 1

    def reply(
        self,
        connection: Connection,
        correlation_id: int,
        body: Body,
        payload: Sequence[Buffer] = (),
    ) -> None:
        if connection is LOCAL:
            self.local.append(
                Answered(self.node_id, connection.plane, correlation_id, body, payload)
            )
        else:
            self.effects.append(Reply(connection, correlation_id, body, payload))

    def send(self, peer: int, plane: Plane, body: Body) -> int:
        """Send a request; returns the correlation id that its answer will carry."""
        correlation_id = self._next_correlation_id
        self._next_correlation_id += 1
        if peer == self.node_id:
            self.local.append(Received(LOCAL, correlation_id, body))
        else:
            self.effects.append(Send(peer, plane, correlation_id, body))
        return correlation_id

    def add(self, effect: Effect) -> None:
        self.effects.append(effect)

    def fact(self, fact: Fact) -> None:
        if fact.kind in FREQUENT_FACTS:
            wanted = self.frequent_facts_on
        else:
            wanted = self.facts_on or fact.kind not in EVIDENCE_FACTS
        if wanted:
            self.effects.append(fact)

    def take(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects
