"""One run of TLC: its files in a folder of its own, its answer read from what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tla.errors import TlaError
from tla.explorer.explore import Found
from tla.model import Config, Step
from tla.tools import Tools

HOLDS, BROKEN = 0, (12, 13)
_COUNTS = re.compile(r"^(\d+) states generated, (\d+) distinct states found", re.M)
_DEPTH = re.compile(r"^The depth of the complete state graph search is (\d+)", re.M)
_STATE = re.compile(r"^State \d+: (.*)$|^\d+: (Stuttering|Back to state.*)$", re.M)
_ACTION = re.compile(r"<(\w+)")


def run_tlc(folder: Path, config: Config, tools: Tools, heap_mb: int = 3_000) -> Found:
    """What TLC finds. TlaError, with its own words, if it cannot judge."""
    with tempfile.TemporaryDirectory(prefix="prozess-tla-") as name:
        scratch = Path(name)
        for module in folder.glob("*.tla"):
            shutil.copy(module, scratch)
        (scratch / "run.cfg").write_text(config.text(), encoding="utf-8")
        # TLC sends statistics unless this file says no, and looks for it in the home directory.
        (scratch / ".tlaplus").mkdir()
        (scratch / ".tlaplus" / "esc.txt").write_text("NO_STATISTICS\n")
        command = [
            tools.java, f"-Duser.home={scratch}", "-XX:+UseParallelGC", f"-Xmx{heap_mb}m",
            "-cp", str(tools.jar.resolve()), "tlc2.TLC", "-workers", "1", "-cleanup",
            "-metadir", str(scratch / "states"), "-config", "run.cfg", f"{config.module}.tla",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    return read_output(config, done.returncode, done.stdout + done.stderr)


def read_output(config: Config, code: int, output: str) -> Found:
    """TLC's exit code and text as a verdict."""
    counts = list(_COUNTS.finditer(output))
    if code != HOLDS and (code not in BROKEN or not counts):
        words = [line for line in output.splitlines() if line.strip()]
        errors = [n for n, line in enumerate(words) if "rror" in line or "Exception" in line]
        shown = words[errors[0] : errors[0] + 6] if errors else words[-6:]
        raise TlaError(
            f"{config.source}: TLC ends with {code}: {' '.join(' '.join(shown).split())}"
        )
    generated, distinct = (int(counts[-1][1]), int(counts[-1][2])) if counts else (0, 0)
    depth = _DEPTH.search(output)
    found = Found(generated, distinct, int(depth[1]) if depth else 0, {})
    if code in BROKEN:
        claims = (*config.invariants, *config.properties)
        named = [claim for claim in claims if re.search(rf"\b{claim}\b", output)]
        found.broken = (named or list(claims))[0]
        found.steps = _steps(output)
    return found


def _steps(output: str) -> tuple[Step, ...]:
    """The states that TLC prints, each `/\\ variable = value` over one or more lines."""
    heads = list(_STATE.finditer(output))
    steps = []
    for place, head in enumerate(heads):
        end = heads[place + 1].start() if place + 1 < len(heads) else len(output)
        body = output[head.end() : end].split("\n\n")[0]
        state: dict[str, str] = {}
        for line in body.splitlines():
            variable = re.match(r"(?:/\\ )?(\w+) = (.*)", line)
            if variable is not None:
                last = variable[1]
                state[last] = variable[2]
            elif state:
                state[last] += " " + line.strip()
        action = _ACTION.search(head[1] or "")
        steps.append(Step(action[1] if action else head[2] or "", state))
    return tuple(steps)
