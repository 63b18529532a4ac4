"""What every verb shares: the one-line failure, JSON output, the options that find a cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

EXIT_GOOD = 0
EXIT_BAD = 1
EXIT_UNKNOWN = 2
EXIT_INTERRUPTED = 130

DEFAULT_CLUSTER = "default"
CLUSTER_ROOT = Path(".prozess")

Verb = TypeVar("Verb", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Ends a verb with one line on stderr that says what to do.

    `code`: 1 for a bad verdict, 2 when the answer is unknown or the verb could not run.
    """

    def __init__(self, message: str, exit_code: int = EXIT_UNKNOWN) -> None:
        super().__init__(" ".join(message.split()))
        self.code = exit_code


@contextmanager
def expected(*kinds: type[Exception], exit_code: int = EXIT_UNKNOWN) -> Iterator[None]:
    """Errors of these kinds become a Failure with the same words."""
    try:
        yield
    except kinds as error:
        raise Failure(str(error), exit_code) from error


def print_json(value: object) -> None:
    """One JSON value on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False))


def output_option(verb: Verb) -> Verb:
    """`-o text|json`, passed as `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How to print data.",
    )(verb)


def cluster_options(verb: Verb) -> Verb:
    """`--name` and `--data-dir`, passed as `directory`, the cluster's directory."""

    def directory(context: click.Context, _: click.Parameter, value: Path | None) -> Path:
        name: str = context.params.pop("name")
        return value if value is not None else CLUSTER_ROOT / name

    verb = click.option(
        "--data-dir",
        "directory",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="PROZESS_CLUSTER_DIR",
        callback=directory,
        help="Directory of the cluster.  [default: .prozess/NAME]",
    )(verb)
    return click.option(
        "--name",
        default=DEFAULT_CLUSTER,
        show_default=True,
        is_eager=True,
        callback=_check_name,
        help="Which local cluster.",
    )(verb)


def _check_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value or value.startswith(".") or not all(c.isalnum() or c in "._-" for c in value):
        raise click.BadParameter("take letters, digits, . _ -", context, parameter)
    # Kept for the callback of --data-dir, which turns both into one directory.
    context.params["name"] = value
    return value


def wants_colour(stream: Any = None) -> bool:
    """Whether to colour: a terminal, and nobody set NO_COLOR."""
    stream = stream if stream is not None else sys.stdout
    return bool(stream.isatty()) and "NO_COLOR" not in os.environ
