"""What a follower asks for, kept between its rounds: only what changed is said again (KIP-227).

A session begins with a round that lists every partition; later rounds list those whose part has
changed, and name those that are not asked for any more. The leader looks at a partition only when
the follower has said something new of it, when it was touched here, or when what was told of it is
not yet known to have arrived: an answer may be lost, or overtaken by a newer round. That it has
arrived is known by the follower's `echo`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.purgatory import ParkedFetch, PartitionKey
from broker.wire.messages import FetchPart, FetchRequest


@dataclass(slots=True)
class FetchSession:
    """Of one follower in one life; `epoch` counts its rounds."""

    broker_epoch: int
    session_id: int
    epoch: int
    fetch_round: int
    parts: dict[PartitionKey, FetchPart] = field(default_factory=dict)
    due: dict[PartitionKey, None] = field(default_factory=dict)
    """To be looked at for the next answer; what brought bytes goes behind the others."""
    unnoted: dict[PartitionKey, None] = field(default_factory=dict)
    """Those whose last listing was not yet found good, and so counts for nothing."""
    marks: dict[PartitionKey, int] = field(default_factory=dict)
    """The high watermark that the follower knows of each."""
    told: dict[PartitionKey, int] = field(default_factory=dict)
    """Watermarks of the last answer, which may not have arrived."""
    told_counter: int = -1
    parked: ParkedFetch | None = None

    def take(self, request: FetchRequest) -> None:
        """Note what a round says."""
        assert request.session is not None
        if request.echo >= self.told_counter:
            self.marks.update(self.told)
        self.told = {}
        self.fetch_round = request.fetch_round
        self.epoch = request.session.epoch
        for name in request.session.forgotten:
            key = (name.topic_id, name.partition)
            self.parts.pop(key, None)
            self.due.pop(key, None)
            self.unnoted.pop(key, None)
            self.marks.pop(key, None)
        for part in request.parts:
            key = (part.topic_id, part.partition)
            self.parts[key] = part
            self.due[key] = None
            self.unnoted[key] = None
            # Of an older listing it may have made nothing.
            self.marks.pop(key, None)

    def due_parts(self) -> list[FetchPart]:
        return [self.parts[key] for key in self.due]

    def is_told(self, key: PartitionKey, high_watermark: int) -> None:
        """The next answer says something of it: until that has arrived it stays due, behind."""
        self.told[key] = high_watermark
        del self.due[key]
        self.due[key] = None


class FetchSessions:
    """At most one for each follower."""

    def __init__(self) -> None:
        self._sessions: dict[int, FetchSession] = {}

    def take(self, request: FetchRequest) -> FetchSession | None:
        """The session that a round begins or goes on with; None if it does not fit: of another
        session than ours, a round was missed, or it is an old one that comes late."""
        asked = request.session
        assert asked is not None
        known = self._sessions.get(request.replica_id)
        if known is not None and known.broker_epoch > request.broker_epoch:
            return None
        is_same_life = known is not None and known.broker_epoch == request.broker_epoch
        if known is not None and is_same_life and request.fetch_round <= known.fetch_round:
            return None
        if asked.epoch == 0:
            known = self._sessions[request.replica_id] = FetchSession(
                request.broker_epoch, asked.session_id, 0, request.fetch_round
            )
        elif (
            known is None
            or not is_same_life
            or (known.session_id, known.epoch + 1) != (asked.session_id, asked.epoch)
        ):
            return None
        known.take(request)
        return known

    def touch(self, keys: Iterable[PartitionKey]) -> list[FetchSession]:
        """Something changed here: sessions with a parked round that it may be news for."""
        woken: dict[int, FetchSession] = {}
        for key in keys:
            for follower, session in self._sessions.items():
                if key in session.parts:
                    session.due[key] = None
                    if session.parked is not None:
                        woken[follower] = session
        return list(woken.values())
