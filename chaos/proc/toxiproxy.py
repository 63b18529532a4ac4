"""The real toxiproxy-server, driven through toxiproxy-python and, for what that lacks, by HTTP.

What is known of the two, measured with server 2.12.0 and client 0.1.1, and is dealt with here:

* The client keeps host and port in class attributes: one server per process, checked.
* The client sends requests without a timeout and lets a 500 pass: its `requests` module is replaced
  by a session of ours that has one timeout and turns every status from 400 on into ProxyError.
* It has no PATCH, and no /populate: those calls are our own.
* Toxics have fixed attributes: the server draws nothing by chance (no jitter, toxicity 1).
* `timeout` with 0 swallows bytes until it is removed, and removing it closes the connections, as a
  stream with a hole in it must end. `bandwidth` with rate 0 holds bytes and loses none.
* `reset_peer` acts with the next chunk only, sends no RST on connections that stand, and storms
  while it stays: not used, disabling and enabling the proxy breaks connections at once.
* A call that changes a connection whose end does not read hangs for ever, and so do all later calls
  for that proxy: the server waits for its own blocked write. It is then killed and replaced by one
  that has all faults of the moment; this breaks every connection, which is told (`restarts`).
* Ports are fixed: /populate with port 0 would move a proxy at each call.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests
import toxiproxy.api
from toxiproxy import Proxy, Toxiproxy

from chaos.proc.links import Link, ProxyError, Route, Stream
from chaos.proc.process import (
    ProcessId,
    ask_to_stop,
    await_stop,
    send_signal,
    spawn,
    wait_for_pid_file,
)

TIMEOUT_S = 5.0
START_TIMEOUT_MS = 5_000


class ProxyHangs(ProxyError):
    """The server took a call and does not come back from it."""


class _TimedRequests:
    """Stands in for the `requests` module inside toxiproxy-python."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy for the internet is none for loopback

    def get(self, url: str, **options: Any) -> requests.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> requests.Response:
        return self.request("POST", url, **options)

    def delete(self, url: str, **options: Any) -> requests.Response:
        return self.request("DELETE", url, **options)

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        try:
            answer = self._session.request(method, url, timeout=TIMEOUT_S, **options)
        except requests.ReadTimeout as error:
            raise ProxyHangs(f"toxiproxy hangs in {method} {url}") from error
        except requests.RequestException as error:
            raise ProxyError(f"toxiproxy does not answer {method} {url}: {error}") from error
        if answer.status_code >= 400:
            raise ProxyError(
                f"toxiproxy refuses {method} {url}: {answer.status_code} {answer.text.strip()}"
            )
        return answer

    def close(self) -> None:
        self._session.close()


@dataclass(frozen=True, slots=True)
class _Toxic:
    kind: str
    stream: Stream
    attributes: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.stream.value}"


class ToxiproxyLinks:
    """LinkProxies by a toxiproxy-server of our own, which dies with this process."""

    _in_use: ToxiproxyLinks | None = None

    def __init__(self, binary: Path, version: str, api_port: int, directory: Path) -> None:
        """Start the server; ProxyError when it does not come up."""
        if ToxiproxyLinks._in_use is not None:
            raise ProxyError("toxiproxy-python can drive one server per process only")
        self.kind = f"toxiproxy {version}"
        self.restarts = 0
        self._command = [str(binary), "-host", "127.0.0.1", "-port", str(api_port)]
        self._log_file = directory / "toxiproxy.log"
        self._pid_file = directory / "toxiproxy.pid"
        self._url = f"http://127.0.0.1:{api_port}"
        self._proxies: dict[Link, Proxy] = {}
        self._routes: dict[Link, Route] = {}
        self._toxics: dict[Link, dict[str, _Toxic]] = {}
        """What holds now, for a server that begins anew."""
        self._closed: dict[Link, None] = {}
        self._http = _TimedRequests()
        toxiproxy.api.requests = self._http
        self._server = Toxiproxy()
        self._server.update_api_consumer("127.0.0.1", api_port)
        self._process: ProcessId | None = None
        ToxiproxyLinks._in_use = self
        try:
            self._start()
        except BaseException:
            self.shutdown()
            raise

    # --- the server -------------------------------------------------------------------------

    def _start(self) -> None:
        self._child: subprocess.Popen[bytes] = spawn(
            self._command, pid_file=self._pid_file, log_file=self._log_file, leashed=True
        )
        self._process = wait_for_pid_file(self._pid_file, self._child)
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        deadline_ns = time.monotonic_ns() + START_TIMEOUT_MS * 1_000_000
        while True:
            with suppress(ProxyError):
                self._call("GET", "/version")
                return
            if self._child.poll() is not None or time.monotonic_ns() >= deadline_ns:
                said = self._log_file.read_text(encoding="utf-8", errors="replace").strip()
                last = said.splitlines()[-1] if said else "it printed nothing"
                raise ProxyError(f"toxiproxy-server did not come up on {self._url}: {last}")
            time.sleep(0.02)

    def _start_anew(self) -> None:
        """Replace a server that hangs; nobody is connected to the new one, so it cannot hang."""
        assert self._process is not None
        send_signal(self._process, signal.SIGKILL)
        self._child.wait()
        self.restarts += 1
        self._start()
        self._populate(list(self._routes.values()))
        for link, toxics in self._toxics.items():
            for toxic in toxics.values():
                self._add(link, toxic)
        for link in self._closed:
            self._enable(link, is_enabled=False)

    def _do(self, change: Callable[[], object]) -> None:
        """Make a change that is noted already; a new server has it."""
        try:
            change()
        except ProxyHangs:
            self._start_anew()

    def _call(self, method: str, path: str, body: object = None) -> Any:
        answer = self._http.request(method, self._url + path, json=body)
        return answer.json() if answer.content else None

    def _proxy(self, link: Link) -> Proxy:
        if link not in self._proxies:
            raise ProxyError(f"there is no link {link.name}")
        return self._proxies[link]

    def _populate(self, routes: Sequence[Route]) -> None:
        wanted = [
            {
                "name": route.link.name,
                "listen": route.listen,
                "upstream": route.upstream,
                "enabled": True,
            }
            for route in routes
        ]
        made = {
            values["name"]: values for values in self._call("POST", "/populate", wanted)["proxies"]
        }
        for route in routes:
            if made.get(route.link.name, {}).get("listen") != route.listen:
                raise ProxyError(f"toxiproxy does not listen on {route.listen}")
            self._proxies[route.link] = Proxy(**made[route.link.name])

    def _add(self, link: Link, toxic: _Toxic) -> None:
        self._proxy(link).add_toxic(
            name=toxic.name,
            type=toxic.kind,
            stream=toxic.stream.value,
            toxicity=1.0,
            attributes=dict(toxic.attributes),
        )

    def _enable(self, link: Link, *, is_enabled: bool) -> None:
        self._call("PATCH", f"/proxies/{self._proxy(link).name}", {"enabled": is_enabled})

    # --- the interface ----------------------------------------------------------------------

    def create(self, routes: Sequence[Route]) -> None:
        self._populate(routes)
        self._routes.update((route.link, route) for route in routes)

    def cut(self, link: Link, stream: Stream) -> None:
        self._disturb(link, _Toxic("timeout", stream, (("timeout", 0),)))

    def stall(self, link: Link, stream: Stream) -> None:
        self._disturb(link, _Toxic("bandwidth", stream, (("rate", 0),)))

    def slow(self, link: Link, stream: Stream, latency_ms: int) -> None:
        self._disturb(link, _Toxic("latency", stream, (("latency", latency_ms), ("jitter", 0))))

    def _disturb(self, link: Link, toxic: _Toxic) -> None:
        self._proxy(link)
        self._toxics.setdefault(link, {})[toxic.name] = toxic
        self._do(lambda: self._add(link, toxic))

    def reset(self, link: Link) -> None:
        self.close(link)
        self.reopen(link)

    def close(self, link: Link) -> None:
        self._proxy(link)
        self._closed[link] = None
        self._do(lambda: self._enable(link, is_enabled=False))

    def reopen(self, link: Link) -> None:
        self._proxy(link)
        self._closed.pop(link, None)
        self._do(lambda: self._enable(link, is_enabled=True))

    def heal(self, link: Link) -> None:
        proxy = self._proxy(link)
        toxics = self._toxics.get(link, {})
        for name in sorted(toxics):
            del toxics[name]
            self._do(partial(proxy.destroy_toxic, name))

    def heal_all(self) -> None:
        self._toxics.clear()
        self._closed.clear()
        self._do(self._server.reset)
        for name, values in self._call("GET", "/proxies").items():
            if values["toxics"] or not values["enabled"]:
                raise ProxyError(f"toxiproxy did not reset {name}")

    def shutdown(self) -> None:
        if self._process is not None:
            ask_to_stop(self._process)
            await_stop(self._process, 2_000)
            self._child.wait()
            self._process = None
        self._http.close()
        if ToxiproxyLinks._in_use is self:
            ToxiproxyLinks._in_use = None
            toxiproxy.api.requests = requests
