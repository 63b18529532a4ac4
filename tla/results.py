"""What the runs gave last time: the states each case must have again, and the README's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tla.cases import CASES, FOLDER, MUTANTS, Case, Mutant
from tla.errors import TlaError
from tla.runner import Outcome

EXPECTED = FOLDER / "expected.json"
README = FOLDER / "README.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
ENGINES = ("explorer", "tlc")


def load(path: Path = EXPECTED) -> dict[str, Any]:
    """name -> {"distinct": of a case, "seconds": {engine: s}, "steps": of a mutant}"""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return data


def expected_states(results: dict[str, Any], run: Case | Mutant) -> int | None:
    known: int | None = results.get(run.name, {}).get("distinct")
    return known


def cost(results: dict[str, Any], run: Case | Mutant) -> float:
    """Seconds that it took last time; unknown ones count as long."""
    seconds: dict[str, float] = results.get(run.name, {}).get("seconds", {})
    return max(seconds.values(), default=1e6)


def merged(results: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """`results` with those runs noted that came out as they must, in the order of the tables."""
    new = {name: dict(entry) for name, entry in results.items()}
    for outcome in outcomes:
        if outcome.problem:
            raise TlaError(f"{outcome.name}: {outcome.problem}: nothing is written")
        entry = new.setdefault(outcome.name, {})
        seconds = {**entry.get("seconds", {}), outcome.engine: round(outcome.seconds, 1)}
        entry["seconds"] = dict(sorted(seconds.items()))
        if outcome.is_mutant:
            entry["steps"] = len(outcome.story) - 2
        else:
            entry["distinct"] = outcome.distinct
    order = [run.name for run in (*CASES, *MUTANTS)]
    return {name: new[name] for name in order if name in new}


def save(results: dict[str, Any]) -> None:
    lines = [f"  {json.dumps(n)}: {json.dumps(entry)}" for n, entry in results.items()]
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(with_tables(text, results), encoding="utf-8")


def with_tables(text: str, results: dict[str, Any]) -> str:
    """The README's text with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise TlaError(f"{README.name} has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{tables(results)}\n{END}{after}"


def tables(results: dict[str, Any]) -> str:
    """Models and mutants as Markdown."""
    lines = [
        "| run | tier | bounds that differ | claims | distinct states | explorer, s | TLC, s |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for case in CASES:
        entry = results.get(case.name, {})
        config = case.config()
        claims = [*config.invariants, *config.properties]
        named = ", ".join(sorted({claim.split("_")[0] for claim in claims if "_" in claim}))
        seconds = [_seconds(entry, case, engine) for engine in ENGINES]
        lines.append(
            f"| {case.name} | {case.tier.value} | {_bounds(case)} | {named} "
            f"| {entry.get('distinct', 0):,} | {' | '.join(seconds)} |"
        )
    lines += ["", "| without | breaks | known as | bounds | steps | explorer, s | TLC, s |"]
    lines.append("|---|---|---|---|---:|---:|---:|")
    for mutant in MUTANTS:
        entry = results.get(mutant.name, {})
        seconds = [_seconds(entry, mutant, engine) for engine in ENGINES]
        what = "fairness" if mutant.unfair else ", ".join(f"`{rule}`" for rule in mutant.broken)
        lines.append(
            f"| {mutant.module}: {what} | `{mutant.claim}` | {mutant.origin} | {_bounds(mutant)} "
            f"| {entry.get('steps', 0)} | {' | '.join(seconds)} |"
        )
    return "\n".join(lines)


def _bounds(run: Case | Mutant) -> str:
    def shown(value: object) -> str:
        return str(len(value)) if isinstance(value, frozenset) else str(value)

    return ", ".join(f"{name} {shown(value)}" for name, value in run.changes.items())


def _seconds(entry: dict[str, Any], run: Case | Mutant, engine: str) -> str:
    seconds = entry.get("seconds", {}).get(engine)
    if seconds is None:
        return "–" if engine == "explorer" and run.needs_tlc else "not run"
    return f"{seconds}"
