"""The loop of clients without a thread: whoever waits for something runs the network meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from client.connection import monotonic_ms
from client.events import Event, Tick

Effect = TypeVar("Effect", covariant=True)


class Core(Protocol[Effect]):
    """What a driver needs of a core."""

    def handle(self, event: Event, now_ms: int) -> Sequence[Effect]: ...

    def next_deadline_ms(self) -> int: ...


class Network(Protocol):
    """What a driver needs of `connection.Connections`."""

    def poll(self, timeout_ms: int) -> list[Event]: ...

    def execute(self, effects: Iterable[object]) -> None: ...


class PollingDriver:
    """Runs one core in the caller's thread. Not to be used by two threads at once."""

    def __init__(
        self,
        core: Core[object],
        connections: Network,
        on_effect: Callable[[object], None] = lambda effect: None,
    ) -> None:
        """`on_effect` sees every effect after it was carried out."""
        self._core = core
        self._connections = connections
        self._on_effect = on_effect

    def turn(self, timeout_ms: int, is_over: Callable[[], bool] = lambda: False) -> None:
        """Act on what has arrived and on what is due; unless it `is_over` then, wait for more.

        What has arrived comes first: after a long pause between two calls its answers may be there
        and its time-outs past.
        """
        self._handle(self._connections.poll(0))
        if timeout_ms > 0 and not is_over():
            due_ms = self._core.next_deadline_ms() - monotonic_ms()
            self._handle(self._connections.poll(max(0, min(timeout_ms, due_ms))))

    def turn_if_due(self) -> None:
        """A turn without waiting, if the core has something to do."""
        if self._core.next_deadline_ms() <= monotonic_ms():
            self.turn(0)

    def run_until(self, is_over: Callable[[], bool], deadline_ms: int) -> bool:
        """Turn until it is over or the deadline (of `monotonic_ms`) passed; whether it is over."""
        while not is_over():
            left_ms = deadline_ms - monotonic_ms()
            if left_ms <= 0:
                return False
            self.turn(left_ms, is_over)
        return True

    def _handle(self, events: Sequence[Event]) -> None:
        now_ms = monotonic_ms()
        effects: list[object] = []
        for event in (*events, Tick()):
            effects += self._core.handle(event, now_ms)
        self._connections.execute(effects)
        for effect in effects:
            self._on_effect(effect)
