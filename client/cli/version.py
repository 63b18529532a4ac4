"""`prozess version`."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from client.cli.common import output_option, print_json


def package_versions() -> dict[str, str]:
    """Prozess, Python and the libraries that bytes pass through."""
    names = ("prozess", "pyzmq", "msgpack", "crc32c", "lz4", "zstandard", "cramjam", "mmh3")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@click.command(epilog="Example: prozess version -o json")
@output_option
def version(output: str) -> None:
    """Print the versions of Prozess, Python and the libraries it stands on."""
    found = package_versions()
    if output == "json":
        print_json(found)
        return
    click.echo(f"prozess {found.pop('prozess')}")
    for name, number in found.items():
        click.echo(f"  {name} {number}")
