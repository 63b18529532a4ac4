"""TLA+ text to tokens with their place: the column decides where an item of a list ends."""

from __future__ import annotations

import re
from typing import NamedTuple

from tla.errors import TlaError

# Longest first, so that `<=>` is not read as `<=` and `>`.
SYMBOLS = (
    "<=>", "|->", "~>", "=>", "==", "<-", "->", "..", "<<", ">>", "<=", ">=", "=<", "/=", "/\\",
    "\\/", "<>", "[]", "\\in", "\\notin", "\\subseteq", "\\cup", "\\cap", "\\o", "\\A", "\\E",
    "=", "#", "<", ">", "+", "-", "*", "(", ")", "[", "]", "{", "}", ",", ":", "!", ".", "'", "~",
    "@", "\\", "%",
)  # fmt: skip
_WORD_SYMBOL = re.compile(r"\\[A-Za-z]+")
_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+)|(?P<newline>\n)|(?P<comment>\\\*[^\n]*)|(?P<rule>-{4,})|(?P<end>={4,})"
    r'|(?P<string>"[^"\n]*")|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)|(?P<word>\\[A-Za-z]+)'
    r"|(?P<symbol>" + "|".join(re.escape(s) for s in SYMBOLS if not _WORD_SYMBOL.fullmatch(s)) + ")"
)


class Token(NamedTuple):
    """`kind` is name, number, string, symbol, rule, end or eof; line and column count from 1."""

    kind: str
    text: str
    line: int
    column: int


def tokens_of(text: str, source: str) -> list[Token]:
    """All tokens of a module, an `eof` last. TlaError at a character that begins none."""
    text = _blank_comments(text)
    tokens = []
    position, line, line_start = 0, 1, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        column = position - line_start + 1
        if match is None or (match.lastgroup == "word" and match.group() not in SYMBOLS):
            raise TlaError(
                f"{source}:{line}:{column}: cannot read {text[position : position + 8]!r}"
            )
        kind = match.lastgroup
        if kind == "newline":
            line, line_start = line + 1, match.end()
        elif kind not in ("space", "comment"):
            assert kind is not None
            tokens.append(Token("symbol" if kind == "word" else kind, match.group(), line, column))
        position = match.end()
    tokens.append(Token("eof", "", line + 1, 0))
    return tokens


def _blank_comments(text: str) -> str:
    """Comments in (* *) become spaces, so that every place stays what it was."""
    return re.sub(r"\(\*.*?\*\)", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)
