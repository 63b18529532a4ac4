"""The simulated network: links with delay, cuts and silent loss; frames through the real codec.

A link is an ordered pair of names (nodes "n1", clients "c0"). On one link what arrives arrives in
order, as on TCP; what a cut or a reset swallows is gone without a word. With `duplicate_percent`
some requests between nodes arrive a second time, much later: messages of dead processes and of
connections long replaced, more than TCP would ever do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from broker.wire import frames
from chaos.sim.choices import Choices
from chaos.sim.clock import SimClock

Deliver = Callable[[frames.Message], None]


@dataclass(slots=True)
class SimNetwork:
    clock: SimClock
    choices: Choices
    cut: dict[tuple[str, str], bool] = field(default_factory=dict)
    loss_percent: int = 0
    delay_ms_max: int = 3
    duplicate_percent: int = 0
    late_ms_max: int = 4_000
    delivered: int = 0
    lost: int = 0
    _last_arrival_ms: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def set_cut(self, source: str, target: str, is_cut: bool) -> None:
        """Cut one direction of a link; the other is its own."""
        if is_cut:
            self.cut[source, target] = True
        else:
            self.cut.pop((source, target), None)

    def heal(self) -> None:
        self.cut.clear()
        self.loss_percent = 0

    def send(
        self,
        source: str,
        target: str,
        channel: str,
        kind: frames.Kind,
        correlation_id: int,
        body: object,
        payload: Sequence[bytes | bytearray | memoryview],
        deliver: Deliver,
    ) -> None:
        """Carry a message; `deliver` is called when it arrives, if it does."""
        if (source, target) in self.cut or (
            self.loss_percent and self.choices.chance("loss", self.loss_percent)
        ):
            self.lost += 1
            return
        parts = [bytes(part) for part in frames.encode(kind, correlation_id, body, payload)]
        key = (source, target, channel)
        arrival_ms = self.clock.now_ms + self.choices.draw("delay", 0, self.delay_ms_max)
        arrival_ms = max(arrival_ms, self._last_arrival_ms.get(key, 0))
        self._last_arrival_ms[key] = arrival_ms

        def arrive() -> None:
            if (source, target) in self.cut:
                self.lost += 1
                return
            self.delivered += 1
            deliver(frames.decode(parts))

        self.clock.at(arrival_ms, arrive)
        between_nodes = kind is not frames.Kind.RESPONSE and source[0] == "n"
        percent = self.duplicate_percent if between_nodes else 0
        if percent and self.choices.chance("duplicate", percent):
            self.clock.at(arrival_ms + self.choices.draw("late", 1, self.late_ms_max), arrive)
