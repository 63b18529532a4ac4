"""Our own TCP proxy, for machines without toxiproxy: the same faults, nothing drawn by chance.

One thread with an asyncio loop carries all links. Each stream of a connection is a reader, a queue
of (due time, bytes) and a writer, so that latency keeps the order and costs no throughput. The
fault state belongs to the link and is looked at for each chunk.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.proc.links import BOTH, Link, ProxyError, Route, Stream

CHUNK_BYTES = 65_536
QUEUE_CHUNKS = 64
CALL_TIMEOUT_S = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on with 0 s: closing sends RST instead of FIN."""


Chunks = asyncio.Queue[tuple[float, bytes]]


class _Ended(ConnectionError):
    """One side closed: with this its connection ends in both directions."""


@dataclass(slots=True)
class _StreamFault:
    is_cut: bool = False
    latency_ms: int = 0
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while the stream is stalled."""

    def __post_init__(self) -> None:
        self.flowing.set()


@dataclass(slots=True)
class _LinkState:
    route: Route
    faults: dict[Stream, _StreamFault]
    server: asyncio.Server | None = None
    connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = field(
        default_factory=dict
    )


class BuiltInProxies:
    """LinkProxies without any other program."""

    kind = "built-in"
    restarts = 0

    def __init__(self) -> None:
        self._links: dict[Link, _LinkState] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="link-proxies", daemon=True
        )
        self._thread.start()

    # --- the interface: each call runs in the loop's thread ---------------------------------

    def create(self, routes: Sequence[Route]) -> None:
        for route in routes:
            self._call(self._create(route), f"listen on {route.listen}")

    def cut(self, link: Link, stream: Stream) -> None:
        self._set(link, stream, is_cut=True)

    def stall(self, link: Link, stream: Stream) -> None:
        self._set(link, stream, is_stalled=True)

    def slow(self, link: Link, stream: Stream, latency_ms: int) -> None:
        self._set(link, stream, latency_ms=latency_ms)

    def reset(self, link: Link) -> None:
        self._call(self._break_connections(link, with_reset=True), f"reset {link.name}")

    def close(self, link: Link) -> None:
        self._call(self._close(link), f"close {link.name}")

    def reopen(self, link: Link) -> None:
        self._call(self._listen(link), f"reopen {link.name}")

    def heal(self, link: Link) -> None:
        self._call(self._heal(link), f"heal {link.name}")

    def heal_all(self) -> None:
        for link in list(self._links):
            self.heal(link)
            self.reopen(link)

    def shutdown(self) -> None:
        if not self._thread.is_alive():
            return
        for link in list(self._links):
            self.heal(link)
            self.close(link)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None], what: str) -> None:
        if not self._thread.is_alive():
            work.close()
            raise ProxyError(f"cannot {what}: the proxies have ended")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result(CALL_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise ProxyError(f"cannot {what}: {error}") from error

    def _state(self, link: Link) -> _LinkState:
        if link not in self._links:
            raise ProxyError(f"there is no link {link.name}")
        return self._links[link]

    def _set(
        self,
        link: Link,
        stream: Stream,
        *,
        is_cut: bool | None = None,
        is_stalled: bool = False,
        latency_ms: int | None = None,
    ) -> None:
        fault = self._state(link).faults[stream]

        async def change() -> None:
            fault.is_cut = fault.is_cut if is_cut is None else is_cut
            fault.latency_ms = fault.latency_ms if latency_ms is None else latency_ms
            if is_stalled:
                fault.flowing.clear()

        self._call(change(), f"change {link.name}")

    # --- in the loop ------------------------------------------------------------------------

    async def _create(self, route: Route) -> None:
        self._links[route.link] = _LinkState(route, {stream: _StreamFault() for stream in BOTH})
        await self._listen(route.link)

    async def _listen(self, link: Link) -> None:
        state = self._state(link)
        if state.server is None:
            host, port = state.route.listen.rsplit(":", 1)

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._carry(state, reader, writer)

            state.server = await asyncio.start_server(serve, host, int(port))

    async def _close(self, link: Link) -> None:
        state = self._state(link)
        if state.server is not None:
            state.server.close()
            state.server = None
        await self._break_connections(link, with_reset=False)

    async def _heal(self, link: Link) -> None:
        state = self._state(link)
        was_cut = any(fault.is_cut for fault in state.faults.values())
        for fault in state.faults.values():
            fault.is_cut, fault.latency_ms = False, 0
            fault.flowing.set()
        if was_cut:
            # Bytes are missing from these streams: nobody may read on across the gap.
            await self._break_connections(link, with_reset=False)

    async def _break_connections(self, link: Link, *, with_reset: bool) -> None:
        connections = dict(self._state(link).connections)
        for task, writers in connections.items():
            for writer in writers:
                raw = writer.get_extra_info("socket")
                if with_reset and raw is not None:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                writer.transport.abort()
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _carry(
        self, state: _LinkState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        state.connections[task] = (writer,)
        try:
            host, port = state.route.upstream.rsplit(":", 1)
            try:
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
            except OSError:
                return  # the node is down: whoever connected sees the connection end
            state.connections[task] = (writer, far_writer)
            up, down = state.faults[Stream.UPSTREAM], state.faults[Stream.DOWNSTREAM]
            await _until_one_ends(
                *_stream(up, reader, far_writer), *_stream(down, far_reader, writer)
            )
        finally:
            for side in state.connections.pop(task):
                side.close()


def _stream(
    fault: _StreamFault, source: asyncio.StreamReader, sink: asyncio.StreamWriter
) -> tuple[Coroutine[Any, Any, None], Coroutine[Any, Any, None]]:
    queue: Chunks = asyncio.Queue(QUEUE_CHUNKS)
    return _read(fault, source, queue), _write(fault, queue, sink)


async def _until_one_ends(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all until one raises. A side that went away is the usual end, not an error."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, OSError):
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(fault: _StreamFault, source: asyncio.StreamReader, queue: Chunks) -> None:
    loop = asyncio.get_running_loop()
    while chunk := await source.read(CHUNK_BYTES):
        await queue.put((loop.time() + fault.latency_ms / 1000, chunk))
    await queue.put((loop.time(), b""))


async def _write(fault: _StreamFault, queue: Chunks, sink: asyncio.StreamWriter) -> None:
    """Deliver under whatever fault holds for each chunk; ends by raising."""
    loop = asyncio.get_running_loop()
    while True:
        due, chunk = await queue.get()
        if (wait_s := due - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        await fault.flowing.wait()
        if not chunk:
            raise _Ended
        if not fault.is_cut:
            sink.write(chunk)
            await sink.drain()
