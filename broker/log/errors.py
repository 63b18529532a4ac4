"""What can be wrong with the bytes or the request, as types. (A failing disk is `DiskError`.)"""

from __future__ import annotations


class CorruptFile(Exception):
    """A file does not hold what it must: damaged, or not ours. Names the file and the position.

    `position` counts bytes, for text files lines from 1.
    """

    def __init__(self, path: str, position: int, reason: str) -> None:
        super().__init__(f"{path}: {reason} (at {position})")
        self.path = path
        self.position = position
        self.reason = reason


class DamagedLog(CorruptFile):
    """A log lacks bytes that were on disk, or holds others: no crash explains it."""


class LogMismatch(ValueError):
    """A batch from the leader does not continue this log; nothing was appended."""


class OffsetOutOfRange(ValueError):
    """A read outside [log_start_offset, log_end_offset]."""

    def __init__(self, offset: int, log_start_offset: int, log_end_offset: int) -> None:
        super().__init__(f"offset {offset} is outside [{log_start_offset}, {log_end_offset}]")
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset
