"""Find or make a toxiproxy-server: a ladder of sources, the first that works wins.

1. PROZESS_TOXIPROXY_BIN (an error if it does not run: it was asked for)
2. `toxiproxy-server` on PATH
3. the cache of an earlier run
4. `go install` of the pinned version, into the cache; Go's checksum database vouches for it
5. the release archive, into the cache, if its SHA-256 is the pinned one
6. none: the trial uses its own proxy. With PROZESS_REQUIRE_TOXIPROXY=1 that is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VERSION = "2.12.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}"
BINARY = "toxiproxy-server"
ARCHIVE_URL = "https://github.com/Shopify/toxiproxy/releases/download/v{version}/{name}"
ARCHIVE_SHA256 = {
    "linux_amd64": "65e042d3fc2290c099527bc506446a6fd863a09f113b8944b636ece70221c2b3",
    "linux_arm64": "ab417dafc77ae8b54ec8461cc5da5180d0465a61dcbda86c72da72ee4ab843b7",
    "darwin_amd64": "52ac1f99d7204b4b523f910b791bc86318b50ef94822c79a6157606704003ced",
    "darwin_arm64": "cece3905c06ad84d6b3bb4cd024c344e6466736b2a8cbaf9ef4fe45e62aba9b2",
}
"""Of toxiproxy_<version>_<platform>.tar.gz, as published with the release."""
GO_INSTALL_TIMEOUT_S = 300
DOWNLOAD_TIMEOUT_S = 30
DOWNLOAD_BYTES_MAX = 64 << 20


class ProvisionError(Exception):
    """No toxiproxy-server although one was demanded; says why each source lost."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    path: Path | None
    """None: nothing was found, the built-in proxy is left."""
    source: str
    version: str
    lost: tuple[tuple[str, str], ...]
    """The sources tried before and why they lost."""

    def describe(self) -> str:
        if self.path is None:
            return "built-in proxy"
        return f"toxiproxy {self.version} from {self.source} ({self.path})"


class _Lost(Exception):
    """This source has none; the reason, in words."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the ladder looks at; tests give their own."""

    environment: Mapping[str, str]
    cache: Path
    platform_key: str
    fetch: Callable[[str], bytes]
    """URL -> body; raises OSError."""


def real_surroundings() -> Surroundings:
    import platformdirs

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return Surroundings(
        environment=os.environ,
        cache=Path(platformdirs.user_cache_dir("prozess")) / "toxiproxy" / VERSION,
        platform_key=f"{sys.platform}_{machine}",
        fetch=_fetch,
    )


def provision(
    around: Surroundings | None = None,
    *,
    may_install: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Provisioned:
    """The first source that works. Without `may_install` nothing is built or downloaded.

    Raises ProvisionError: PROZESS_TOXIPROXY_BIN is broken, or the fallback is forbidden.
    """
    around = around or real_surroundings()
    sources: list[tuple[str, Callable[[], Path]]] = [
        ("PROZESS_TOXIPROXY_BIN", lambda: _from_environment(around)),
        ("PATH", lambda: _from_path(around)),
        ("cache", lambda: _from_cache(around)),
    ]
    if may_install:
        sources += [
            ("go install", lambda: _go_install(around, say)),
            ("download", lambda: _download(around, say)),
        ]
    lost: list[tuple[str, str]] = []
    for source, find in sources:
        try:
            path = find()
            return Provisioned(path, source, version_of(path), tuple(lost))
        except _Lost as reason:
            lost.append((source, str(reason)))
    if around.environment.get("PROZESS_REQUIRE_TOXIPROXY") == "1":
        reasons = "; ".join(f"{source}: {reason}" for source, reason in lost)
        raise ProvisionError(
            f"PROZESS_REQUIRE_TOXIPROXY=1, but there is no toxiproxy-server ({reasons})"
        )
    return Provisioned(None, "built-in", "", tuple(lost))


def version_of(path: Path) -> str:
    """The version that a toxiproxy-server names; _Lost when it does not run."""
    try:
        shown = subprocess.run(
            [str(path), "-version"], capture_output=True, text=True, timeout=20, check=True
        )
    except OSError as error:
        raise _Lost(f"{path} does not run: {error.strerror}") from error
    except subprocess.SubprocessError as error:
        raise _Lost(f"{path} does not run: {error}") from error
    word = shown.stdout.split()[-1] if shown.stdout.split() else ""
    # `go install` sets no linker flags, so such a binary calls itself "git".
    return VERSION if word == "git" else word


def _from_environment(around: Surroundings) -> Path:
    named = around.environment.get("PROZESS_TOXIPROXY_BIN")
    if not named:
        raise _Lost("not set")
    try:
        version_of(Path(named))
    except _Lost as reason:
        raise ProvisionError(f"PROZESS_TOXIPROXY_BIN: {reason}") from reason
    return Path(named)


def _from_path(around: Surroundings) -> Path:
    found = shutil.which(BINARY, path=around.environment.get("PATH", ""))
    if found is None:
        raise _Lost(f"no {BINARY}")
    major, minor = (*version_of(Path(found)).split("."), "0")[:2]
    if major.isdigit() and minor.isdigit() and (int(major), int(minor)) < (2, 6):
        raise _Lost(f"{found} is version {major}.{minor}, too old: 2.6 or newer is needed")
    return Path(found)


def _from_cache(around: Surroundings) -> Path:
    path = around.cache / BINARY
    if not path.exists():
        raise _Lost(f"no {path}")
    version_of(path)
    return path


@contextmanager
def _install_lock(cache: Path) -> Iterator[None]:
    """One installer at a time on this machine: parallel test workers share the cache."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise _Lost(f"{cache}: {error.strerror or error}") from error


def _go_install(around: Surroundings, say: Callable[[str], None]) -> Path:
    go = shutil.which("go", path=around.environment.get("PATH", ""))
    if go is None:
        raise _Lost("no go on PATH")
    target = around.cache / BINARY
    with _install_lock(around.cache), tempfile.TemporaryDirectory(dir=around.cache) as scratch:
        if target.exists():
            return target  # somebody else made it while we waited
        say(f"building toxiproxy {VERSION} with go install (once, about a minute)")
        try:
            subprocess.run(
                [go, "install", MODULE],
                env={**around.environment, "GOBIN": scratch},
                capture_output=True,
                text=True,
                timeout=GO_INSTALL_TIMEOUT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no message"])[-1]
            raise _Lost(f"exit code {error.returncode}: {last}") from error
        except subprocess.TimeoutExpired as error:
            raise _Lost(f"not done after {GO_INSTALL_TIMEOUT_S} s") from error
        (Path(scratch) / "server").replace(target)
    return target


def _fetch(url: str) -> bytes:
    import requests

    body = requests.get(url, timeout=DOWNLOAD_TIMEOUT_S)
    body.raise_for_status()
    return body.content


def _download(around: Surroundings, say: Callable[[str], None]) -> Path:
    wanted = ARCHIVE_SHA256.get(around.platform_key)
    if wanted is None:
        raise _Lost(f"no release for {around.platform_key}")
    name = f"toxiproxy_{VERSION}_{around.platform_key}.tar.gz"
    url = ARCHIVE_URL.format(version=VERSION, name=name)
    target = around.cache / BINARY
    with _install_lock(around.cache), tempfile.TemporaryDirectory(dir=around.cache) as scratch:
        if target.exists():
            return target
        say(f"downloading {url}")
        body = around.fetch(url)
        found = hashlib.sha256(body).hexdigest()
        if found != wanted:
            raise _Lost(f"{name} has SHA-256 {found}, expected {wanted}")
        made = Path(scratch) / BINARY
        made.write_bytes(_member(body))
        made.chmod(0o755)
        made.replace(target)
    return target


def _member(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        for entry in files:
            if Path(entry.name).name == BINARY and entry.size <= DOWNLOAD_BYTES_MAX:
                file = files.extractfile(entry)
                if file is not None:
                    return file.read()
    raise _Lost(f"the archive holds no {BINARY}")
