"""Where reading begins: `beginning`, `end`, `N`, `-N` (the last N), `@MS` (first at that time)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class From(Enum):
    BEGINNING = "beginning"
    END = "end"
    OFFSET = "offset"
    LAST = "last"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class OffsetSpec:
    kind: From
    number: int = 0
    """The offset, how many of the last records, or milliseconds since 1970."""

    def start(self, log_start_offset: int, high_watermark: int) -> int:
        """The offset to begin at. Not for TIME, which only the broker can tell."""
        match self.kind:
            case From.BEGINNING:
                return log_start_offset
            case From.END:
                return high_watermark
            case From.OFFSET:
                return self.number
            case From.LAST:
                return max(log_start_offset, high_watermark - self.number)
            case From.TIME:
                raise AssertionError("a time is looked up, not computed")


def parse_offset(text: str) -> OffsetSpec:
    """ValueError says what would be right."""
    if text in ("beginning", "end"):
        return OffsetSpec(From(text))
    for prefix, kind in (("-", From.LAST), ("@", From.TIME), ("", From.OFFSET)):
        digits = text.removeprefix(prefix)
        if text.startswith(prefix) and digits.isascii() and digits.isdecimal():
            number = int(digits)
            if number >= 2**63:
                break
            return OffsetSpec(kind, number)
    raise ValueError(
        f"{text!r} is no offset: take beginning, end, N, -N (the last N) or @MS (a time in "
        "milliseconds since 1970)"
    )
