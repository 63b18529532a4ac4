"""A node with planted bugs, or with a disk that forgets: then the ordinary node runs.

    python -m chaos.proc.node [--mutant NAME …] [--forgetful-disk] --config node.toml

The brokers themselves carry no such switch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.proc.node", description=__doc__)
    parser.add_argument("--mutant", action="append", default=[], help="a name of chaos.bugs")
    parser.add_argument(
        "--forgetful-disk",
        action="store_true",
        help="kill -9 is power loss: what was not synced is gone with the process",
    )
    parser.add_argument("--config", required=True, type=Path, help="the node's settings (TOML)")
    arguments = parser.parse_args()

    from chaos.bugs import REGISTRY
    from chaos.mutants import MutantError, apply_at_import

    try:
        apply_at_import(arguments.mutant, REGISTRY)
    except MutantError as error:
        print(f"prozess: {error}", file=sys.stderr)
        return 2
    if arguments.forgetful_disk:
        from broker.runtime import identity
        from chaos.proc.forgetful_disk import ForgetfulDisk

        vars(identity)["RealDisk"] = ForgetfulDisk
    from broker.config import ConfigError, load
    from broker.server import run

    try:
        return run(load(arguments.config))
    except ConfigError as error:
        print(f"prozess: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
