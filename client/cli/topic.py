"""`prozess topic create|list|describe|alter|delete-records|delete`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from broker.wire.errors import ApiError, ErrorCode
from client.cli.common import output_option, print_json
from client.cli.connect import (
    bootstrap,
    brokers_option,
    client_config,
    client_errors,
    settings_option,
)
from client.cli.tables import table

if TYPE_CHECKING:
    from broker.wire.messages import TopicInfo
    from client.admin import Admin

SPREAD_MS = 2_000
"""How long a topic just created may be unknown to the broker that is asked about it."""
POLL_S = 0.1
DEFAULT = -1
"""Lets the cluster choose."""


def open_admin(servers: str) -> Admin:
    """An Admin with the defaults; Failure for addresses that are none."""
    from client.admin import Admin
    from client.config import AdminConfig

    return Admin(client_config(AdminConfig, servers, (), {}))


def parse_assignment(text: str) -> tuple[tuple[int, ...], ...]:
    """'1,4,5;4,5,1' -> replicas of partition 0, of partition 1; ValueError says what is wrong."""
    rows = []
    for partition, row in enumerate(text.split(";")):
        names = [name.strip() for name in row.split(",")]
        if not all(name.isascii() and name.isdecimal() for name in names):
            raise ValueError(
                f"{row!r} (partition {partition}) is no list of node ids: write 1,4,5;4,5,1"
            )
        nodes = tuple(int(name) for name in names)
        if len(set(nodes)) != len(nodes):
            raise ValueError(f"partition {partition} names a node twice: {row}")
        rows.append(nodes)
    return tuple(rows)


def _assignment(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[tuple[int, ...], ...]:
    if text is None:
        return ()
    try:
        return parse_assignment(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.group(epilog="Example: prozess topic create t -p 3 && prozess topic describe t")
def topic() -> None:
    """Create, list, describe, change and delete topics."""


@topic.command(
    epilog="Example: prozess topic create t -p 3 -r 3 -X min_insync_replicas=2    "
    "prozess topic create t --assign '1,4,5;4,5,1'"
)
@click.argument("name")
@click.option("-p", "--partitions", type=click.IntRange(1), help="How many.  [default: 1]")
@click.option(
    "-r",
    "--replication-factor",
    type=click.IntRange(1),
    help="Replicas of each partition.  [default: 3, or as many as there are brokers]",
)
@click.option(
    "--assign",
    "assignment",
    metavar="LISTS",
    callback=_assignment,
    help="Node ids per partition, the preferred leader first: '1,4,5;4,5,1' makes two partitions.",
)
@click.option("--if-not-exists", is_flag=True, help="It is fine if the topic is there already.")
@brokers_option
@settings_option("A topic setting, as in -X min_insync_replicas=2 -X flush=async. Repeatable.")
@output_option
def create(
    name: str,
    partitions: int | None,
    replication_factor: int | None,
    assignment: tuple[tuple[int, ...], ...],
    if_not_exists: bool,
    brokers: str | None,
    settings: tuple[tuple[str, str], ...],
    output: str,
) -> int:
    """Create the topic NAME.

    Settings: min_insync_replicas, flush (ack, async or always; fixed for the life of the topic),
    retention_ms and retention_bytes (-1: for ever), segment_bytes, segment_ms, message_max_bytes,
    message_timestamp_type (CreateTime or LogAppendTime), unclean_leader_election_enable (true:
    rather than nobody any live replica may lead; what is committed and not in its log is lost).
    """
    if assignment and (partitions is not None or replication_factor is not None):
        raise click.UsageError("--assign says how many partitions and replicas: leave -p and -r")
    servers = bootstrap(brokers)
    with client_errors(), open_admin(servers) as admin:
        try:
            admin.create_topic(
                name,
                partitions=partitions or DEFAULT,
                replication_factor=replication_factor or DEFAULT,
                assignments=assignment,
                settings=dict(settings),
            )
        except ApiError as error:
            if not (if_not_exists and error.code is ErrorCode.TOPIC_ALREADY_EXISTS):
                raise
        info = await_topic(admin, name)
    if output == "json":
        print_json(topic_json(info))
    else:
        click.echo(_headline(info))
    return 0


def await_topic(admin: Admin, name: str) -> TopicInfo:
    """The topic's description; ApiError when it is unknown for longer than news takes to spread."""
    deadline_ns = time.monotonic_ns() + SPREAD_MS * 1_000_000
    while True:
        try:
            return admin.describe_topics([name])[0]
        except ApiError as error:
            if error.code is not ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise
            if time.monotonic_ns() >= deadline_ns:
                detail = f"there is no topic {name}: `prozess topic create {name}` makes it"
                raise ApiError(error.code, detail) from error
        time.sleep(POLL_S)


def ensure_topic(servers: str, name: str, partitions: int | None, *, create: bool) -> int:
    """message_max_bytes of the topic, which is created first where that is wanted."""
    with open_admin(servers) as admin:
        if create:
            try:
                admin.create_topic(name, partitions=partitions or DEFAULT)
            except ApiError as error:
                if error.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                    raise
        return await_topic(admin, name).message_max_bytes


@topic.command("list", epilog="Example: prozess topic list -o json")
@brokers_option
@output_option
def list_topics(brokers: str | None, output: str) -> None:
    """List all topics."""
    servers = bootstrap(brokers)
    with client_errors(), open_admin(servers) as admin:
        infos = admin.describe_topics()
    if output == "json":
        print_json([topic_json(info) for info in infos])
        return
    rows = [("topic", "partitions", "replicas", "min isr", "flush")]
    for info in infos:
        replicas = len(info.partitions[0].replicas) if info.partitions else 0
        rows.append(
            (
                info.name,
                str(len(info.partitions)),
                str(replicas),
                str(info.min_insync_replicas),
                info.flush,
            )
        )
    if len(rows) > 1:
        click.echo(table(rows))


@topic.command(epilog="Example: prozess topic describe t")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@brokers_option
@output_option
def describe(names: Sequence[str], brokers: str | None, output: str) -> int:
    """Show leaders, epochs, replicas and in-sync replicas of topics.

    Exit code 1 if a topic does not exist.
    """
    servers = bootstrap(brokers)
    with client_errors(), open_admin(servers) as admin:
        infos = [await_topic(admin, name) for name in names]
    if output == "json":
        print_json([topic_json(info) for info in infos])
        return 0
    for info in infos:
        click.echo(_headline(info))
        click.echo(table(_partition_rows(info)))
    return 0


@topic.command(
    epilog="Example: prozess topic alter t -X retention_ms=3600000    prozess topic alter t -p 6"
)
@click.argument("name")
@click.option("-p", "--partitions", type=click.IntRange(2), help="How many there shall be in all.")
@brokers_option
@settings_option("A topic setting, as for create; all but flush can change. Repeatable.")
@output_option
def alter(
    name: str,
    partitions: int | None,
    brokers: str | None,
    settings: tuple[tuple[str, str], ...],
    output: str,
) -> int:
    """Change settings of the topic NAME, or give it more partitions.

    Records stay where they are. With more partitions a key maps to another one than before: who
    relies on the order of a key's records must read all old ones first.
    """
    if partitions is None and not settings:
        raise click.UsageError("say what to change: -X name=value, or -p for more partitions")
    servers = bootstrap(brokers)
    with client_errors(), open_admin(servers) as admin:
        before = await_topic(admin, name)
        if settings:
            admin.alter_topic(name, dict(settings))
        if partitions is not None:
            admin.create_partitions(name, partitions)
            click.echo(
                f"prozess: keys of {name} map to {partitions} partitions from now on, no longer to "
                f"{len(before.partitions)}: records of one key may lie in two of them",
                err=True,
            )
        info = _await_change(admin, name, settings, partitions)
    if output == "json":
        print_json(topic_json(info))
    else:
        click.echo(_headline(info))
    return 0


def _await_change(
    admin: Admin, name: str, settings: tuple[tuple[str, str], ...], partitions: int | None
) -> TopicInfo:
    """The topic as it is now; the broker that is asked may hear of it a moment later."""
    deadline_ns = time.monotonic_ns() + SPREAD_MS * 1_000_000
    while True:
        info = await_topic(admin, name)
        told = {item.name: item.value for item in info.settings}
        is_told = all(told.get(key) == value for key, value in dict(settings).items())
        if is_told and len(info.partitions) >= (partitions or 0):
            return info
        if time.monotonic_ns() >= deadline_ns:
            return info
        time.sleep(POLL_S)


@topic.command(
    "delete-records",
    epilog="Example: prozess topic delete-records t -p 0 --before 5000    "
    "prozess topic delete-records t --all",
)
@click.argument("name")
@click.option("-p", "--partition", type=click.IntRange(0), help="Of which partition.")
@click.option("--before", type=click.IntRange(0), help="The first offset that stays.")
@click.option("--all", "is_all", is_flag=True, help="All that is committed, of every partition.")
@brokers_option
@output_option
def delete_records(
    name: str,
    partition: int | None,
    before: int | None,
    is_all: bool,
    brokers: str | None,
    output: str,
) -> int:
    """Delete the oldest records of the topic NAME; say where its partitions begin now."""
    from broker.wire.messages import UP_TO_HIGH_WATERMARK

    if is_all == (partition is not None and before is not None):
        raise click.UsageError("take -p and --before, or --all")
    servers = bootstrap(brokers)
    with client_errors(), open_admin(servers) as admin:
        info = await_topic(admin, name)
        wanted = dict.fromkeys(range(len(info.partitions)), UP_TO_HIGH_WATERMARK)
        if partition is not None and before is not None:
            wanted = {partition: before}
        began = admin.delete_records(name, wanted)
    if output == "json":
        print_json([{"partition": key, "log_start_offset": at} for key, at in began.items()])
    else:
        rows = [(str(key), str(at)) for key, at in began.items()]
        click.echo(table([("partition", "begins at"), *rows]))
    return 0


@topic.command(epilog="Example: prozess topic delete t")
@click.argument("name")
@click.option("--if-exists", is_flag=True, help="It is fine if there is no such topic.")
@brokers_option
def delete(name: str, if_exists: bool, brokers: str | None) -> int:
    """Delete the topic NAME and all its records."""
    servers = bootstrap(brokers)
    with client_errors(), open_admin(servers) as admin:
        try:
            # Looked for first: to a broker "unknown" may mean that it has not heard of it yet, so
            # the deletion itself would be tried again and again.
            await_topic(admin, name)
            admin.delete_topic(name)
        except ApiError as error:
            if error.code is not ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise
            if not if_exists:
                raise ApiError(error.code, f"there is no topic {name}") from error
    return 0


# --- showing --------------------------------------------------------------------------------------


def _headline(info: TopicInfo) -> str:
    count = len(info.partitions)
    factor = len(info.partitions[0].replicas) if info.partitions else 0
    return (
        f"topic {info.name}  id {info.topic_id}  {count} partition{'s' if count != 1 else ''}  "
        f"{factor} replica{'s' if factor != 1 else ''}  "
        + " ".join(f"{item.name}={item.value}" for item in info.settings)
    )


def _partition_rows(info: TopicInfo) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("partition", "leader", "leader epoch", "partition epoch", "replicas", "in sync")
    ]
    for part in info.partitions:
        rows.append(
            (
                str(part.partition),
                str(part.leader_id) if part.leader_id >= 0 else "none",
                str(part.leader_epoch),
                str(part.partition_epoch),
                ",".join(map(str, part.replicas)),
                ",".join(map(str, part.isr)),
            )
        )
    return rows


def topic_json(info: TopicInfo) -> dict[str, Any]:
    """A topic as one JSON object."""
    return {
        "topic": info.name,
        "topic_id": info.topic_id,
        "min_insync_replicas": info.min_insync_replicas,
        "flush": info.flush,
        "message_max_bytes": info.message_max_bytes,
        "settings": {item.name: item.value for item in info.settings},
        "partitions": [
            {
                "partition": part.partition,
                "leader": part.leader_id,
                "leader_epoch": part.leader_epoch,
                "partition_epoch": part.partition_epoch,
                "replicas": list(part.replicas),
                "isr": list(part.isr),
            }
            for part in info.partitions
        ],
    }
