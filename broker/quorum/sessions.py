"""Which brokers the active controller has heard of lately. Volatile: a new controller starts anew.

A session is live until `timeout_ms` after the last contact. It only ever decides *when* a broker is
fenced; what a fenced broker can still do wrong is prevented by its broker epoch.
"""

from __future__ import annotations


class Sessions:
    """Deadlines by node id, in the milliseconds of the caller's clock."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._deadlines_ms: dict[int, int] = {}

    def touch(self, node_id: int, now_ms: int) -> None:
        """The broker made contact: its session lives for another timeout."""
        self._deadlines_ms[node_id] = now_ms + self._timeout_ms

    def is_live(self, node_id: int, now_ms: int) -> bool:
        deadline_ms = self._deadlines_ms.get(node_id)
        return deadline_ms is not None and now_ms < deadline_ms

    def pop_expired(self, now_ms: int) -> int | None:
        """Forget one session whose time is over, the one that ended first; None if all live."""
        if not self._deadlines_ms:
            return None
        deadline_ms, node_id = min((at, node_id) for node_id, at in self._deadlines_ms.items())
        if now_ms < deadline_ms:
            return None
        del self._deadlines_ms[node_id]
        return node_id

    def shift(self, gap_ms: int) -> None:
        """We were paused for `gap_ms` and could hear nobody: that silence does not count."""
        self._deadlines_ms = {
            node_id: deadline_ms + gap_ms for node_id, deadline_ms in self._deadlines_ms.items()
        }

    def clear(self) -> None:
        self._deadlines_ms.clear()

    def next_deadline_ms(self) -> int | None:
        return min(self._deadlines_ms.values(), default=None)
