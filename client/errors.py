"""What client calls raise. Answers with an error code are `broker.wire.errors.ApiError`.

Three families, because callers react differently: the call was wrong (`ConfigError`,
`RecordTooLarge`, `ClosedError`), it ran out of time (`ClientTimeout`), or it was tried and its
outcome is known or not (`retry.SendFailed`, `OutcomeUnknown`).
"""

from __future__ import annotations

from collections.abc import Sequence


class ClientError(Exception):
    """Base of everything that clients raise, apart from `ApiError`."""


class ConfigError(ClientError):
    """Every mistake in the settings, one line each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class ClosedError(ClientError):
    """The client was closed before or during the call."""


class ClientTimeout(ClientError, TimeoutError):
    """The call's time is over. Nothing was changed by it, unless a subclass says otherwise."""


class BufferFull(ClientTimeout):
    """`buffer_memory` stayed full for `max_block_ms`: the record was not accepted, so not sent."""


class OutcomeUnknown(ClientError):
    """The request may or may not have taken effect: look before trying again."""


class RecordTooLarge(ClientError):
    """The record alone exceeds `max_request_size` or the topic's `message_max_bytes`."""


class NoOffset(ClientError):
    """A partition has no valid position and `auto_offset_reset` is none."""


class NotAssigned(ClientError):
    """The consumer was asked about a partition that is not assigned to it."""


class CorruptRecords(ClientError):
    """Fetched bytes are damaged, or no batches at all. The position stays before them."""
