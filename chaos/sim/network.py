"""The simulated network: links with delay, and rules that break them; frames go through the codec.

A link is an ordered pair of names (nodes "n1", clients "c0"). What travels on one connection comes
in order, as on TCP; what a cut or a reset swallows is gone without a word. Rules say what befalls
which messages, by link, direction and message type, on top of that: loss, delay, being held back,
duplicates that arrive much later (messages of dead processes and of connections long replaced), and
arrival out of order, which is more than TCP would ever do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from broker.wire import frames
from chaos.sim.choices import Choices
from chaos.sim.clock import SimClock

Deliver = Callable[[frames.Message], None]
ANY = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What befalls the messages that match: names of ends and of the body's type; "" is any."""

    source: str = ANY
    target: str = ANY
    message: str = ANY
    drop_percent: int = 0
    delay_ms_max: int = 0
    hold: bool = False
    """Kept back until the rule is lifted, and with them what follows on their connection."""
    duplicate_percent: int = 0
    reorder: bool = False
    """May overtake one another; between nodes only, clients have one connection."""

    def matches(self, source: str, target: str, message: str) -> bool:
        return (
            self.source in (ANY, source)
            and self.target in (ANY, target)
            and self.message in (ANY, message)
        )


@dataclass(slots=True)
class SimNetwork:
    clock: SimClock
    choices: Choices
    delay_ms_max: int = 3
    late_ms_max: int = 4_000
    _cuts: dict[tuple[str, str], int] = field(default_factory=dict)
    _rules: dict[int, Rule] = field(default_factory=dict)
    _rule_count: int = 0
    _held: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    _last_arrival_ms: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _waiting: dict[tuple[str, str, str], list[Callable[[], None]]] = field(default_factory=dict)
    """Connections of which a message is held, and all that was sent after it."""

    # -- what breaks it --------------------------------------------------------------------------

    def set_cut(self, source: str, target: str, is_cut: bool) -> None:
        """Cut one direction of a link, or take one such cut back."""
        count = self._cuts.get((source, target), 0) + (1 if is_cut else -1)
        if count > 0:
            self._cuts[source, target] = count
        else:
            self._cuts.pop((source, target), None)

    def add_rule(self, rule: Rule) -> int:
        self._rule_count += 1
        self._rules[self._rule_count] = rule
        return self._rule_count

    def lift_rule(self, number: int) -> None:
        """End a rule; what it held back arrives now, in order."""
        self._rules.pop(number, None)
        for release in self._held.pop(number, ()):
            release()

    def heal(self) -> None:
        self._cuts.clear()
        for number in list(self._rules):
            self.lift_rule(number)

    # -- messages --------------------------------------------------------------------------------

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
        if (source, target) in self._cuts:
            return
        rules = self._matching(source, target, body) if self._rules else []
        choices = self.choices
        for _, rule in rules:
            if rule.drop_percent and choices.chance("network: drop", rule.drop_percent):
                return
        parts = [bytes(part) for part in frames.encode(kind, correlation_id, body, payload)]
        key = (source, target, channel)

        def arrive() -> None:
            if (source, target) in self._cuts:
                return
            deliver(frames.decode(parts))

        if key in self._waiting:
            self._waiting[key].append(arrive)
            return
        delay_ms = choices.draw("network: delay", 0, self.delay_ms_max)
        in_order = True
        for number, rule in rules:
            if rule.hold:
                self._hold(number, key, arrive)
                return
            if rule.delay_ms_max:
                delay_ms += choices.draw("network: slow", 0, rule.delay_ms_max)
            in_order = in_order and not rule.reorder
        arrival_ms = self.clock.now_ms + delay_ms
        if in_order:
            arrival_ms = max(arrival_ms, self._last_arrival_ms.get(key, 0))
            self._last_arrival_ms[key] = arrival_ms
        self.clock.at(arrival_ms, arrive)
        if kind is frames.Kind.RESPONSE:
            return
        for _, rule in rules:
            percent = rule.duplicate_percent
            if percent and choices.chance("network: duplicate", percent):
                late_ms = choices.draw("network: late", 1, self.late_ms_max)
                self.clock.at(arrival_ms + late_ms, arrive)

    def _matching(self, source: str, target: str, body: object) -> list[tuple[int, Rule]]:
        message = type(body).__name__
        return [
            (number, rule)
            for number, rule in self._rules.items()
            if rule.matches(source, target, message)
        ]

    def _hold(self, number: int, key: tuple[str, str, str], arrive: Callable[[], None]) -> None:
        """Keep a message, and what follows on its connection, until the rule is lifted."""
        self._waiting[key] = [arrive]

        def release() -> None:
            waiting = self._waiting.pop(key)
            self._last_arrival_ms[key] = self.clock.now_ms
            for action in waiting:
                self.clock.at(self.clock.now_ms, action)

        self._held.setdefault(number, []).append(release)
