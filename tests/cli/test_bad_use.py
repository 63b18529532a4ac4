"""Wrong use of the verbs that need no cluster to be refused: one line, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cli.main import run

BAD: list[tuple[str, str]] = [
    ("topic create t --assign 1,1", "names a node twice"),
    ("topic create t --assign 1,2 -p 3", "leave -p and -r"),
    ("topic create t -p 0", "0 is not in the range x>=1"),
    ("topic create t -X min_insync_replicas", "is not name=value"),
    ("topic create", "Missing argument 'NAME'"),
    ("topic describe", "Missing argument"),
    ("topic frobnicate", "No such command 'frobnicate'"),
    ("produce", "Missing argument 'TOPIC'"),
    ("produce t -p -1", "-1 is not in the range"),
    ("produce t -p one", "'one' is not a valid integer"),
    ("produce t -k ", "the delimiter is empty"),
    ("produce t -k \\q", "unknown escape \\q"),
    ("produce t -H novalue", "is not name=value"),
    ("produce t -z rar", "'rar' is not one of"),
    ("produce t --partitions 3", "--partitions goes with --create"),
    ("produce t --frobnicate", "No such option '--frobnicate'"),
    ("produce t -X linger=5 -b h:1", "unknown setting linger"),
    ("produce t -X linger_ms=soon -b h:1", "linger_ms is 'soon': take int"),
    ("produce t -X acks=1 -b h:1", "enable_idempotence needs acks=all"),
    ("produce t -b nowhere", "take host:port with a port from 1 to 65535"),
    ("consume t -o five", "'five' is no offset"),
    ("consume t -f %q", "unknown token %q"),
    ("consume t -c 0", "0 is not in the range x>=1"),
    ("consume t -J -f %s", "-f and JSON exclude each other"),
    ("consume t -b h:99999", "take host:port with a port from 1 to 65535"),
    ("consume t -X nosuch=1 -b h:1", "unknown setting nosuch"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[words for words, _ in BAD])
def test_bad_flags_and_values(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split(" ")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prozess: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("words", ["topic list", "produce t", "consume t"])
def test_without_a_cluster_it_says_how_to_get_one(
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROZESS_BROKERS", raising=False)
    assert run(words.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "`prozess up`" in err
