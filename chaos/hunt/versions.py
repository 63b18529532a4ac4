"""Which program a recorded run belongs to: draws mean nothing to another one."""

from __future__ import annotations

import platform
import subprocess
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("broker", "chaos", "client", "raft")
CODECS = ("cramjam", "crc32c", "lz4", "msgpack", "zstandard")


def source_digest() -> str:
    """Of every module that a simulated run may execute."""
    digest = blake2b(digest_size=8)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def commit() -> str:
    """The commit that is checked out, `+changes` behind it if files differ; "" outside git."""
    named = _git("rev-parse", "--short=12", "HEAD")
    if not named:
        return ""
    return f"{named}+changes" if _git("status", "--porcelain", *PACKAGES) else named


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=10
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def present() -> dict[str, str]:
    """What a replay file says of the program that made it."""
    return {
        "commit": commit(),
        "source": source_digest(),
        "python": platform.python_version(),
        "codecs": " ".join(f"{name}-{version(name)}" for name in CODECS),
    }


def difference(recorded: dict[str, str]) -> str:
    """Why the present program cannot be trusted to repeat a run of `recorded`; "" if it can."""
    now = present()
    if recorded.get("source") != now["source"]:
        needed = recorded.get("commit") or "unknown"
        return f"it was recorded by commit {needed}, this is {now['commit'] or 'another program'}"
    if recorded.get("codecs") != now["codecs"]:
        return f"it was recorded with codecs {recorded.get('codecs')}, here are {now['codecs']}"
    mine, theirs = now["python"].split(".")[:2], str(recorded.get("python")).split(".")[:2]
    if mine != theirs:
        return f"it was recorded by Python {recorded.get('python')}, this is {now['python']}"
    return ""
