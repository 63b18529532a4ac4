"""`prozess log dump|verify`: what lies in data directories, and whether it is whole.

Exit code 0: whole. 1: damage, or replicas that differ. 2: could not be read. A torn tail, which an
interrupted write leaves above all that was promised, is told but is not damage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.common import EXIT_BAD, EXIT_GOOD, expected, output_option, print_json

if TYPE_CHECKING:
    from broker.wire.record_decoder import Record
    from client.cli.replica_files import Replica
    from client.cli.segment_reader import Damage, StoredBatch

BATCH_FORMAT = "{:>21} {:>10} {:>8} {:>7} {:>5} {:>18} {:<6} {:>13} {}"
BATCH_HEAD = BATCH_FORMAT.format(
    "offsets", "position", "bytes", "records", "epoch", "producer", "codec", "timestamp", "crc"
)
SHOWN_BYTES = 60


@click.group(epilog="Example: prozess log dump .prozess/default/nodes/1")
def log() -> None:
    """Dump and verify data directories. Reads only; the nodes may be running."""


def _below(context: click.Context, parameter: click.Parameter, text: str) -> int | str:
    if text in ("hw", "end"):
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    raise click.BadParameter(f"{text!r}: take an offset, hw or end", context, parameter)


_paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))


@log.command(
    epilog="Example: prozess log dump .prozess/default/nodes/1/data    "
    "prozess log dump --compare .prozess/default"
)
@_paths
@click.option("--records", "with_records", is_flag=True, help="Show each record too.")
@click.option(
    "--compare", is_flag=True, help="Compare replicas of the same partition, byte for byte."
)
@click.option(
    "--below",
    metavar="OFFSET",
    default="hw",
    show_default=True,
    callback=_below,
    help="With --compare: only below this offset; hw: the lowest checkpointed high watermark of "
    "the replicas; end: up to the highest log end.",
)
@output_option
def dump(
    paths: Sequence[Path], with_records: bool, compare: bool, below: int | str, output: str
) -> int:
    """Show every batch in PATHS: cluster, node, data or partition directories, segment files.

    With -o json one object a line, told apart by "type": replica, batch, damage, comparison.
    """
    replicas = _find(paths)
    show = Show(as_json=output == "json", with_batches=True, with_records=with_records)
    if compare:
        return _compare(replicas, below, show)
    return _show_all(replicas, show)


@log.command(epilog="Example: prozess log verify .prozess/default")
@_paths
@output_option
def verify(paths: Sequence[Path], output: str) -> int:
    """Check every batch and record in PATHS and say per replica what is there."""
    replicas = _find(paths)
    show = Show(as_json=output == "json", with_batches=False, with_records=True)
    return _show_all(replicas, show)


def _find(paths: Sequence[Path]) -> list[Replica]:
    from broker.log.errors import CorruptFile
    from client.cli.replica_files import NoLogs, find_replicas

    with expected(NoLogs, OSError), expected(CorruptFile, exit_code=EXIT_BAD):
        return [replica for path in paths for replica in find_replicas(path)]


def _show_all(replicas: Sequence[Replica], show: Show) -> int:
    are_whole = [show.replica(replica) for replica in replicas]
    return EXIT_GOOD if all(are_whole) else EXIT_BAD


def _compare(replicas: Sequence[Replica], below: int | str, show: Show) -> int:
    from client.cli.replica_compare import compare, group

    code = EXIT_GOOD
    compared_count = 0
    for members in group(replicas):
        if len(members) < 2:
            show.note(f"{members[0].name}: only in {members[0].source}")
            continue
        with expected(OSError):
            comparison = compare(members, below)
        compared_count += 1
        show.line(comparison.to_json(), str(comparison))
        if comparison.difference:
            code = EXIT_BAD
    if not compared_count:
        show.note("nothing to compare: name at least two places that hold the same partition")
        return EXIT_BAD
    return code


@dataclass(slots=True)
class _Totals:
    batches: int = 0
    records: int = 0
    size_bytes: int = 0
    end_offset: int = 0
    damages: int = 0


class Show:
    """Prints what is found, as text or as JSON lines."""

    def __init__(self, *, as_json: bool, with_batches: bool, with_records: bool) -> None:
        self._as_json = as_json
        self._with_batches = with_batches
        self._with_records = with_records

    def line(self, row: dict[str, Any], text: str) -> None:
        if self._as_json:
            print_json(row)
        else:
            click.echo(text)

    def note(self, text: str) -> None:
        print(f"prozess: {text}", file=sys.stderr)

    def replica(self, replica: Replica) -> bool:
        """Print one replica; whether it is whole."""
        from client.cli.segment_reader import Damage

        if not self._as_json and self._with_batches:
            click.echo(f"\n{replica.name}  {replica.topic_id}  {replica.source}".rstrip())
            click.echo(BATCH_HEAD)
        totals = _Totals(end_offset=int(replica.segments[0].stem))
        torn = ""
        file = None
        with expected(OSError):
            for found in replica.batches():
                if isinstance(found, Damage):
                    if replica.is_torn_tail(found):
                        torn = str(found)
                        continue
                    totals.damages += 1
                    self._damage(found)
                    continue
                if self._with_batches and not self._as_json and found.file != file:
                    file = found.file
                    click.echo(file.name)
                self._batch(found, totals)
        settled = replica.settled_offset or 0
        if totals.end_offset < settled and not totals.damages:
            totals.damages += 1
            reason = f"the log ends at {totals.end_offset}, but held all below {settled}"
            last = replica.segments[-1]
            self._damage(Damage(last, last.stat().st_size, totals.end_offset, reason, False))
        self._summary(replica, totals, torn)
        return totals.damages == 0

    def _damage(self, damage: Damage) -> None:
        row = {
            "type": "damage",
            "file": str(damage.file),
            "position": damage.position,
            "offset": damage.offset,
            "reason": damage.reason,
        }
        self.line(row, f"DAMAGE {damage}")

    def _batch(self, batch: StoredBatch, totals: _Totals) -> None:
        header = batch.header
        records, problem = _records(batch) if self._with_records else ([], "")
        if problem:
            from client.cli.segment_reader import Damage

            totals.damages += 1
            self._damage(Damage(batch.file, batch.position, header.base_offset, problem, False))
        totals.batches += 1
        totals.records += header.record_count
        totals.size_bytes += len(batch.data)
        totals.end_offset = header.next_offset
        if not self._with_batches:
            return
        if self._as_json:
            row = batch_json(batch)
            if self._with_records:
                row["records"] = [_record_json(record) for record in records]
            print_json(row)
            return
        click.echo(batch_line(batch))
        for record in records:
            click.echo(_record_line(record))

    def _summary(self, replica: Replica, totals: _Totals, torn: str) -> None:
        row = {
            "type": "replica",
            "source": replica.source,
            "topic": replica.topic,
            "topic_id": replica.topic_id,
            "partition": replica.partition,
            "log_start_offset": int(replica.segments[0].stem),
            "log_end_offset": totals.end_offset,
            "high_watermark": replica.high_watermark,
            "recovery_point": replica.recovery_point,
            "leader_epochs": [list(entry) for entry in replica.leader_epochs],
            "segments": len(replica.segments),
            "batches": totals.batches,
            "records": totals.records,
            "bytes": totals.size_bytes,
            "damages": totals.damages,
            "torn_tail": torn,
        }
        epochs = ", ".join(f"{epoch} from {start}" for epoch, start in replica.leader_epochs)
        text = (
            f"{replica.name} in {replica.source}: offsets {row['log_start_offset']} to "
            f"{totals.end_offset}, {totals.records} records, {totals.batches} batches, "
            f"{totals.size_bytes} bytes, {len(replica.segments)} segments; checkpointed high "
            f"watermark {_or_none(replica.high_watermark)}, recovery point "
            f"{_or_none(replica.recovery_point)}; leader epochs {epochs or 'none'}; "
            f"{'DAMAGED' if totals.damages else 'whole'}"
        )
        if torn:
            text += f"; torn tail, which a restart cuts: {torn}"
        self.line(row, text)


def _or_none(number: int | None) -> str:
    return "none" if number is None else str(number)


def _records(batch: StoredBatch) -> tuple[Sequence[Record], str]:
    """(records, "") or ([], what is wrong with them)."""
    from broker.wire.record_batch import CorruptBatch, decode_batch

    try:
        return decode_batch(batch.data), ""
    except CorruptBatch as error:
        return [], str(error)


def _codec(batch: StoredBatch) -> str:
    from broker.wire.batch_header import CODEC_MASK
    from broker.wire.compression import Codec

    return Codec(batch.header.attributes & CODEC_MASK).name.lower()


def batch_line(batch: StoredBatch) -> str:
    """One batch as a line under BATCH_HEAD. The checksum was right, else it were a damage."""
    header = batch.header
    producer = (
        f"{header.producer_id}/{header.producer_epoch}:{header.base_sequence}"
        if header.has_producer
        else "-"
    )
    return BATCH_FORMAT.format(
        f"{header.base_offset}-{header.last_offset}",
        batch.position,
        len(batch.data),
        header.record_count,
        header.leader_epoch,
        producer,
        _codec(batch),
        header.max_timestamp_ms,
        "ok",
    )


def batch_json(batch: StoredBatch) -> dict[str, Any]:
    """One batch as an object."""
    header = batch.header
    return {
        "type": "batch",
        "file": str(batch.file),
        "position": batch.position,
        "size_bytes": len(batch.data),
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "record_count": header.record_count,
        "leader_epoch": header.leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "codec": _codec(batch),
        "max_timestamp_ms": header.max_timestamp_ms,
        "crc": header.crc,
        "crc_ok": True,
    }


def _record_line(record: Record) -> str:
    key = f" {_shown(record.key)} =" if record.key is not None else ""
    headers = "".join(f" {name}:{_shown(value)}" for name, value in record.headers)
    return f"    {record.offset} @{record.timestamp_ms}{key} {_shown(record.value)}{headers}"


def _shown(field: bytes | None) -> str:
    if field is None:
        return "null"
    more = f"… ({len(field)} bytes)" if len(field) > SHOWN_BYTES else ""
    return repr(field[:SHOWN_BYTES])[1:] + more


def _record_json(record: Record) -> dict[str, Any]:
    from client.cli.record_format import json_value

    return {
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": json_value(record.key),
        "value": json_value(record.value),
        "headers": [[name, json_value(value)] for name, value in record.headers],
    }
