"""What every client core is built on: fresh metadata, and calls that are repeated until answered.

A core hands all that arrives to `absorb` and once per turn calls `run`; both return the requests
that ended and are not ours. What is to be sent collects in `effects`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.wire.errors import ERRORS, ErrorCode
from broker.wire.messages import MetadataRequest, MetadataResponse
from client.config import ClientConfig
from client.events import (
    NEVER_MS,
    Answered,
    Buffer,
    Disconnected,
    Draw,
    Effect,
    Event,
    Tick,
)
from client.metadata import ClusterMetadata
from client.requests import Ended, RequestRouter
from client.retry import backoff_ms

METADATA_HEDGE_MS = 300
"""A metadata request unanswered for so long is put to another broker too."""


@dataclass(slots=True)
class Call:
    """One question, asked again and again until there is an answer or its time is over.

    Done when `done`: then `answer` is the last word, or None when time ran out first.
    """

    body: object
    target: int | None
    """The node to ask; None: anyone."""
    deadline_ms: int
    answer: object | None = None
    maybe_done: bool = False
    """An attempt that was not the last word may have taken effect."""
    done: bool = False
    failures: int = 0
    next_try_ms: int = 0
    last_error: ErrorCode = ErrorCode.NONE
    """The last attempt's error; NONE if it had no answer."""
    in_flight: bool = False


@dataclass(frozen=True, slots=True)
class _Refresh:
    """Context of a metadata request."""


_REFRESH = _Refresh()


class ClusterCore:
    """Metadata, router and calls of one client."""

    def __init__(self, config: ClientConfig, draw: Draw) -> None:
        self.config = config
        self.metadata = ClusterMetadata()
        self.router = RequestRouter(config, self.metadata, draw)
        self.effects: list[Effect] = []
        self.refresh_count = 0
        """How many metadata answers were taken."""
        self.wrong_cluster_id = ""
        """The id of another cluster, if one answered: the addresses are mixed up."""
        self._draw = draw
        self._wanted: dict[str, None] = {}
        self._calls: list[Call] = []
        self._refresh_at_ms = 0
        self._refreshed_ms = -NEVER_MS
        self._asked: list[int] = []
        """Peers with a metadata request under way."""
        self._hedge_at_ms = 0

    # --- metadata ---------------------------------------------------------------------------------

    def want(self, topic: str) -> None:
        """Keep this topic's metadata fresh from now on."""
        if topic not in self._wanted:
            self._wanted[topic] = None
            self._refresh_at_ms = 0

    def request_refresh(self, now_ms: int) -> None:
        """Something was out of date: refresh soon, but no more often than the back-off."""
        soon_ms = max(now_ms, self._refreshed_ms + self.config.retry_backoff_ms)
        self._refresh_at_ms = min(self._refresh_at_ms, soon_ms)

    def _maybe_refresh(self, now_ms: int) -> None:
        if now_ms < self._refresh_at_ms or (self._asked and now_ms < self._hedge_at_ms):
            return
        peer = self.router.any_peer(now_ms, avoid=self._asked)
        self._hedge_at_ms = now_ms + METADATA_HEDGE_MS
        if peer is None:
            return
        self._asked.append(peer)
        request = MetadataRequest(tuple(self._wanted))
        self.send(peer, request, (), _REFRESH, self.config.request_timeout_ms, now_ms)

    def _on_metadata(self, ended: Ended, now_ms: int) -> None:
        self._asked.remove(ended.request.peer)
        if not isinstance(ended.answer, MetadataResponse):
            return
        self._refreshed_ms = now_ms
        if not self.metadata.apply(ended.answer):
            self.wrong_cluster_id = ended.answer.cluster_id
            self._refresh_at_ms = now_ms + self.config.retry_backoff_max_ms
            return
        self.refresh_count += 1
        self._refresh_at_ms = now_ms + self.config.metadata_max_age_ms
        if self.metadata.brokers:
            self.effects += self.router.close_idle_bootstrap()

    def explain_errors(self) -> str:
        """What is known to be wrong, for messages; empty if nothing is."""
        if self.wrong_cluster_id:
            return f" (an address belongs to another cluster, {self.wrong_cluster_id})"
        if not self.metadata.brokers:
            return " (no broker has answered)"
        wrong = [f"{name}: {code.name}" for name, code in self.metadata.errors.items()]
        return f" ({', '.join(wrong)})" if wrong else ""

    # --- calls ------------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        self._calls.append(call)

    def cancel(self, call: Call) -> None:
        """Nobody waits for this call any more."""
        if call in self._calls:
            self._calls.remove(call)

    def _run_calls(self, now_ms: int) -> None:
        for call in list(self._calls):
            if call.in_flight:
                continue
            if now_ms >= call.deadline_ms:
                self._finish(call, None)
            elif now_ms >= call.next_try_ms:
                self._try(call, now_ms)

    def _try(self, call: Call, now_ms: int) -> None:
        peer = call.target
        if peer is None:
            peer = self.router.any_peer(now_ms)
        elif not self.router.is_ready(peer, now_ms):
            if self.router.address(peer) is None:
                self.request_refresh(now_ms)
            peer = None
        if peer is not None:
            call.in_flight = True
            self.send(peer, call.body, (), call, self.config.request_timeout_ms, now_ms)
        else:
            call.next_try_ms = now_ms + self.config.retry_backoff_ms

    def _on_call(self, call: Call, ended: Ended, now_ms: int) -> None:
        call.in_flight = False
        if ended.answer is None:
            call.maybe_done |= ended.sent
            call.last_error = ErrorCode.NONE
        else:
            error = getattr(ended.answer, "error", ErrorCode.NONE)
            call.last_error = error
            if not ERRORS[error].retriable:
                self._finish(call, ended.answer)
                return
            call.maybe_done |= getattr(ended.answer, "maybe_done", False)
        call.failures += 1
        call.next_try_ms = now_ms + backoff_ms(
            call.failures,
            self.config.retry_backoff_ms,
            self.config.retry_backoff_max_ms,
            self._draw,
        )

    def _finish(self, call: Call, answer: object | None) -> None:
        call.answer = answer
        call.done = True
        self.cancel(call)

    # --- turns ------------------------------------------------------------------------------------

    def send(
        self,
        peer: int,
        body: object,
        payload: Sequence[Buffer],
        context: object,
        timeout_ms: int,
        now_ms: int,
    ) -> None:
        """Send a request; it comes back from `absorb` or `run` with its `context`."""
        self.effects.append(self.router.send(peer, body, payload, context, timeout_ms, now_ms))

    def absorb(self, event: Event, now_ms: int) -> list[Ended]:
        """Take what arrived; requests of others that ended by it."""
        match event:
            case Answered():
                ended = self.router.on_answered(event)
                others = self._keep_ours([ended] if ended else [], now_ms)
                if isinstance(event.body, MetadataResponse):
                    moved, closing = self.router.close_moved()
                    self.effects += closing
                    others += self._keep_ours(moved, now_ms)
                return others
            case Disconnected():
                return self._keep_ours(self.router.on_disconnected(event, now_ms), now_ms)
            case Tick():
                return []

    def run(self, now_ms: int) -> list[Ended]:
        """Everything that is due; requests of others that ran out of time."""
        ended, closing = self.router.expire(now_ms)
        self.effects += closing
        others = self._keep_ours(ended, now_ms)
        self._run_calls(now_ms)
        self._maybe_refresh(now_ms)
        return others

    def take_effects(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def next_deadline_ms(self) -> int:
        """When `run` has something to do, if nothing arrives before."""
        refresh_ms = self._refresh_at_ms
        if self._asked:
            refresh_ms = max(refresh_ms, self._hedge_at_ms)
        elif refresh_ms < NEVER_MS:
            refresh_ms = max(refresh_ms, self.router.any_peer_ready_ms())
        deadlines = [self.router.next_deadline_ms(), refresh_ms]
        for call in self._calls:
            if not call.in_flight:
                deadlines.append(min(call.deadline_ms, call.next_try_ms))
        return min(deadlines)

    def _keep_ours(self, ended: list[Ended], now_ms: int) -> list[Ended]:
        others = []
        for end in ended:
            context = end.request.context
            if isinstance(context, _Refresh):
                self._on_metadata(end, now_ms)
            elif isinstance(context, Call):
                self._on_call(context, end, now_ms)
            else:
                others.append(end)
        return others
