"""How a verb finds the cluster and reads client settings: `-b`, PROZESS_BROKERS, `.prozess/`, `-X`.

Also the one place where client errors become a line on stderr and an exit code: 1 when the cluster
or the client definitely refused, 2 when nobody could be asked or the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from client.cli.common import CLUSTER_ROOT, EXIT_BAD, EXIT_UNKNOWN, Failure

Verb = TypeVar("Verb", bound=Callable[..., Any])

BOOLEANS = {"true": True, "false": False}


def brokers_option(verb: Verb) -> Verb:
    """`-b host:port,…`, passed as `brokers` (None when not given)."""
    return click.option(
        "-b",
        "--brokers",
        envvar="PROZESS_BROKERS",
        metavar="HOST:PORT,…",
        help="Where to find the cluster.  [default: $PROZESS_BROKERS, else the local cluster that "
        "runs under .prozess]",
    )(verb)


def settings_option(text: str) -> Callable[[Verb], Verb]:
    """`-X name=value`, repeatable, passed as `settings`: pairs of strings."""
    return click.option(
        "-X", "settings", multiple=True, metavar="NAME=VALUE", callback=_pairs, help=text
    )


def _pairs(
    context: click.Context, parameter: click.Parameter, given: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not name=value", context, parameter)
        # Kafka's own spelling is welcome: acks, batch.size, min.insync.replicas.
        pairs.append((name.strip().replace(".", "_"), value.strip()))
    return tuple(pairs)


def bootstrap(brokers: str | None, root: Path = CLUSTER_ROOT) -> str:
    """The bootstrap addresses: as given, else those of the one local cluster that runs."""
    if brokers:
        return brokers
    from chaos.proc.cluster import Cluster
    from chaos.proc.layout import ClusterError

    running: dict[str, str] = {}
    for spec in sorted(root.glob("*/cluster.json")):
        try:
            cluster = Cluster.open(spec.parent)
        except ClusterError:
            continue  # not readable as a cluster, so it is not the one that runs
        if cluster.running():
            running[cluster.spec.name] = cluster.spec.bootstrap
    if not running:
        raise Failure(
            f"no cluster runs under {root}: start one with `prozess up`, or name one with "
            "-b HOST:PORT or PROZESS_BROKERS"
        )
    if len(running) > 1:
        name, addresses = next(iter(running.items()))
        raise Failure(
            f"{len(running)} clusters run here ({', '.join(running)}): choose one with -b, as in "
            f"-b {addresses} for {name}"
        )
    return next(iter(running.values()))


def typed_settings(kind: type, settings: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Settings of a client in their types, by the fields of its config dataclass.

    What cannot be converted, and unknown names, are passed on as they are: the config reports all
    mistakes at once.
    """
    types = {item.name: str(item.type) for item in fields(kind)}
    return {name: _typed(types.get(name, ""), value) for name, value in settings}


def _typed(type_name: str, text: str) -> object:
    if type_name == "int" and text.removeprefix("-").isdecimal():
        return int(text)
    if type_name == "bool":
        return BOOLEANS.get(text.lower(), text)
    return text


def client_config(
    kind: type, brokers: str, settings: Sequence[tuple[str, str]], defaults: Mapping[str, Any]
) -> Any:
    """A client's config from defaults of the verb and `-X`; Failure naming every mistake."""
    from client.config import build_config
    from client.errors import ConfigError

    given = {"bootstrap_servers": brokers, **defaults, **typed_settings(kind, settings)}
    try:
        return build_config(kind, None, given)
    except ConfigError as error:
        raise Failure("; ".join(error.mistakes)) from error


@contextmanager
def client_errors() -> Iterator[None]:
    """Errors of client calls as one line: exit 1 for a definite refusal, else 2."""
    from broker.wire.errors import ApiError
    from client.errors import ClientError, ClientTimeout, OutcomeUnknown

    try:
        yield
    except ApiError as error:
        raise Failure(str(error), EXIT_BAD) from error
    except (ClientTimeout, OutcomeUnknown) as error:
        raise Failure(str(error), EXIT_UNKNOWN) from error
    except ClientError as error:
        raise Failure(str(error), EXIT_BAD) from error
