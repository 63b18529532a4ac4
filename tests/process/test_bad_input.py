"""Bad input, one row each: exit code, one line that says why, and a cluster that is as it was.

All rows share one cluster. After each of them its processes, registrations and log bytes are the
same as before, and it still serves.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.config import load
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    ACKS_ALL,
    Appended,
    ProducePart,
    ProduceRequest,
    ProduceResponse,
)
from broker.wire.record_batch import encode_batch
from chaos.proc.layout import config_text
from client.admin import Admin
from tests.process import bad_input
from tests.process.bad_input import (
    BOMBS,
    PROZESS,
    Address,
    Witness,
    ask,
    bomb,
    environment,
    prozess,
    prozess_in_shell,
    request,
)
from tests.process.conftest import KEPT
from tests.process.stories import Story, parts_of

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("cluster")]

CAP_DAC_OVERRIDE = 1
PR_CAPBSET_DROP = 24


def assert_one_line(err: str, pattern: str) -> None:
    assert re.fullmatch(rf"prozess: .*{pattern}.*\n", err), err


# --- words that cannot be obeyed ------------------------------------------------------------------

WORDS: list[tuple[str, bytes, int, str]] = [
    ("produce nosuch", b"x\n", 1, "there is no topic nosuch"),
    ("consume nosuch -e", b"", 1, "there is no topic nosuch"),
    ("topic describe nosuch", b"", 1, "there is no topic nosuch"),
    ("topic delete nosuch", b"", 1, "there is no topic nosuch"),
    ("produce kept -p 7", b"x\n", 1, "topic kept has partitions 0 to 0, not 7"),
    ("consume kept -p 7 -e", b"", 1, "topic kept has partitions 0 to 0, not 7"),
    ("consume kept -o 1000000 -c 1", b"", 1, "out of range"),
    ("produce kept --frobnicate", b"x\n", 2, "No such option '--frobnicate'"),
    ("produce kept -p one", b"x\n", 2, "'one' is not a valid integer"),
    ("produce kept -X acks=most", b"x\n", 2, "acks is 'most'"),
    ("consume kept -o five", b"", 2, "'five' is no offset"),
    ("topic create kept", b"", 1, "topic kept exists"),
    ("topic create no/slash", b"", 1, "INVALID_TOPIC_EXCEPTION"),
    ("topic create many -r 9", b"", 1, "replication factor 9"),
    ("topic create strict -X min_insync_replicas=9", b"", 1, "min_insync_replicas=9"),
    ("topic create odd -X nosuch=1", b"", 1, "unknown topic setting nosuch"),
    ("topic create far --assign 1,99", b"", 1, "99"),
    ("consume kept -b 127.0.0.1:1 -X default_api_timeout_ms=500", b"", 2, "no metadata of kept"),
]


@pytest.mark.parametrize(
    ("words", "stdin", "code", "pattern"), WORDS, ids=[row[0] for row in WORDS]
)
def test_words(
    words: str, stdin: bytes, code: int, pattern: str, besieged: Story, unharmed: Witness
) -> None:
    ended = prozess(besieged, *words.split(), stdin=stdin)
    assert (ended.code, ended.out) == (code, b"")
    assert_one_line(ended.err, re.escape(pattern))
    unharmed()


def test_a_record_that_is_too_large_is_refused_by_the_client(
    besieged: Story, unharmed: Witness
) -> None:
    ended = prozess(besieged, "produce", "small", "-q", stdin=b"x" * 2_000 + b"\n")
    assert ended.code == 1
    assert re.search("1 record failed .* from line 1: .*exceeds 1000", ended.err), ended.err
    unharmed()


# --- streams that end -----------------------------------------------------------------------------

STREAMS: list[tuple[str, str, int, str]] = [
    ("produce kept", "<&-", 2, "standard input is closed"),
    ("consume kept -e", ">&-", 2, "standard output is closed"),
    ("produce kept -o json", ">&-", 2, "standard output is closed"),
]


@pytest.mark.parametrize(("words", "redirection", "code", "pattern"), STREAMS)
def test_closed_streams(
    words: str, redirection: str, code: int, pattern: str, besieged: Story, unharmed: Witness
) -> None:
    ended = prozess_in_shell(besieged, redirection, *words.split())
    assert ended.code == code
    assert_one_line(ended.err, pattern)
    unharmed()


@contextmanager
def start(story: Story, *words: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A verb with pipes at all its ends, for a test to pull at. It must have ended by then."""
    with subprocess.Popen(
        [*PROZESS, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment(story), **more},
    ) as process:
        try:
            yield process
            process.wait(60)
        finally:
            process.kill()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_on(unbuffered: str, besieged: Story, unharmed: Witness) -> None:
    """As in `prozess consume kept | head -c 10`: nothing to complain about."""
    with start(besieged, "consume", "kept", "-J", PYTHONUNBUFFERED=unbuffered) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # The lines are more than a pipe holds, so that the verb is still writing.
        assert os.read(process.stdout.fileno(), 10) == b'{"topic": '
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    unharmed()


def test_ctrl_c_ends_consume(besieged: Story, unharmed: Witness) -> None:
    with start(besieged, "consume", "kept") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(len(KEPT)) == KEPT
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.stderr.read() == b""
    assert process.returncode == 130
    unharmed()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_produce_with_what_was_accepted(
    number: signal.Signals, besieged: Story, unharmed: Witness
) -> None:
    before = parts_of(besieged.view(), "small")[0].high_watermark
    with start(besieged, "produce", "small") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"one\ntwo\nthree\nunfinished")
        process.stdin.flush()
        besieged.wait_for(
            "three lines are in the log",
            lambda view: parts_of(view, "small")[0].high_watermark == before + 3,
        )
        process.send_signal(number)
        err = process.stderr.read().decode()
    assert process.returncode == 128 + number
    assert_one_line(err, f"3 records delivered to small: offsets .* {before}-{before + 2}")
    besieged.wait_equal("small")
    unharmed.accept_logs()
    unharmed()


# --- bytes that are no messages -------------------------------------------------------------------

BYTES: list[Callable[[Address], None]] = [
    bad_input.random_megabyte,
    bad_input.http_request,
    bad_input.greeting_then_garbage,
    bad_input.handshake_then_garbage,
    bad_input.huge_frame_length,
    bad_input.slow_half_greeting,
    bad_input.thousand_connections,
]


def address_of(story: Story, plane: str) -> Address:
    node = story.cluster.spec.node(1)
    return node.host, node.broker_port if plane == "broker" else node.controller_port


@pytest.mark.parametrize("plane", ["broker", "controller"])
@pytest.mark.parametrize("send", BYTES, ids=lambda send: send.__name__)
def test_bytes_on_a_port(
    send: Callable[[Address], None], plane: str, besieged: Story, unharmed: Witness
) -> None:
    send(address_of(besieged, plane))
    unharmed()


@pytest.mark.parametrize("plane", ["broker", "controller"])
@pytest.mark.parametrize("name", BOMBS)
def test_messages_that_claim_too_much(
    name: str, plane: str, besieged: Story, unharmed: Witness
) -> None:
    ask(address_of(besieged, plane), bomb(name))
    unharmed()


# --- forged batches -------------------------------------------------------------------------------


def forged(story: Story, topic: str, batch: bytes, leader_epoch: int | None = None) -> object:
    """What the leader says of a batch that no client of ours would send."""
    with Admin(bootstrap_servers=story.bootstrap) as admin:
        info = admin.describe_topics([topic])[0]
    part = info.partitions[0]
    epoch = part.leader_epoch if leader_epoch is None else leader_epoch
    body = ProduceRequest(ACKS_ALL, 2_000, (ProducePart(info.topic_id, 0, epoch),))
    node = story.cluster.spec.node(part.leader_id)
    answer = request((node.host, node.broker_port), body, [batch])
    assert isinstance(answer, ProduceResponse)
    (result,) = answer.parts
    assert result.appended is Appended.NO
    return result.error


def test_the_broker_refuses_a_batch_above_message_max_bytes(
    besieged: Story, unharmed: Witness
) -> None:
    batch = bytes(encode_batch([(0, None, b"x" * 2_000, ())]))
    assert forged(besieged, "small", batch) is ErrorCode.MESSAGE_TOO_LARGE
    unharmed()


@pytest.mark.parametrize(("position", "value"), [(70, 0xFF), (16, 1), (10, 0x7F), (57, 0x7F)])
def test_the_broker_refuses_a_damaged_batch(
    position: int, value: int, besieged: Story, unharmed: Witness
) -> None:
    """In the records, the magic byte, the length and the record count."""
    batch = bytearray(encode_batch([(0, None, b"some value", ())]))
    batch[position] ^= value
    assert forged(besieged, "kept", bytes(batch)) is ErrorCode.CORRUPT_MESSAGE
    unharmed()


def test_the_broker_refuses_epochs_that_are_not_its_own(besieged: Story, unharmed: Witness) -> None:
    batch = bytes(encode_batch([(0, None, b"v", ())]))
    error = forged(besieged, "kept", batch, leader_epoch=1_000)
    assert error is ErrorCode.UNKNOWN_LEADER_EPOCH
    unharmed()


# --- nodes that must not start --------------------------------------------------------------------


def node_toml(story: Story, directory: Path, **changes: object) -> Path:
    """The settings of node 1 with changes, in a file of their own."""
    config = replace(load(story.cluster.node_paths(1).config), **changes)  # type: ignore[arg-type]
    path = directory / "node.toml"
    path.write_text(config_text(config), encoding="utf-8")
    return path


def broker(*words: str, without_override: bool = False) -> bad_input.Ended:
    """Run `prozess broker`; it must end by itself."""

    def drop() -> None:
        # Root may write anywhere by this capability; without it root is bound by modes as others
        # are. Who is not root has none to drop, and the call fails, which is as good.
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)

    done = subprocess.run(
        [sys.executable, "-m", "client.cli", "broker", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        preexec_fn=drop if without_override else None,
        check=False,
    )
    return bad_input.Ended(done.returncode, done.stdout, done.stderr.decode())


def formatted(story: Story, directory: Path) -> Path:
    """A fresh data directory for another broker of this cluster, and its node.toml."""
    path = node_toml(
        story, directory, node_id=9, roles=("broker",), data_dir=str(directory / "data")
    )
    assert broker("--config", str(path), "--format").code == 0
    return path


def test_port_taken(besieged: Story, unharmed: Witness, tmp_path: Path) -> None:
    path = formatted(besieged, tmp_path)
    ended = broker("--config", str(path))
    assert ended.code == 2
    port = besieged.cluster.spec.node(1).broker_port
    *logged, last = ended.err.splitlines(keepends=True)
    assert all(" INFO node 9 " in line for line in logged)
    assert_one_line(last, f"broker_port {port} on 127.0.0.1 cannot be bound")
    unharmed()


def test_data_directory_of_another_cluster(
    besieged: Story, unharmed: Witness, tmp_path: Path
) -> None:
    formatted(besieged, tmp_path)
    path = node_toml(
        besieged,
        tmp_path,
        node_id=9,
        roles=("broker",),
        data_dir=str(tmp_path / "data"),
        cluster_id="another",
    )
    ended = broker("--config", str(path))
    assert ended.code == 2
    assert_one_line(ended.err, "belongs to cluster .*, not another")
    unharmed()


def test_data_directory_of_another_node(besieged: Story, unharmed: Witness, tmp_path: Path) -> None:
    formatted(besieged, tmp_path)
    path = node_toml(
        besieged, tmp_path, node_id=8, roles=("broker",), data_dir=str(tmp_path / "data")
    )
    ended = broker("--config", str(path))
    assert ended.code == 2
    assert_one_line(ended.err, "belongs to node 9, not 8")
    unharmed()


def test_data_directory_that_was_never_formatted(
    besieged: Story, unharmed: Witness, tmp_path: Path
) -> None:
    path = node_toml(
        besieged, tmp_path, node_id=9, roles=("broker",), data_dir=str(tmp_path / "data")
    )
    ended = broker("--config", str(path))
    assert ended.code == 2
    assert_one_line(ended.err, "is not formatted")
    unharmed()


def test_data_directory_that_cannot_be_written(
    besieged: Story, unharmed: Witness, tmp_path: Path
) -> None:
    path = formatted(besieged, tmp_path)
    (tmp_path / "data").chmod(0o555)
    ended = broker("--config", str(path), without_override=True)
    (tmp_path / "data").chmod(0o755)
    assert ended.code == 2
    assert_one_line(ended.err, "cannot be written: Permission denied")
    unharmed()


def test_data_directory_in_use(besieged: Story, unharmed: Witness, tmp_path: Path) -> None:
    path = node_toml(besieged, tmp_path)
    ended = broker("--config", str(path))
    assert ended.code == 2
    process = besieged.cluster.process(1)
    assert process is not None
    assert_one_line(ended.err, f"is in use by process {process.pid}")
    unharmed()


def test_settings_that_are_none(besieged: Story, unharmed: Witness, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('node_id = "one"\ncluster_id = "c"\ndata_dir = "d"\nnosuch = 1\n')
    ended = broker("--config", str(path))
    assert ended.code == 2
    assert_one_line(ended.err, "unknown setting nosuch")
    unharmed()


# --- a disk that is full --------------------------------------------------------------------------

FULL_BYTES = 1_024


def test_a_full_disk_refuses_records_and_heals(besieged: Story, unharmed: Witness) -> None:
    """The leader cannot write more than FULL_BYTES to any file: the write fails half-way (EFBIG).

    A limit of the process on file sizes is what everybody may set without being root; the calls
    that fail are those that fail with ENOSPC on a full disk, after part of the bytes were written.
    """
    process = besieged.cluster.process(4)
    assert process is not None
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, hard))
    words = ("produce", "full", "-X", "delivery_timeout_ms=4000", "-X", "request_timeout_ms=1000")
    ended = prozess(besieged, *words, stdin=b"x" * 4_000 + b"\n")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
    assert ended.code == 1, ended.err
    assert "STORAGE_ERROR" in ended.err
    assert "not in the log" in ended.err
    unharmed()

    ended = prozess(besieged, "produce", "full", stdin=b"after\n")
    assert ended.code == 0, ended.err
    assert_one_line(ended.err, "offsets of partition 0 1000-1000")
    shown = prozess(besieged, "consume", "full", "-e")
    assert shown.out == KEPT + b"after\n"
    besieged.wait_equal("full")
    unharmed.accept_logs()
    unharmed()
