"""What a node asks of its driver, and in which order. The order is told here and nowhere else.

A driver takes a `Ready` from `RaftNode.ready()` and owes the node this:

1. `messages_now` promise nothing. Send them at any time: before, beside or after the rest.
   If `snapshot` is not None, the state machine becomes what it says, before `committed` is applied.
2. If `hard_state` is not None, write it. *Then*, if there are `entries`, cut the stored log off at
   `truncate_from` (when it is not None) and write them. Then, if `must_sync`, sync. After a power
   loss the disk may hold any prefix of these writes, but never an entry whose term is above the
   stored hard state's. If `snapshot` is not None it replaces all that was stored of the log: it,
   the hard state and the entries become durable as a whole or not at all.
3. Only when all of 2 is durable, send `messages_after_durable` and call `RaftNode.advance(ready)`.
   They are votes and confirmations of appends: a crash must not take them back. `advance` is what
   lets the node count its own vote and the leader its own log.
4. Apply `committed` in order, at any time after receipt, also before 2 is done: a majority has
   these entries on disk, even where this node has not yet. A state that is stored must therefore
   not be stored as further than the stored log, except as a whole.
5. If `must_sync` is False there is nothing to wait for: do 1, 3 and 4 at once.

At most one Ready is outstanding; until `advance` the next `ready()` is None. A driver whose sync
takes long calls `RaftNode.messages_beside_sync()` meanwhile, so that a leader goes on sending
heartbeats and new entries. A crash may come after any prefix of these steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from raft.messages import AppendEntriesResponse, RaftMessage, VoteRequest, VoteResponse
from raft.types import Entry, HardState, Snapshot


@dataclass(frozen=True, slots=True)
class Ready:
    """One bundle of obligations; the module docstring says what is owed and in which order."""

    hard_state: HardState | None
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    truncate_from: int | None
    messages_now: tuple[RaftMessage, ...]
    messages_after_durable: tuple[RaftMessage, ...]
    committed: tuple[Entry, ...]
    must_sync: bool


def waits_for_durability(
    message: RaftMessage, hard_state_is_durable: bool, durable_index: int
) -> bool:
    """Whether `message` says something that a crash could still make untrue.

    A vote request speaks for the candidate's own vote and for the end of its log, an answer for
    the term and the vote, a confirmed append for the log up to `match_index`. A leader's own
    messages wait for nothing: its term was durable before it was elected, and it counts itself
    separately (thesis 10.2.1).
    """
    if isinstance(message, VoteRequest):
        return True
    if isinstance(message, VoteResponse):
        return not hard_state_is_durable
    if isinstance(message, AppendEntriesResponse):
        return not hard_state_is_durable or message.match_index > durable_index
    return False
