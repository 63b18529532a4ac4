"""What both engines are given, and what both answer with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tla.errors import TlaError
from tla.explorer.values import model_value, show

SECTIONS = (
    "SPECIFICATION", "INIT", "NEXT", "CONSTANT", "CONSTANTS", "INVARIANT", "INVARIANTS",
    "PROPERTY", "PROPERTIES", "SYMMETRY", "CHECK_DEADLOCK",
)  # fmt: skip
_TOKEN = re.compile(r'\s*(\\\*[^\n]*|"[^"\n]*"|\d+|\w+|[{},=])')


@dataclass(frozen=True, slots=True)
class Step:
    """One state of a behaviour, each variable as TLC prints it, and the action that led to it."""

    action: str
    state: dict[str, str]


@dataclass(frozen=True, slots=True)
class Config:
    """A TLC configuration: the subset that our models use. `source` names it in errors."""

    source: str
    module: str
    specification: str = "Spec"
    constants: dict[str, Any] = field(default_factory=dict)
    invariants: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()

    def with_constants(self, **changes: Any) -> Config:
        unknown = [name for name in changes if name not in self.constants]
        if unknown:
            raise TlaError(f"{self.source}: there is no constant {', '.join(unknown)}")
        return replace(self, constants={**self.constants, **changes})

    def about(self, claim: str) -> Config:
        """Checking one of its claims and nothing else."""
        if claim in self.properties:
            return replace(self, invariants=(), properties=(claim,))
        if claim not in self.invariants:
            raise TlaError(f"{self.source}: {claim} is not among its claims")
        return replace(self, invariants=(claim,), properties=())

    def about_behaviours(self, claims: tuple[str, ...], specification: str = "FairSpec") -> Config:
        return replace(self, specification=specification, invariants=(), properties=claims)

    def text(self) -> str:
        """The configuration as TLC reads it."""
        lines = [f"SPECIFICATION {self.specification}", "CHECK_DEADLOCK FALSE"]
        lines += [f"CONSTANT {name} = {show(value)}" for name, value in self.constants.items()]
        lines += [f"INVARIANT {name}" for name in self.invariants]
        lines += [f"PROPERTY {name}" for name in self.properties]
        return "\n".join(lines) + "\n"


def read_config(path: Path, module: str) -> Config:
    """The configuration in a file. TlaError names what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TlaError(f"{path}: {error.strerror}") from error
    return parse_config(text, path.name, module)


def parse_config(text: str, source: str, module: str) -> Config:
    words = _words(text, source)
    found: dict[str, Any] = {"constants": {}, "invariants": (), "properties": ()}
    section = ""
    while words:
        word = words.pop(0)
        if word in SECTIONS:
            section = word
            continue
        if section.startswith("CONSTANT"):
            if not words or words.pop(0) != "=":
                raise TlaError(f"{source}: constant {word} has no value")
            found["constants"][word] = _value(words, source)
        elif section.startswith("INVARIANT"):
            found["invariants"] += (word,)
        elif section.startswith("PROPERT"):
            found["properties"] += (word,)
        elif section == "SPECIFICATION":
            found["specification"] = word
        elif section == "CHECK_DEADLOCK":
            if word != "FALSE":
                raise TlaError(f"{source}: our models end where their bounds end: no deadlocks")
        else:
            raise TlaError(f"{source}: {word!r} stands in no section that is known here")
    if "specification" not in found:
        raise TlaError(f"{source}: there is no SPECIFICATION")
    return Config(source, module, **found)


def _words(text: str, source: str) -> list[str]:
    words, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise TlaError(f"{source}:{line}: cannot read {text[position:].split()[0]!r}")
        if not match[1].startswith("\\*"):
            words.append(match[1])
        position = match.end()
    return words


def _value(words: list[str], source: str) -> Any:
    if not words:
        raise TlaError(f"{source}: the last constant has no value")
    word = words.pop(0)
    if word == "{":
        items = []
        while words and words[0] != "}":
            items.append(_value(words, source))
            if words and words[0] == ",":
                words.pop(0)
        if not words:
            raise TlaError(f"{source}: a set is not closed")
        words.pop(0)
        return frozenset(items)
    if word.isdigit():
        return int(word)
    if word.startswith('"'):
        return word[1:-1]
    if word in ("TRUE", "FALSE"):
        return word == "TRUE"
    if word in SECTIONS or not word.isidentifier():
        raise TlaError(f"{source}: {word!r} is no value of a constant")
    return model_value(word)
