"""The table of verbs: loaded lazily, exact exit codes, errors in one line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from client.cli import main as command
from client.cli.common import Failure, expected

PROZESS = (sys.executable, "-m", "client.cli")


def run(*arguments: str, directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROZESS, *arguments],
        cwd=directory,
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_shows_the_whole_table(tmp_path: Path) -> None:
    shown = run("--help", directory=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    for name, entry in command.COMMANDS.items():
        assert any(
            line.split() == [name, *entry.summary.split()] for line in shown.stdout.splitlines()
        ), name


def verbs(path: tuple[str, ...], verb: click.Command) -> list[tuple[str, ...]]:
    """The command lines of a verb: itself, or each of its own verbs."""
    if not isinstance(verb, click.Group):
        return [path]
    return [line for name, sub in verb.commands.items() for line in verbs((*path, name), sub)]


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_verb_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = command.COMMANDS[name]
    verb = getattr(importlib.import_module(entry.module), entry.attribute)
    for line in verbs((name,), verb):
        assert command.run([*line, "--help"]) == 0
        shown = capsys.readouterr()
        assert "Example" in shown.out, line
        assert f"prozess {' '.join(line)}" in " ".join(shown.out.split("Example")[-1].split())
        assert shown.err == ""


def test_help_imports_no_verb(tmp_path: Path) -> None:
    code = (
        "import sys; from client.cli.main import run; run(['--help']); "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "('zmq', 'rich', 'requests', 'broker', 'chaos', 'raft') or m.startswith('client.cli.')))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "['client.cli.main']"


def broker_config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


REFUSALS = [
    (["nope"], "No such command 'nope'. (see `prozess --help`)"),
    (["up", "-n", "x"], "Invalid value for '-n' / '--nodes': 'x' is not a valid integer. "),
    (["up", "-n", "0"], "0 nodes: take 1 to 50"),
    (["up", "-n", "3", "--controllers", "4"], "4 controllers: take 1 to 3, the number of nodes"),
    (["up", "--quick"], "No such option '--quick'. (see `prozess up --help`)"),
    (["up", "--name", "../x"], "Invalid value for '--name': take letters, digits, . _ -"),
    (["kill"], "Missing argument 'NODE'. (see `prozess kill --help`)"),
    (["kill", "2"], "no cluster in .prozess/default: start one with `prozess up`"),
    (["status", "--data-dir", "there"], "no cluster in there: start one with `prozess up`"),
    (["down", "--name", "b"], "no cluster in .prozess/b: start one with `prozess up`"),
    (["broker"], "Missing option '--config'. (see `prozess broker --help`)"),
    (["broker", "--config", "gone.toml"], "gone.toml: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "line"), REFUSALS, ids=[" ".join(r[0]) for r in REFUSALS])
def test_bad_use_is_one_line_and_2(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = [text for text in shown.err.splitlines() if not text.startswith("making a cluster")]
    assert len(lines) == 1
    assert lines[0].startswith(f"prozess: {line}")
    assert list(tmp_path.iterdir()) == []


def test_every_mistake_in_a_node_file_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = broker_config(tmp_path, 'node_id = 0\nhost = "10.0.0.1"\nfast = true\n')
    assert command.run(["broker", "--config", path]) == 2
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert "unknown setting fast" in shown
    assert "cluster_id is missing" in shown


NODE = """
node_id = 4
cluster_id = "c"
data_dir = "{directory}/data"
roles = ["broker"]
host = "{host}"
broker_port = 19
voters = [{{ node_id = 1, disk_id = "d", host = "127.0.0.1", port = 20 }}]
"""


def test_format_marks_the_directory_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = broker_config(tmp_path, NODE.format(directory=tmp_path, host="127.0.0.1"))
    assert command.run(["broker", "--format", "--config", path]) == 0
    meta = (tmp_path / "data" / "meta.properties").read_bytes()
    assert b"node_id=4" in meta
    assert command.run(["broker", "--format", "--config", path]) == 0
    assert (tmp_path / "data" / "meta.properties").read_bytes() == meta
    other = NODE.replace('"c"', '"other"').format(directory=tmp_path, host="127.0.0.1")
    capsys.readouterr()
    assert command.run(["broker", "--format", "--config", broker_config(tmp_path, other)]) == 2
    assert "already formatted for" in capsys.readouterr().err
    assert (tmp_path / "data" / "meta.properties").read_bytes() == meta


def test_a_voter_gets_the_disk_id_that_the_quorum_was_told(tmp_path: Path) -> None:
    text = NODE.replace("node_id = 4", "node_id = 1").format(directory=tmp_path, host="127.0.0.1")
    assert command.run(["broker", "--format", "--config", broker_config(tmp_path, text)]) == 0
    assert b"disk_id=d\n" in (tmp_path / "data" / "meta.properties").read_bytes()


def test_an_address_that_others_reach_must_be_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = broker_config(tmp_path, NODE.format(directory=tmp_path, host="0.0.0.0"))
    assert command.run(["broker", "--format", "--config", path]) == 2
    assert "there is no authentication yet; start with --allow-remote" in capsys.readouterr().err
    assert command.run(["broker", "--format", "--allow-remote", "--config", path]) == 0


def test_a_failure_keeps_to_one_line_and_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def bad() -> None:
        with expected(ValueError, exit_code=1):
            raise ValueError("two\nlines")

    monkeypatch.setattr(command.LazyGroup, "get_command", lambda *_: bad)
    assert command.run(["bad"]) == 1
    assert capsys.readouterr().err == "prozess: two lines\n"
    assert Failure("x").code == 2


def test_a_bug_is_not_mistaken_for_a_bad_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command.LazyGroup, "get_command", lambda *_: broken)
    with pytest.raises(SystemExit) as ended:
        command.run(["broken"])
    assert ended.value.code == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["version", "--help"])
def test_a_reader_that_went_away_is_no_error(argument: str, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [*PROZESS, argument], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait() == 141


def test_ctrl_c_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def endless() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.LazyGroup, "get_command", lambda *_: endless)
    assert command.run(["endless"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_optimised_python_is_refused(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-O", "-m", "client.cli", "version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 2
    assert shown.stderr.startswith("prozess: python -O removes the invariants")


def test_every_module_of_the_table_exists() -> None:
    missing = {
        entry.module
        for entry in command.COMMANDS.values()
        if importlib.util.find_spec(entry.module) is None
    }
    assert missing == set()
