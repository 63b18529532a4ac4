"""Configurations, the tools, TLC's answers, and the command."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from client.cli.main import run
from tla.cases import FOLDER, MUTANTS
from tla.errors import TlaError
from tla.model import Step, parse_config, read_config
from tla.story import story
from tla.tlc import read_output
from tla.tools import find_jar, find_java

CONFIG = parse_config("SPECIFICATION Spec\nINVARIANT TypeOK Low\n", "T.cfg", "T")
BROKEN = """Starting... (2026-01-01 00:00:00)
Error: Invariant Low is violated.
Error: The behavior up to this point is:
State 1: <Initial predicate>
/\\ x = 0
/\\ log = << [ a |-> 1,
     b |-> 2 ] >>

State 2: <Up line 5, col 9 to line 5, col 27 of module T>
/\\ x = 1
/\\ log = << [ a |-> 1,
     b |-> 2 ] >>

5 states generated, 4 distinct states found, 1 states left on queue.
The depth of the complete state graph search is 2.
"""


def test_a_configuration_is_read_and_written_alike() -> None:
    for path in (FOLDER / "cfg").glob("*.cfg"):
        config = read_config(path, path.stem)
        assert parse_config(config.text(), path.name, path.stem) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CONSTANT A = 1", "no SPECIFICATION"),
        ("SPECIFICATION Spec\nCONSTANT A 1", "constant A has no value"),
        ("SPECIFICATION Spec\nCONSTANT A = {1, 2", "a set is not closed"),
        ("SPECIFICATION Spec\nCONSTANT A =", "the last constant has no value"),
        ("SPECIFICATION Spec\nCONSTANT A = ; B = 2", "T.cfg:2: cannot read ';'"),
        ("Spec", "'Spec' stands in no section"),
        ("SPECIFICATION Spec\nSYMMETRY Perms", "'Perms' stands in no section"),
    ],
)
def test_a_broken_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(TlaError, match=message):
        parse_config(text, "T.cfg", "T")


def test_tlcs_verdict_and_story() -> None:
    found = read_output(CONFIG, 12, BROKEN)
    assert (found.broken, found.generated, found.distinct, found.depth) == ("Low", 5, 4, 2)
    assert found.steps[1] == Step("Up", {"x": "1", "log": "<< [ a |-> 1, b |-> 2 ] >>"})
    assert story("Low", found.steps) == ["0. at the start", "1. Up: x: 1", "Low does not hold"]


def test_tlc_that_cannot_judge_is_no_verdict() -> None:
    with pytest.raises(TlaError, match=r"T.cfg: TLC ends with 150: Fatal errors while parsing"):
        read_output(CONFIG, 150, "Parsing file T.tla\nFatal errors while parsing TLA+ spec\n")
    with pytest.raises(TlaError, match="TLC ends with 12"):
        read_output(CONFIG, 12, "out of memory")


def test_a_jar_that_is_named_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(TlaError, match="where there is no file"):
        find_jar({"TLA2TOOLS_JAR": str(tmp_path / "no.jar")}, tmp_path)
    (tmp_path / "text.jar").write_text("no jar")
    with pytest.raises(TlaError, match="which is no jar"):
        find_jar({"TLA2TOOLS_JAR": str(tmp_path / "text.jar")}, tmp_path / "cache")
    with pytest.raises(TlaError, match="no release of tla2tools that is known"):
        find_jar({}, tmp_path)
    assert find_jar({}, tmp_path / "empty") is None


def fake_java(folder: Path, says: str) -> None:
    path = folder / "java"
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_java_must_be_there_and_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TlaError, match="there is no java"):
        find_java()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    fake_java(tmp_path, 'openjdk version "1.8.0_292"')
    with pytest.raises(TlaError, match="is Java 8; TLC needs 11"):
        find_java()
    fake_java(tmp_path, "no version")
    with pytest.raises(TlaError, match="does not tell its version"):
        find_java()
    fake_java(tmp_path, 'openjdk version "17.0.15" 2025-04-15')
    assert find_java() == str(tmp_path / "java")


# --- the command ----------------------------------------------------------------------------------


def test_check_judges_by_the_explorer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tla", "check", "--engine", "explorer", "--only", "Log", "-j", "1"]) == 0
    shown = capsys.readouterr().out
    assert "CommitLog  explorer" in shown
    assert "holds" in shown


def test_without_a_jar_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TLA2TOOLS_JAR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["tla", "check", "--only", "MetaLog", "-j", "1", "-o", "json"]) == 0
    shown = capsys.readouterr()
    assert "the explorer judges" in shown.err
    assert json.loads(shown.out)[0]["distinct_states"] == 173


def test_a_broken_model_is_told_as_a_story(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "CommitLog.mine.cfg"
    text = (FOLDER / "cfg" / "CommitLog.cfg").read_text(encoding="utf-8")
    path.write_text(text.replace("Broken = {}", 'Broken = {"append-only"}'))
    assert run(["tla", "check", "--engine", "explorer", "--config", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "CommitLog.mine.cfg: G1_AckedStays is broken" in shown
    assert "TakeBack: committed: <<>>" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing like it"], "no run of tier smoke is called like"),
        (["--config", "Nothing.cfg"], "there is no module Nothing"),
        (["--config", "Isr.missing.cfg", "--engine", "explorer"], "No such file"),
    ],
)
def test_wrong_use_is_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tla", "check", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_jar_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TLA2TOOLS_JAR", "/nowhere/tla2tools.jar")
    assert run(["tla", "check", "--engine", "tlc"]) == 2
    assert "TLA2TOOLS_JAR names /nowhere" in capsys.readouterr().err


def test_a_mutant_names_a_claim_of_its_model() -> None:
    for mutant in MUTANTS:
        config = mutant.config()
        assert (*config.invariants, *config.properties) == (mutant.claim,)
