"""The zoo's results where people and tests look for them: a table in chaos/README.md, and the first
seed that catches each bug."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from chaos.bugs import MUTANTS, REGISTRY
from chaos.hunt.zoo import Row

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "chaos" / "README.md"
FIRST_SEEDS = ROOT / "tests" / "testdata" / "sim" / "first_seeds.json"
BEGIN, END = "<!-- zoo begin -->", "<!-- zoo end -->"


def table(rows: Sequence[Row]) -> str:
    """As Markdown: what was caught, then what other tests catch."""
    lines = [
        "| bug | origin | caught by | at seed | seconds | story |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        origin = REGISTRY[row.mutant].origin
        caught = row.caught_by or "**not caught**"
        story = f"{row.lines} lines" if row.lines else ""
        lines.append(
            f"| {row.mutant} | {origin} | {caught} | {row.seed or ''} | {row.seconds:.0f} "
            f"| {story} |"
        )
    lines += [
        "",
        "Not met by the general search, and why; the named test fails with the bug planted:",
        "",
        "| bug | origin | where |",
        "|---|---|---|",
    ]
    for mutant in MUTANTS:
        if mutant.elsewhere:
            lines.append(f"| {mutant.name} | {mutant.origin} | {mutant.elsewhere} |")
    return "\n".join(lines)


def write_scorecard(rows: Sequence[Row]) -> None:
    """Put the rows of a whole zoo in place of the last ones."""
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    README.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{tail}", encoding="utf-8")
    seeds = {row.mutant: [row.seed, row.caught_by] for row in rows if row.is_caught}
    FIRST_SEEDS.parent.mkdir(parents=True, exist_ok=True)
    FIRST_SEEDS.write_text(json.dumps(seeds, indent=1) + "\n", encoding="utf-8")
