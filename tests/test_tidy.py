"""The house linter: rules of the layout that only hold because this test enforces them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("broker", "raft", "client", "chaos", "tla")
LINES_MAX = 500
TEST_LINES_MAX = 700
FUNCTION_LINES_MAX = 70
TABLE_MARKER = "# tidy: table"
"""In a file's first lines, with the reason: exempt from the line limit because it is a table."""

SOURCES = sorted(
    path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))

# What each part may import of this project. The longest matching prefix on the left decides.
ALLOWED: dict[str, tuple[str, ...]] = {
    "raft": ("raft",),
    "broker.wire": ("broker.wire",),
    "broker.ports": (),
    "broker.events": ("broker.ports", "broker.wire"),
    "broker.config": ("broker.wire",),
    "broker.outbox": ("broker.events", "broker.ports"),
    "broker.log": ("broker.wire", "broker.ports"),
    # The image is the vocabulary of committed metadata: plain values without behaviour.
    "broker.replica": (
        "broker.replica",
        "broker.log",
        "broker.wire",
        "broker.events",
        "broker.outbox",
        "broker.ports",
        "broker.config",
        "broker.quorum.image",
    ),
    "broker.quorum": (
        "broker.quorum",
        "raft",
        "broker.wire",
        "broker.ports",
        "broker.events",
        "broker.config",
    ),
    "broker.purgatory": ("broker.events", "broker.wire"),
    "broker.handlers": ("broker", "raft"),
    "broker.runtime": (
        "broker.ports",
        "broker.wire",
        "broker.events",
        "broker.config",
        "broker.log.cold_batches",
        "broker.log.leader_epochs",
    ),
    "broker": ("broker", "raft"),
    "client.cli": ("broker", "client", "chaos", "tla"),
    "client": ("client", "broker.wire"),
    "chaos.checker": ("chaos.checker", "chaos.history", "chaos.evidence"),
    "chaos.history": (),
    "chaos.evidence": ("broker.wire", "broker.log"),
    "chaos.recording": ("chaos.history", "client"),
    "chaos.bounds": ("broker.config",),
    "chaos.hunt": ("chaos",),
    "chaos.sim": ("chaos", "broker", "client", "raft"),
    "chaos.proc.node": ("broker", "chaos"),
    "chaos.proc.forgetful_disk": ("broker",),
    "chaos.proc": ("chaos", "client", "broker.config", "broker.wire"),
    "chaos": ("chaos",),
    "tla": ("tla",),
}
NEVER: dict[str, tuple[str, ...]] = {
    "broker.handlers": ("broker.core", "broker.server", "broker.runtime"),
    "broker": ("client", "chaos"),
    "client": ("chaos",),
    "client.cli": (),
    "chaos.sim": ("broker.server", "broker.runtime", "chaos.proc", "chaos.hunt"),
    "chaos.hunt": ("chaos.proc",),
}

PURE_PREFIXES = (
    "raft",
    "broker.wire",
    "broker.log",
    "broker.replica",
    "broker.quorum",
    "broker.handlers",
    "broker.purgatory",
    "broker.core",
    "broker.broker_part",
    "broker.lifecycle",
    "broker.controller_host",
    "broker.controller_channel",
    "broker.metadata_feed",
    "broker.outbox",
    "broker.events",
    "chaos.bounds",
    "chaos.recording",
    "chaos.checker",
    "chaos.sim",
    "tla.explorer.lexer",
    "tla.explorer.parser",
    "tla.explorer.syntax",
    "tla.story",
    "client.accumulator",
    "client.cluster",
    "client.config",
    "client.delivery",
    "client.errors",
    "client.events",
    "client.fetched",
    "client.fetcher",
    "client.idempotence",
    "client.intake",
    "client.metadata",
    "client.offsets",
    "client.partitioner",
    "client.requests",
    "client.retry",
    "client.sender",
)
IMPURE_MODULES = frozenset(
    {
        "time",
        "random",
        "threading",
        "zmq",
        "asyncio",
        "socket",
        "select",
        "subprocess",
        "uuid",
        "secrets",
        "os",
        "tempfile",
    }
)
BANNED_CALLS_IN_PURE = frozenset({"hash", "id", "open", "print", "input"})


def module_name(path: Path) -> str:
    parts = list(path.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports_of(tree: ast.Module) -> list[tuple[str, int]]:
    """Every imported module with its line, as far as names can tell."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / Path(*full.split("."))).with_suffix(".py").exists()
                found.append((full if is_module else node.module, node.lineno))
    return found


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def longest(name: str, table: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    prefixes = [prefix for prefix in table if is_within(name, prefix)]
    return table[max(prefixes, key=len)] if prefixes else None


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_follow_the_table(path: Path) -> None:
    name = module_name(path)
    allowed = longest(name, ALLOWED)
    never = longest(name, NEVER) or ()
    wrong = []
    for imported, line in imports_of(tree_of(path)):
        if imported.split(".")[0] not in PACKAGES:
            continue
        own = is_within(imported, name.rpartition(".")[0]) and "." in name
        good = own or any(is_within(imported, prefix) for prefix in allowed or ())
        if not good or any(is_within(imported, prefix) for prefix in never):
            wrong.append(f"{path}:{line} imports {imported}")
    assert not wrong


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if any(is_within(module_name(p), q) for q in PURE_PREFIXES)],
    ids=str,
)
def test_pure_modules_touch_no_world(path: Path) -> None:
    tree = tree_of(path)
    wrong = [
        f"{path}:{line} imports {name}"
        for name, line in imports_of(tree)
        if name.split(".")[0] in IMPURE_MODULES
    ]
    wrong += [
        f"{path}:{node.lineno} calls {node.func.id}()"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in BANNED_CALLS_IN_PURE
    ]
    if is_within(module_name(path), "chaos.checker"):
        wrong = [line for line in wrong if not line.endswith("calls open()")]
    assert not wrong


def test_raft_needs_the_standard_library_only() -> None:
    for path in SOURCES:
        if path.parts[0] == "raft":
            for name, line in imports_of(tree_of(path)):
                top = name.split(".")[0]
                assert top == "raft" or top in sys.stdlib_module_names, f"{path}:{line} {name}"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=str)
def test_files_and_functions_are_short(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    limit = TEST_LINES_MAX if path.parts[0] == "tests" else LINES_MAX
    if not any(line.startswith(TABLE_MARKER) for line in lines[:30]):
        assert len(lines) <= limit, f"{path} has {len(lines)} lines"
    if path.parts[0] == "tests":
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            size = node.end_lineno - node.lineno + 1
            assert size <= FUNCTION_LINES_MAX, f"{path}:{node.lineno} {node.name} has {size} lines"


def test_no_module_is_dead() -> None:
    """Every module is imported by another one, by a test, or is an entry point."""
    entries = {"client.cli.main"}
    imported: set[str] = set()
    lazy = re.compile(r'"((?:broker|raft|client|chaos|tla)(?:\.\w+)+)"')
    for path in [*SOURCES, *TESTS, Path("pyproject.toml")]:
        text = (ROOT / path).read_text(encoding="utf-8")
        imported |= set(lazy.findall(text))
        if path.suffix == ".py":
            own = module_name(path) if path in SOURCES else ""
            imported |= {name for name, _ in imports_of(ast.parse(text)) if name != own}
    dead = [
        module_name(path)
        for path in SOURCES
        if path.name not in ("__init__.py", "__main__.py")
        and module_name(path) not in imported | entries
    ]
    assert not dead


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_is_named_in_its_folders_readme(path: Path) -> None:
    if path.name in ("__init__.py", "__main__.py"):
        return
    for folder in path.parents:
        readme = ROOT / folder / "README.md"
        if folder != Path(".") and readme.exists():
            assert f"{path.stem}" in readme.read_text(encoding="utf-8"), f"{readme}: no {path.stem}"
            return
    pytest.fail(f"no README.md above {path}")


def test_no_leftovers() -> None:
    """No unfinished business, no skipped tests, no swallowed exceptions in the code."""
    marks = ("TODO", "FIXME", "XXX", "NotImplementedError", "pytest.mark.skip", "pytest.mark.xfail")
    wrong = []
    for path in [*SOURCES, *TESTS]:
        if path.name == "test_tidy.py":
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        wrong += [f"{path}: {mark}" for mark in marks if mark in text]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or (
                    isinstance(node.type, ast.Name)
                    and node.type.id in ("Exception", "BaseException")
                )
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                empty = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
                if empty or (broad and not raises):
                    wrong.append(f"{path}:{node.lineno} swallows an exception")
    assert not wrong


def test_top_level_holds_only_what_is_named() -> None:
    import subprocess

    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    top = {name.split("/")[0] for name in listed}
    assert top <= {
        *PACKAGES,
        "tests",
        "bench",
        "pyproject.toml",
        "README.md",
        "Makefile",
        "LICENSE",
        ".ci",
        ".gitignore",
    }
