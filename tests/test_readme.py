"""The READMEs tell the truth: what they name exists, and the examples of the first one run."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from client.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
READMES = sorted(
    path
    for top in (".", "broker", "raft", "client", "chaos", "tests", "tla")
    for path in (ROOT.glob("README.md") if top == "." else (ROOT / top).rglob("README.md"))
)
LINK = re.compile(r"\[(`?)([^\]]*?)`?\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TESTS_NAMED_AT_LEAST = 25


def links(path: Path) -> list[tuple[str, str]]:
    """(name in backticks or "", target) of each link that leads to a file of ours."""
    found = LINK.findall(path.read_text(encoding="utf-8"))
    return [
        (name if tick else "", target.split("#")[0])
        for tick, name, target in found
        if not target.startswith(("http:", "https:", "#"))
    ]


@cache
def names_in(path: Path) -> frozenset[str]:
    """Every function, class, method and constant of a module, qualified by its class."""
    names: set[str] = set()

    def collect(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)
            if isinstance(node, ast.Assign):
                names.update(prefix + t.id for t in node.targets if isinstance(t, ast.Name))

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return frozenset(names)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere_and_every_name_in_one_exists(readme: Path) -> None:
    wrong = []
    for name, target in links(readme):
        path = (readme.parent / target).resolve()
        if not path.exists():
            wrong.append(f"{target} does not exist")
        elif path.suffix == ".py" and name and "/" not in name and name not in names_in(path):
            wrong.append(f"{target} has no {name}")
    assert not wrong


def test_every_path_and_every_test_in_backticks_exists() -> None:
    """In every README: `folder/file.py`, from the top, from the README's folder, or without .py."""
    wrong = []
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    for readme in READMES:
        text = BLOCK.sub("", readme.read_text(encoding="utf-8"))
        for path in re.findall(r"`((?:\w+/)+[\w.]*\.(?:py|txt|md))`", text):
            if not any((base / path).exists() for base in (ROOT, readme.parent)):
                wrong.append(f"{readme.relative_to(ROOT)}: {path}")
        for name in re.findall(r"`(test_\w+)`", text):
            if f"def {name}(" not in tests and f"{name}.py" not in all_test_files():
                wrong.append(f"{readme.relative_to(ROOT)}: {name}")
    assert not wrong


@cache
def all_test_files() -> frozenset[str]:
    return frozenset(path.name for path in (ROOT / "tests").rglob("*.py"))


def test_every_guarantee_names_code_and_tests() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if re.match(r"\| (G\d|L1) \| \*", line)
    ]
    assert [row[0] for row in rows] == [*(f"G{number}" for number in range(1, 9)), "L1"]
    for name, statement, code, tests, without in rows:
        assert statement
        assert without, name
        targets = [target for _, _, target in LINK.findall(code)]
        assert targets, name
        assert all(target.startswith(("broker/", "raft/", "client/")) for target in targets), name
        assert any(target.startswith("tests/") for _, _, target in LINK.findall(tests)), name
    assert len(set(re.findall(r"`(test_\w+)`", TEXT))) >= TESTS_NAMED_AT_LEAST


def test_every_command_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake (?:PYTHON=\S+ )?([a-z]+)(?=[`\s])", "\n".join(commands())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    verbs = set(re.findall(r"\bprozess ([a-z]+)\b", "\n".join(commands())))
    assert verbs <= set(COMMANDS), verbs - set(COMMANDS)
    assert len(verbs) > 10


def commands() -> list[str]:
    """Code of the README: what stands in backticks, and the blocks."""
    prose = BLOCK.sub("", TEXT)
    return [*re.findall(r"`[^`\n]+`", prose), *(body for _, body in BLOCK.findall(TEXT))]


def examples(language: str, word: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(TEXT) if kind == language and word in body]


def test_the_python_examples_are_short() -> None:
    for example in examples("python", "import"):
        lines = [line for line in example.splitlines() if line and "import" not in line]
        assert len(lines) <= 10, example


@pytest.mark.process
@pytest.mark.xdist_group("cluster")
def test_the_examples_run_as_they_stand(tmp_path: Path) -> None:
    """Shell and Python blocks from top to bottom, in an empty directory, as a reader types them."""
    first, last = examples("sh", "prozess ")
    producer, consumer = examples("python", "import")
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: v for name, v in os.environ.items() if name != "PROZESS_BROKERS"}
    environment |= {"PATH": here, "PYTHONPATH": str(ROOT)}

    def run(command: list[str], **more: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    try:
        shown = run(["sh", "-ec", first])
        brokers = re.search(r"^export PROZESS_BROKERS=(\S+)$", shown, re.MULTILINE)
        assert brokers is not None, shown
        sent = run([sys.executable, "-c", producer], PROZESS_BROKERS=brokers[1])
        assert sent.count("Delivered(topic='greetings'") == 10
        read = run([sys.executable, "-c", consumer], PROZESS_BROKERS=brokers[1])
        assert sorted(re.findall(r"b'hello (\d)'", read)) == [str(number) for number in range(10)]
        run(["sh", "-ec", last])
    finally:
        run(["prozess", "down"])
