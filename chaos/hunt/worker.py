"""A process that runs simulations on demand, with planted bugs or without.

    python -m chaos.hunt.worker [--mutant NAME …]

Reads one task a line from standard input, writes one result a line to standard output, both JSON;
ends with its input. Mutants are applied before the first module of the program is imported, which
is why this is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.hunt.worker", description=__doc__)
    parser.add_argument("--mutant", action="append", default=[], help="a name of chaos.bugs")
    arguments = parser.parse_args()

    from chaos.bugs import REGISTRY
    from chaos.mutants import MutantError, apply_at_import

    try:
        apply_at_import(arguments.mutant, REGISTRY)
    except MutantError as error:
        print(f"prozess: {error}", file=sys.stderr)
        return 2
    for line in sys.stdin:
        print(json.dumps(perform(json.loads(line))), flush=True)
    return 0


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """`{"seed"}`, or `{"plan", "seed", "draws"}` (draws may be null), with `"keep"` true for the
    whole trace and the draws in the result."""
    from chaos.sim.plan import plan_from_json
    from chaos.sim.run import rerun, run_seed

    keep = bool(task.get("keep"))
    started = time.perf_counter()
    if "plan" in task:
        plan = plan_from_json(task["plan"])
        result = rerun(plan, task["seed"], task["draws"], keep_trace=keep)
    else:
        result = run_seed(task["seed"], keep_trace=keep)
    return {
        "seed": result.seed,
        "plan": result.plan.to_json(),
        "trace_hash": result.trace_hash,
        "violations": list(result.violations),
        "acked": result.acked,
        "unknown": result.unknown,
        "leader_changes": result.leader_changes,
        "faults": result.faults,
        "facts": result.facts,
        "crashes": result.crashes,
        "events": result.events,
        "virtual_ms": result.virtual_ms,
        "wall_s": time.perf_counter() - started,
        "entries": [list(entry) for entry in result.entries] if keep else [],
        "draws": result.draws if keep else {},
    }


if __name__ == "__main__":
    sys.exit(main())
