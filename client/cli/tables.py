"""Plain tables for terminals and for eyes: aligned columns, nothing to parse."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, the first one the head. Columns of numbers are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_number = [all(_is_number(text) for text in column[1:]) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").isdecimal() or text == "-"
