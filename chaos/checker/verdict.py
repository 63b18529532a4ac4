"""The verdict and how it is told: forty lines that need no other document.

valid: the run is good evidence (all gates passed) and nothing is wrong. invalid: an anomaly was
found, whatever the gates say. unknown: nothing wrong was found, but a gate failed, so the absence
proves little. Exit codes 0, 1, 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from chaos.checker.anomalies import Finding, anomaly_named
from chaos.checker.losses import Loss

Outcome = Literal["valid", "invalid", "unknown"]

REPORT_LINES_MAX = 40

GUARANTEES: tuple[tuple[str, str], ...] = (
    ("G1", "durability: what was acked is there"),
    ("G2", "every ack had min.insync.replicas"),
    ("G3", "order: one record per offset, in send order, linearizable"),
    ("G4", "visibility: readers see committed prefixes"),
    ("G5", "idempotence: once and in order"),
    ("G6", "fencing: one leader per epoch"),
    ("G7", "metadata: one history for all nodes"),
    ("G8", "no phantom: only what was sent"),
    ("L1", "liveness: replicas become equal again"),
)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One guarantee. outcome: good, broken, or not judged for lack of evidence."""

    guarantee: str
    outcome: Literal["good", "broken", "not judged"]
    anomalies: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition for the run to count."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class Window:
    """A time without acks in one partition."""

    place: str
    start_ns: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that is known about a run. `counts`: numbers by name; `found`: anomalies with their
    number of occurrences; `allowed`: anomalies that the settings do not forbid, with the reason."""

    outcome: Outcome
    checks: tuple[CheckResult, ...]
    gates: tuple[Gate, ...]
    found: dict[str, int]
    examples: tuple[Finding, ...]
    counts: dict[str, int]
    seed: int = 0
    mutants: tuple[str, ...] = ()
    faults: dict[str, int] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    allowed: tuple[tuple[str, int, str], ...] = ()
    losses: tuple[Loss, ...] = ()
    """Acked records that are gone, within what flush=async allows."""
    notes: tuple[str, ...] = ()
    command: str = ""

    @property
    def exit_code(self) -> int:
        return {"valid": 0, "invalid": 1, "unknown": 2}[self.outcome]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not valid, one line each; empty when it is."""
        if self.outcome == "invalid":
            return tuple(f"{name} ({count})" for name, count in self.found.items())
        return tuple(gate.text for gate in self.gates if not gate.passed)

    def to_json(self) -> str:
        """Everything, as one JSON text."""
        raw = asdict(self)
        raw["exit_code"] = self.exit_code
        raw["reasons"] = self.reasons
        return json.dumps(raw, indent=1, ensure_ascii=False)

    def render(self, lines_max: int = REPORT_LINES_MAX) -> str:
        """Plain text of at most `lines_max` lines (0: no limit, every kept counterexample)."""
        head = self._head()
        tail = ["", f"again: {self.command}"] if self.command else []
        room = lines_max - len(head) - len(tail) if lines_max else 1 << 30
        lines = head + _tell_findings(self.found, self.examples, room) + tail
        return "\n".join(lines) + "\n"

    def _head(self) -> list[str]:
        count = self.counts.get
        mutants = f", with planted bug {', '.join(self.mutants)}" if self.mutants else ""
        lines = [
            f"VERDICT: {self.outcome.upper()} (seed {self.seed}{mutants})",
            *(f"  because: {reason}" for reason in self.reasons[:4]),
            f"done    {count('sends', 0):,} sends: {count('acked', 0):,} acked, "
            f"{count('failed', 0):,} refused, {count('unknown', 0):,} of unknown outcome; "
            f"{count('records_read', 0):,} records read",
            f"faults  {_fault_text(self.faults)}; "
            f"{count('leader_epoch_changes', 0)} leader changes",
        ]
        if self.windows:
            longest = self.windows[0]
            lines.append(
                f"gaps    longest time without an ack: {longest.duration_ms} ms in {longest.place}"
            )
        lines.append("judged")
        lines += [f"  {check.guarantee}  {check.outcome:10}  {check.text}" for check in self.checks]
        lines += [f"  allowed: {name} ({number}), {why}" for name, number, why in self.allowed[:2]]
        lines += _tell_losses(self.losses)
        lines.append("counts as evidence only if")
        lines += [f"  {'yes' if gate.passed else 'NO ':3}  {gate.text}" for gate in self.gates]
        lines += [f"note    {note}" for note in self.notes[:2]]
        return lines


def _tell_losses(losses: Sequence[Loss]) -> list[str]:
    """The largest loss in full, the others as a number; verdict.json has them all."""
    if not losses:
        return []
    largest = max(losses, key=lambda loss: loss.record_count)
    first, *how = largest.describe()
    lines = [f"lost    {first}", *(f"        {line}" for line in how)]
    if len(losses) > 1:
        rest = sum(loss.record_count for loss in losses) - largest.record_count
        lines.append(f"        and {rest:,} records in {len(losses) - 1} other stretches likewise")
    return lines


def _fault_text(faults: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in faults.items()) or "none"


def _tell_findings(found: dict[str, int], examples: Sequence[Finding], room: int) -> list[str]:
    """One counterexample per anomaly as long as there is room, then names only."""
    lines: list[str] = []
    names = list(found)
    for number, name in enumerate(names):
        shown = [example for example in examples if example.anomaly == name]
        block = _block(name, found[name], shown if room > 1_000 else shown[:1])
        waiting = len(names) - number - 1
        left = room - len(lines) - bool(waiting)
        if len(block) > left:
            block = block[: max(left, 0)]
        if not block:
            lines.append(f"also found: {', '.join(names[number:])}"[:200])
            break
        lines += block
    return lines[: max(room, 0)]


def _block(name: str, count: int, examples: Sequence[Finding]) -> list[str]:
    times = f"{count:,} times" if count > 1 else "once"
    lines = [f"{name} ({times}, breaks {anomaly_named(name).breaks})"]
    for example in examples:
        lines.append(f"  {example.place}: {example.lines[0] if example.lines else ''}")
        lines += [f"    {line}" for line in example.lines[1:]]
    return lines
