"""The high watermark: how far a partition is committed. Pure arithmetic over the maximal ISR.

The twin of `raft.quorum`: there a majority of match indexes, here the minimum over the ISR.
Rules: the minimum of the counted ends over the maximal ISR (KIP-497), the leader's own included; it
does not move while the committed ISR is below min.insync.replicas (KIP-966), and never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN_END = -1
"""Counted end of a member that has not yet fetched in this leader epoch."""


def effective_min_isr(min_insync_replicas: int, replica_count: int) -> int:
    """A topic with fewer replicas than min.insync.replicas asks for needs all of them."""
    return min(min_insync_replicas, replica_count)


def maximal_isr(committed: tuple[int, ...], proposed: tuple[int, ...] | None) -> tuple[int, ...]:
    """Whoever may be in the ISR now: the committed members and those proposed for joining.

    A proposed removal counts for nothing until it is committed (never assume that it succeeds).
    """
    if proposed is None:
        return committed
    return tuple(sorted({*committed, *proposed}))


def advance(current: int, counted_ends: Iterable[int], *, isr_size: int, min_isr: int) -> int:
    """The new high watermark.

    `counted_ends` are those of the whole maximal ISR, `isr_size` counts the committed ISR only.
    """
    if isr_size < min_isr:
        return current
    return max(current, min(counted_ends))
