"""Two server processes: what a signal to the wrong node costs, against one to the node where the run lives.

Requests go out on bare sockets, because an HTTP client library takes longer than the server. Somebody waits for the run's
end by a long poll that was sent before: on its owner (signal, wake of the owner, turn, commit, answer), or on the other
node too (and word of the end).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from benchmarks.measuring import Figure
from tests.cluster.nodes import Cluster, Node
from tests.support.postgres import fresh_database

SIGNALS = 300
WARM = 20


class Wire:
    """One connection that is kept open."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the answer's JSON."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._node.port)
        reader, writer = self._streams
        content = b"" if method == "GET" else json.dumps(body).encode()
        head = f"{method} /continuum/orders/runs{path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(content)}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)
        answered = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answered.split(b"content-length:")[1].split(b"\r\n")[0])
        return json.loads(await reader.readexactly(length))

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()


async def measure(url: str, *, quick: bool = False) -> list[Figure]:
    """Measure single signals on an idle pair of nodes."""
    count = SIGNALS // (4 if quick else 1)
    async with fresh_database(url) as database:
        engine = create_async_engine(database)
        await continuum.migrate(engine)
        await engine.dispose()
        with tempfile.TemporaryDirectory() as folder:
            cluster = Cluster({"orders": make_url(database).render_as_string(hide_password=False)}, Path(folder))
            try:
                owner, other = await cluster.start("owner", "other", options={}, ttl=30.0)
                local = await _signals(owner, owner, owner, count)
                forwarded = await _signals(owner, other, owner, count)
                back = await _signals(owner, other, other, count)
                roads = len(other.events("run.forwarded"))
            finally:
                await cluster.close()
    base, p50, there = (statistics.median(taken) for taken in (local, forwarded, back))
    p99 = statistics.quantiles(forwarded, n=100)[98]
    return [
        Figure("signal to the owner → run ended there, p50", "ms", (base,)),
        Figure("signal to the wrong node → run ended on its owner, p50", "ms", (p50,), "target ≤ 10"),
        Figure("signal to the wrong node → run ended on its owner, p99", "ms", (p99,)),
        Figure("added by the forwarded wake, p50", "ms", (p50 - base,)),
        Figure("signal to the wrong node → end seen there, p50", "ms", (there,)),
        Figure(f"of {2 * count} signals, by the peer road", "signals", (roads - 2 * WARM,)),
    ]


async def _signals(owner: Node, at: Node, waits_at: Node, count: int) -> list[float]:
    starts, signals, waits = Wire(owner), Wire(at), Wire(waits_at)
    taken = []
    try:
        for number in range(WARM + count):
            run_id = (await starts.ask("POST", "", {"workflow": "cluster.waits"}))["run_id"]
            waiting = asyncio.ensure_future(waits.ask("GET", f"/{run_id}/await?timeout=20"))
            await asyncio.sleep(0.02)  # the long poll has arrived, and the owner has been asked
            begun = time.perf_counter()
            await signals.ask("POST", f"/{run_id}/signals/go", number)
            ended = await waiting
            assert ended["state"] == "completed", ended
            if number >= WARM:
                taken.append((time.perf_counter() - begun) * 1_000)
    finally:
        for wire in (starts, signals, waits):
            wire.close()
    return taken
