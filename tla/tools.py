"""Java and tla2tools.jar: where they come from, and what is refused.

The jar is the one that TLA2TOOLS_JAR names, else one in the cache, else the official release, which
is fetched only where TLC was asked for by name. What is cached or fetched must have a known hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tla.errors import TlaError

JAR_VARIABLE = "TLA2TOOLS_JAR"
KNOWN_SHA1 = {"cea5201da2abfae8933ce80d4f8f92c94e646aa4": "v1.7.3"}
RELEASE = "https://github.com/tlaplus/tlaplus/releases/download/v1.7.3/tla2tools.jar"
JAVA_VERSION_MIN = 11
DOWNLOAD_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Tools:
    java: str
    jar: Path


def cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("prozess")) / "tla2tools"


def find_jar(environment: Mapping[str, str], cache: Path) -> Path | None:
    """The jar that is here, None if there is none. TlaError if the one that is named is no jar."""
    named = environment.get(JAR_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise TlaError(f"{JAR_VARIABLE} names {named}, where there is no file")
        if path.read_bytes()[:2] != b"PK":
            raise TlaError(f"{JAR_VARIABLE} names {named}, which is no jar")
        return path
    for path in sorted(cache.glob("*.jar")):
        _check_hash(path.read_bytes(), str(path))
        return path
    return None


def fetch_jar(cache: Path) -> Path:
    """The official release into the cache."""
    try:
        with urllib.request.urlopen(RELEASE, timeout=DOWNLOAD_TIMEOUT_S) as answer:
            data: bytes = answer.read()
    except OSError as error:
        raise TlaError(
            f"there is no tla2tools.jar, and {RELEASE} cannot be fetched ({error}): "
            f"name one by {JAR_VARIABLE}=/path/to/tla2tools.jar, or use --engine explorer"
        ) from error
    _check_hash(data, RELEASE)
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / "tla2tools.jar"
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)
    return path


def _check_hash(data: bytes, where: str) -> None:
    if hashlib.sha1(data).hexdigest() not in KNOWN_SHA1:
        raise TlaError(f"{where} is no release of tla2tools that is known here: remove it")


def find_java() -> str:
    """The java command. TlaError if there is none, or one that is too old."""
    java = shutil.which("java")
    if java is None:
        raise TlaError(f"TLC needs Java {JAVA_VERSION_MIN} or newer, and there is no java")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    if found is None:
        raise TlaError(f"{java} does not tell its version; TLC needs {JAVA_VERSION_MIN} or newer")
    if int(found[1]) < JAVA_VERSION_MIN:
        raise TlaError(f"{java} is Java {found[1]}; TLC needs {JAVA_VERSION_MIN} or newer")
    return java
