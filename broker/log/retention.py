"""What of a log is too old or too much: where it would begin without that. Pure.

Whole files go, the oldest first, and never the one that takes bytes; nor anything that is not yet
committed. (KIP-107, Kafka's LogCleanup.)
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.log.segment import Segment

FOREVER = -1


def begins_after(
    segments: Sequence[Segment],
    high_watermark: int,
    wall_ms: int,
    retention_ms: int,
    retention_bytes: int,
) -> int:
    """The offset at which a log of these segments may begin now: the first one's, or a later one's.

    A file goes if its largest timestamp is `retention_ms` old, or if without it there still are
    `retention_bytes`; -1 for either means never.
    """
    size_bytes = sum(segment.size_bytes for segment in segments)
    offset = segments[0].base_offset
    for segment in segments[:-1]:
        is_too_much = retention_bytes != FOREVER and size_bytes - segment.size_bytes >= (
            retention_bytes
        )
        if segment.end_offset > high_watermark or not (
            is_too_much or is_too_old(segment, wall_ms, retention_ms)
        ):
            break
        size_bytes -= segment.size_bytes
        offset = segment.end_offset
    return offset


def is_too_old(segment: Segment, wall_ms: int, retention_ms: int) -> bool:
    """Whether its newest record is older than `retention_ms`; a file without records never is."""
    if retention_ms == FOREVER or not segment.size_bytes:
        return False
    return segment.max_timestamp_ms < wall_ms - retention_ms
