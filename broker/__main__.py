"""`python -m broker --config node.toml`: one node in the foreground."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from broker.config import ConfigError, load
from broker.server import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m broker", description="Run one node.")
    parser.add_argument("--config", required=True, type=Path, help="the node's settings (TOML)")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
