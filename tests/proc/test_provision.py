"""The ladder to a toxiproxy-server: order, refusals, checks. No network, no Go: stand-ins."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.proc import provision as ladder
from chaos.proc.provision import ProvisionError, Surroundings, provision

SERVER = "#!/bin/sh\necho 'toxiproxy-server version {version}'\n"
GO = """#!/bin/sh
[ "$1" = install ] && printf '#!/bin/sh\\necho version git\\n' > "$GOBIN/server"
/bin/chmod +x "$GOBIN/server"
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def no_network(url: str) -> bytes:
    raise OSError(101, "network is unreachable")


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """A machine with nothing but a shell."""
    return Surroundings(
        environment={"PATH": str(tmp_path / "bin")},
        cache=tmp_path / "cache",
        platform_key="linux_amd64",
        fetch=no_network,
    )


def with_variables(around: Surroundings, **more: str) -> Surroundings:
    return replace(around, environment={**around.environment, **more})


def test_nothing_found_leaves_the_built_in_proxy_and_says_why(around: Surroundings) -> None:
    found = provision(around)
    assert found.path is None
    assert found.describe() == "built-in proxy"
    assert dict(found.lost) == {
        "PROZESS_TOXIPROXY_BIN": "not set",
        "PATH": "no toxiproxy-server",
        "cache": f"no {around.cache / 'toxiproxy-server'}",
        "go install": "no go on PATH",
        "download": f"{around.cache}: network is unreachable",
    }


def test_the_fallback_can_be_forbidden(around: Surroundings) -> None:
    strict = with_variables(around, PROZESS_REQUIRE_TOXIPROXY="1")
    with pytest.raises(ProvisionError, match=r"no toxiproxy-server \(PROZESS_TOXIPROXY_BIN: not"):
        provision(strict)


def test_what_was_asked_for_must_run(around: Surroundings, tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "toxiproxy-server", SERVER.format(version="2.12.0"))
    missing = with_variables(around, PROZESS_TOXIPROXY_BIN=str(tmp_path / "missing"))
    with pytest.raises(ProvisionError, match=r"PROZESS_TOXIPROXY_BIN: .*No such file"):
        provision(missing)
    broken = executable(tmp_path / "broken", "#!/bin/sh\nexit 3\n")
    with pytest.raises(ProvisionError, match="exit status 3"):
        provision(with_variables(around, PROZESS_TOXIPROXY_BIN=str(broken)))
    good = executable(tmp_path / "mine", SERVER.format(version="2.9.0"))
    found = provision(with_variables(around, PROZESS_TOXIPROXY_BIN=str(good)))
    assert (found.path, found.source, found.version) == (good, "PROZESS_TOXIPROXY_BIN", "2.9.0")


def test_the_path_comes_before_the_cache_unless_too_old(
    around: Surroundings, tmp_path: Path
) -> None:
    cached = executable(around.cache / "toxiproxy-server", SERVER.format(version="git"))
    installed = executable(tmp_path / "bin" / "toxiproxy-server", SERVER.format(version="2.7.0"))
    assert provision(around).path == installed
    executable(installed, SERVER.format(version="2.5.0"))
    found = provision(around)
    assert (found.path, found.source, found.version) == (cached, "cache", ladder.VERSION)
    assert dict(found.lost)["PATH"].endswith("is version 2.5, too old: 2.6 or newer is needed")


def test_go_install_fills_the_cache(around: Surroundings, tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "go", GO)
    assert provision(around, may_install=False).path is None
    said: list[str] = []
    found = provision(around, say=said.append)
    assert (found.path, found.source) == (around.cache / "toxiproxy-server", "go install")
    assert len(said) == 1
    assert provision(around, say=said.append).source == "cache"
    assert len(said) == 1
    assert sorted(path.name for path in around.cache.iterdir()) == [".lock", "toxiproxy-server"]


def test_a_failing_go_is_told_with_its_last_line(around: Surroundings, tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "go", "#!/bin/sh\necho first >&2\necho 'no module' >&2\nexit 1\n")
    assert dict(provision(around).lost)["go install"] == "exit code 1: no module"


def archive(text: str) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as files:
        for name, content in (("LICENSE", "MIT"), ("toxiproxy-server", text)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            files.addfile(entry, io.BytesIO(content.encode()))
    return body.getvalue()


def test_a_download_is_used_only_with_the_pinned_sum(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = archive(SERVER.format(version="2.12.0"))
    serving = replace(around, fetch=lambda url: body)
    found = provision(serving)
    assert found.path is None
    assert "expected " + ladder.ARCHIVE_SHA256["linux_amd64"] in dict(found.lost)["download"]
    assert not (around.cache / "toxiproxy-server").exists()
    monkeypatch.setitem(ladder.ARCHIVE_SHA256, "linux_amd64", hashlib.sha256(body).hexdigest())
    found = provision(serving)
    assert (found.source, found.version) == ("download", "2.12.0")


def test_an_unknown_platform_has_no_download(around: Surroundings) -> None:
    found = provision(replace(around, platform_key="plan9_mips"))
    assert dict(found.lost)["download"] == "no release for plan9_mips"
