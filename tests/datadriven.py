"""Scenarios as text files that read like a play: commands, `----`, and what was seen.

    # The story, told in a comment.
    produce 1 acks=all value=a
    deliver from=2 to=1
    status
    ----
    2 L leo=1 hw=0

A block is one or more command lines, `----`, and the expected output up to the next blank line. A
command is a verb, words, and `name=value` options (`name=1,2,3` for lists). A handler turns one
`Command` into its output (any number of lines, "" for none); a block without any output says `ok`.
Every word and option must be read by the handler, so that a misspelled one is an error.

    @pytest.mark.parametrize("path", scenario_paths("raft"), ids=lambda path: path.stem)
    def test_scenario(path):
        run_scenario(path, Cluster().handle)

`PROZESS_REWRITE=1 pytest …` writes the actual output into the files instead of comparing: read the
difference before committing it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTDATA = Path(__file__).parent / "testdata"
SEPARATOR = "----"
NO_OUTPUT = "ok"
SCENARIO_LINES_MAX = 120


class ScenarioError(AssertionError):
    """A scenario file that cannot be understood, or whose output differs."""


@dataclass(slots=True)
class Command:
    """One line of a scenario. The reading methods mark what they read; see `unread`."""

    text: str
    where: str
    verb: str
    words: tuple[str, ...]
    options: dict[str, str]
    _read: set[str] = field(default_factory=set)

    def word(self, position: int, default: str | None = None) -> str:
        """The `position`-th word after the verb."""
        self._read.add(f"#{position}")
        if position < len(self.words):
            return self.words[position]
        if default is None:
            raise self.error(f"word {position + 1} after {self.verb!r} is missing")
        return default

    def rest(self, position: int = 0) -> tuple[str, ...]:
        """All words from `position` on."""
        self._read.update(f"#{place}" for place in range(position, len(self.words)))
        return self.words[position:]

    def text_of(self, name: str, default: str | None = None) -> str:
        """Option `name` as it stands."""
        self._read.add(name)
        if name in self.options:
            return self.options[name]
        if default is None:
            raise self.error(f"option {name}= is missing")
        return default

    def has(self, name: str) -> bool:
        """Whether option `name` is given."""
        return name in self.options

    def number(self, name: str, default: int | None = None) -> int:
        """Option `name` as an integer."""
        return self._integer(self.text_of(name, None if default is None else str(default)))

    def numbers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Option `name` as integers between commas; an empty value is no integer at all."""
        if default is not None and name not in self.options:
            return default
        return tuple(self._integer(part) for part in self.text_of(name).split(",") if part)

    def word_number(self, position: int, default: int | None = None) -> int:
        """The `position`-th word as an integer."""
        return self._integer(self.word(position, None if default is None else str(default)))

    def error(self, problem: str) -> ScenarioError:
        """An exception that names the file, the line and the command."""
        return ScenarioError(f"{self.where}: {self.text}: {problem}")

    def unread(self) -> list[str]:
        """Words and options that nobody asked for."""
        words = [w for place, w in enumerate(self.words) if f"#{place}" not in self._read]
        return words + [f"{name}=" for name in self.options if name not in self._read]

    def _integer(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise self.error(f"{text!r} is not an integer") from None


@dataclass(slots=True)
class _Block:
    """Commands with their expected output; `start`, `end` are the line numbers of the output."""

    commands: list[Command]
    expected: list[str]
    start: int
    end: int


def scenario_paths(folder: str) -> list[Path]:
    """Every scenario of `tests/testdata/<folder>`, sorted; there must be some."""
    paths = sorted((TESTDATA / folder).glob("*.txt"))
    assert paths, f"no scenario in {TESTDATA / folder}"
    return paths


def run_scenario(path: Path, handle: Callable[[Command], str]) -> None:
    """Run every block of `path` and compare; stops at the first block that differs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or not lines[0].startswith("#"):
        raise ScenarioError(f"{path.name}: a scenario opens with its story in a comment")
    if len(lines) > SCENARIO_LINES_MAX:
        raise ScenarioError(f"{path.name}: {len(lines)} lines, at most {SCENARIO_LINES_MAX}")
    rewrite = os.environ.get("PROZESS_REWRITE") == "1"
    blocks = _parse(path.name, lines)
    actual_by_block = []
    for block in blocks:
        actual = _run_block(block, handle)
        actual_by_block.append(actual)
        if actual != block.expected and not rewrite:
            raise ScenarioError(_difference(block, actual))
    if rewrite:
        for block, actual in reversed(list(zip(blocks, actual_by_block, strict=True))):
            lines[block.start : block.end] = actual
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run_block(block: _Block, handle: Callable[[Command], str]) -> list[str]:
    output: list[str] = []
    for command in block.commands:
        try:
            output.extend(handle(command).splitlines())
        except ScenarioError:
            raise
        except AssertionError as error:
            raise command.error(str(error)) from error
        if command.unread():
            raise command.error(f"not understood: {' '.join(command.unread())}")
    assert all(line.strip() for line in output), "output cannot contain blank lines"
    return [line.rstrip() for line in output] or [NO_OUTPUT]


def _difference(block: _Block, actual: list[str]) -> str:
    commands = "\n".join(f"  {command.text}" for command in block.commands)
    expected_text = "\n".join(f"  {line}" for line in block.expected)
    actual_text = "\n".join(f"  {line}" for line in actual)
    where = block.commands[0].where
    return f"{where}:\n{commands}\nexpected:\n{expected_text}\nactual:\n{actual_text}"


def _parse(name: str, lines: list[str]) -> list[_Block]:
    blocks: list[_Block] = []
    commands: list[Command] = []
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        number += 1
        if line == SEPARATOR:
            if not commands:
                raise ScenarioError(f"{name}:{number}: {SEPARATOR} without a command")
            start = number
            while number < len(lines) and lines[number].strip():
                number += 1
            blocks.append(_Block(commands, lines[start:number], start, number))
            commands = []
        elif line and not line.startswith("#"):
            commands.append(_parse_command(line, f"{name}:{number}"))
    if commands:
        raise ScenarioError(f"{commands[0].where}: no {SEPARATOR} after the last command")
    return blocks


def _parse_command(line: str, where: str) -> Command:
    verb, *rest = line.split()
    words = tuple(part for part in rest if "=" not in part)
    pairs = [part.split("=", 1) for part in rest if "=" in part]
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ScenarioError(f"{where}: {line}: an option is given twice")
    return Command(line, where, verb, words, options)
