"""A broker's requests to the active controller: who that is, what is outstanding, what timed out.

An answer that does not come leaves the outcome unknown: the connection is replaced, so that nothing
queued on it arrives later, and whoever asked decides whether to ask again.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.events import Body, Connection, Plane, ResetLink
from broker.outbox import Outbox

NO_CONTROLLER = -1


@dataclass(frozen=True, slots=True)
class Call:
    """One outstanding request. `origin` is whom a forwarded request came from."""

    request: Body
    controller_id: int
    deadline_ms: int
    origin: tuple[Connection, int] | None


class ControllerChannel:
    def __init__(self, outbox: Outbox, timeout_ms: int) -> None:
        self.outbox = outbox
        self.timeout_ms = timeout_ms
        self.controller_id = NO_CONTROLLER
        self._calls: dict[int, Call] = {}

    def call(
        self, request: Body, now_ms: int, origin: tuple[Connection, int] | None = None
    ) -> bool:
        """Send a request to the active controller; False when none is known."""
        if self.controller_id == NO_CONTROLLER:
            return False
        correlation_id = self.outbox.send(self.controller_id, Plane.CONTROLLER, request)
        self._calls[correlation_id] = Call(
            request, self.controller_id, now_ms + self.timeout_ms, origin
        )
        return True

    def take(self, correlation_id: int) -> Call | None:
        """The call that an answer belongs to; None if it has timed out before."""
        return self._calls.pop(correlation_id, None)

    def expired(self, now_ms: int) -> list[Call]:
        """Calls whose answer did not come in time. Their connections are replaced."""
        late = {i: call for i, call in self._calls.items() if call.deadline_ms <= now_ms}
        for correlation_id in late:
            del self._calls[correlation_id]
        for controller_id in sorted({call.controller_id for call in late.values()}):
            if controller_id != self.outbox.node_id:
                self.outbox.add(ResetLink(controller_id, Plane.CONTROLLER))
        return list(late.values())

    def next_deadline_ms(self) -> int | None:
        return min((call.deadline_ms for call in self._calls.values()), default=None)
