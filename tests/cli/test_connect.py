"""Which cluster a verb talks to, its settings, and what client errors mean as exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.wire.errors import ApiError, ErrorCode
from chaos.proc import layout
from chaos.proc.layout import ClusterPaths, ClusterSpec, plan_nodes
from chaos.proc.process import this_process, write_pid_file
from client.cli.common import Failure
from client.cli.connect import bootstrap, client_config, client_errors, typed_settings
from client.config import ProducerConfig
from client.errors import ClientTimeout, NoOffset, OutcomeUnknown


def make_cluster(root: Path, name: str, port: int, *, running: bool) -> None:
    """A cluster's record; it "runs" if its node's pid file names a live process: this one."""
    paths = ClusterPaths(root / name)
    spec = ClusterSpec(name, "c", "local", "off", plan_nodes(1, None, (port, port + 1)))
    paths.node(1).directory.mkdir(parents=True)
    layout.record(paths, spec)
    if running:
        write_pid_file(paths.node(1).pid, this_process())


def test_what_is_named_is_taken(tmp_path: Path) -> None:
    make_cluster(tmp_path, "default", 19_000, running=True)
    assert bootstrap("host:1,host:2", tmp_path) == "host:1,host:2"


def test_else_the_one_that_runs_here(tmp_path: Path) -> None:
    make_cluster(tmp_path, "stopped", 19_000, running=False)
    make_cluster(tmp_path, "other", 19_100, running=True)
    assert bootstrap(None, tmp_path) == "127.0.0.1:19100"


def test_of_several_one_must_be_chosen(tmp_path: Path) -> None:
    make_cluster(tmp_path, "a", 19_000, running=True)
    make_cluster(tmp_path, "b", 19_100, running=True)
    with pytest.raises(Failure, match=r"2 clusters run here \(a, b\).*-b 127.0.0.1:19000 for a"):
        bootstrap(None, tmp_path)


def test_without_any_it_says_how_to_get_one(tmp_path: Path) -> None:
    make_cluster(tmp_path, "stopped", 19_000, running=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cluster.json").write_text("{}")
    with pytest.raises(Failure, match="start one with `prozess up`"):
        bootstrap(None, tmp_path)


def test_settings_take_their_types_from_the_config() -> None:
    given = (("linger_ms", "50"), ("enable_idempotence", "False"), ("acks", "1"), ("odd", "x"))
    assert typed_settings(ProducerConfig, given) == {
        "linger_ms": 50,
        "enable_idempotence": False,
        "acks": "1",
        "odd": "x",
    }


def test_settings_of_the_user_outweigh_those_of_the_verb() -> None:
    config = client_config(ProducerConfig, "h:1", (("linger_ms", "50"),), {"linger_ms": 0})
    assert config.linger_ms == 50


def test_every_mistake_in_settings_is_named() -> None:
    settings = (("linger", "5"), ("batch_size", "-1"), ("acks", "most"))
    with pytest.raises(Failure) as caught:
        client_config(ProducerConfig, "h:1", settings, {})
    for name in ("linger", "batch_size", "acks"):
        assert name in str(caught.value)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApiError(ErrorCode.TOPIC_ALREADY_EXISTS), 1),
        (NoOffset("out of range"), 1),
        (ClientTimeout("nobody answers"), 2),
        (OutcomeUnknown("it may have happened"), 2),
    ],
)
def test_a_refusal_is_bad_and_silence_is_unknown(error: Exception, code: int) -> None:
    with pytest.raises(Failure) as caught, client_errors():
        raise error
    assert caught.value.code == code
