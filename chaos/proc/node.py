"""A node with planted bugs: edits the named modules at import, then runs the ordinary node.

    python -m chaos.proc.node --mutant NAME [--mutant NAME …] --config node.toml

The brokers themselves carry no such switch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.proc.node", description=__doc__)
    parser.add_argument("--mutant", action="append", default=[], help="a name of chaos.bugs")
    parser.add_argument("--config", required=True, type=Path, help="the node's settings (TOML)")
    arguments = parser.parse_args()

    from chaos.bugs import REGISTRY
    from chaos.mutants import MutantError, apply_at_import

    try:
        apply_at_import(arguments.mutant, REGISTRY)
    except MutantError as error:
        print(f"prozess: {error}", file=sys.stderr)
        return 2
    from broker.config import ConfigError, load
    from broker.server import run

    try:
        return run(load(arguments.config))
    except ConfigError as error:
        print(f"prozess: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
