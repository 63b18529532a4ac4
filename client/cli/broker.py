"""`prozess broker`: one node in the foreground. `prozess up` starts its nodes with nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client.cli.common import expected

if TYPE_CHECKING:
    from broker.config import NodeConfig


@click.command(
    epilog="Example: prozess broker --config node.toml --format && "
    "prozess broker --config node.toml"
)
@click.option(
    "--config",
    "config_file",
    required=True,
    type=click.Path(path_type=Path),
    help="The node's settings (TOML).",
)
@click.option("--format", "formats", is_flag=True, help="Make the data directory, then end.")
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Listen on an address that others can reach. There is no authentication yet.",
)
def broker(config_file: Path, formats: bool, allow_remote: bool) -> int:
    """Run one node until it is told to stop (SIGTERM, Ctrl-C)."""
    config = _settings(config_file, allow_remote)
    if formats:
        _format(config)
        return 0
    from broker.server import run

    return run(config)


def _settings(path: Path, allow_remote: bool) -> NodeConfig:
    from broker.config import ConfigError, from_mapping, load

    with expected(ConfigError):
        if not allow_remote:
            return load(path)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return load(path)  # says what is wrong with the file
        return from_mapping({**raw, "allow_remote": True}, str(path))


def _format(config: NodeConfig) -> None:
    """Mark the data directory as this node's. Voters have the disk id that the quorum was told."""
    import secrets

    from broker.runtime.identity import (
        Identity,
        IdentityError,
        NotFormatted,
        format_data_dir,
        read_identity,
    )

    root = Path(config.data_dir)
    named = [voter.disk_id for voter in config.voters if voter.node_id == config.node_id]
    with expected(IdentityError):
        try:
            disk_id = named[0] if named else read_identity(root).disk_id
        except NotFormatted:
            disk_id = secrets.token_hex(16)
        format_data_dir(root, Identity(config.cluster_id, config.node_id, disk_id))
    click.echo(f"{root} is formatted for node {config.node_id} of cluster {config.cluster_id}")
