"""One uvicorn process: runs per second by `POST …/runs` with `Prefer: wait=5`, and by the same routes with nothing behind.

The empty handler stands in a process of its own, among the same routes: FastAPI looks at all of them in each request. The
callers, in this process, are bare protocols on sockets that are kept open, because an HTTP client library takes longer
than the server. The hosts are asked in turns, so that what else the machine does befalls both. With h11 instead of
httptools both are slower, the empty one by more.

The more callers there are, the more runs share a commit: both numbers of them are those of a busy host.
"""

# ruff: noqa: ARG002  the handler that does nothing is asked all the same

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, cast
from unittest.mock import patch

from fastapi import Body, FastAPI, Request, Response
from sqlalchemy import make_url

import continuum.http
from benchmarks.measuring import Figure, instance
from benchmarks.workflows import one_step
from continuum.http import mounting
from continuum.http.parameters import ABSENT, InstanceName
from continuum.http.shapes import RUN_ID, RunStart
from continuum.http.starting import Prefer, Starting, StartKey
from continuum.http.writing import answer
from service.app import calm_collector
from tests.support.postgres import fresh_database

DATABASE = "CONTINUUM_BENCHMARK_DATABASE"
ROOT = Path(__file__).resolve().parents[1]
PREFIX = "/continuum"
PATH = f"{PREFIX}/continuum/runs"
PARSER = "httptools" if find_spec("httptools") else "h11"  # as uvicorn chooses
CONNECTIONS = 64, 256
REQUESTS, REPETITIONS = 1_500, 12  # short turns: what else a machine does changes within seconds
HOSTS = 4  # of each kind, one after the other: of two equal processes one may be a tenth quicker all its life
PATIENCE_SECONDS = 120.0  # of a repetition, and of the server's start and end
NOTHING: dict[str, Any] = {"run_id": RUN_ID, "state": "completed", "result": 1}

# --- the hosts, each in a process of its own ---------------------------------------------------------------------------


def make() -> FastAPI:
    """Return the application that runs workflows; uvicorn calls this."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with instance(os.environ[DATABASE]):
            with calm_collector():
                yield

    host = FastAPI(lifespan=lifespan)
    host.include_router(continuum.http.router(PREFIX))  # as hosts mount it: with prometheus_client installed, it counts
    return host


def make_empty() -> FastAPI:
    """Return the application that does nothing."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with calm_collector():
            yield

    host = FastAPI(lifespan=lifespan)
    with patch.object(mounting, "Starting", Nothing):
        host.include_router(continuum.http.router(PREFIX))
    return host


class Nothing(Starting):
    """Starts nothing."""

    async def start_run(
        self,
        request: Request,
        instance: InstanceName,
        start: Annotated[RunStart, Body()],
        key: StartKey = ABSENT,
        prefer: Prefer = ABSENT,
    ) -> Response:
        """Do nothing with what was read and checked; answer as if a run had ended."""
        return answer(NOTHING)


@contextmanager
def serving(make: Callable[[], FastAPI], database: str) -> Iterator[int]:
    """Serve a host in a process; yield its port, which answers once the host has started."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(max(CONNECTIONS))
        port: int = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.serve", str(listener.fileno()), f"{__name__}:{make.__name__}"],
            cwd=ROOT,
            env={**os.environ, DATABASE: database},
            pass_fds=[listener.fileno()],
        )
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()  # does nothing to one that has ended


# --- the callers ------------------------------------------------------------------------------------------------------


class Load:
    """So many requests; `done` is set when all are answered, or at the first answer that is wrong."""

    def __init__(self, count: int, expected: Callable[[int], int]) -> None:
        self._head = f"POST {PATH} HTTP/1.1\r\nHost: host\r\nContent-Type: application/json\r\nPrefer: wait=5\r\n"
        self._numbers = iter(range(count))
        self._to_come = count
        self._expected = expected
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def request(self) -> tuple[int, bytes] | None:
        """Return the next request and the result that it must have; None: all have been sent."""
        if (number := next(self._numbers, None)) is None:
            return None
        body = json.dumps({"workflow": one_step.name, "input": {"n": number}})
        return self._expected(number), f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    def answered(self, expected: int, head: bytes, body: bytes) -> None:
        """Check an answer."""
        said: Any = json.loads(body)
        if not head.startswith(b"HTTP/1.1 200 ") or (said["state"], said["result"]) != ("completed", expected):
            self.failed(AssertionError(f"{head!r} {body!r}: the result is {expected}"))
        self._to_come -= 1
        if not self._to_come and not self.done.done():
            self.done.set_result(None)

    def failed(self, error: Exception) -> None:
        """Give up."""
        if not self.done.done():
            self.done.set_exception(error)


class Caller(asyncio.Protocol):
    """One connection, with one request under way at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._expected = 0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def send(self) -> None:
        """Send the next request, if there is one."""
        if (request := self._load.request()) is not None:
            self._expected, message = request
            self.transport.write(message)

    def data_received(self, data: bytes) -> None:
        """Take an answer, once it is whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self._received = b""
            self._load.answered(self._expected, head, body)
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up: the server closes no connection of its own accord."""
        self._load.failed(exc or ConnectionError("the server has closed a connection"))


async def per_second(port: int, count: int, connections: int, expected: Callable[[int], int]) -> float:
    """Ask so many times, as fast as the server answers, on connections that are open already."""
    loop, load = asyncio.get_running_loop(), Load(count, expected)
    opened = [await loop.create_connection(partial(Caller, load), "127.0.0.1", port) for _ in range(connections)]
    begun = time.perf_counter()
    for _, caller in opened:
        caller.send()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await load.done
        return count / (time.perf_counter() - begun)
    finally:
        for transport, _ in opened:
            transport.close()


async def measure(url: str, *, quick: bool = False) -> list[Figure]:
    """Measure both hosts in turns, with each number of callers, several times anew."""
    count = REQUESTS // (4 if quick else 1)
    found = {connections: list[tuple[float, float]]() for connections in CONNECTIONS}
    for _ in range(1 if quick else HOSTS):
        async with fresh_database(url) as database:
            address = make_url(database).render_as_string(hide_password=False)
            with serving(make, address) as port, serving(make_empty, address) as empty_port:
                for connections in CONNECTIONS:
                    in_turns = partial(_in_turns, port, empty_port, count, connections)
                    await in_turns()  # until the hosts have started, and are warm
                    found[connections] += [await in_turns() for _ in range(REPETITIONS)]
    return [figure for connections, rates in found.items() for figure in _figures(connections, rates)]


async def _in_turns(port: int, empty_port: int, count: int, connections: int) -> tuple[float, float]:
    return (
        await per_second(port, count, connections, lambda number: number + 1),
        await per_second(empty_port, count, connections, lambda _number: NOTHING["result"]),
    )


def _figures(connections: int, rates: list[tuple[float, float]]) -> list[Figure]:
    runs, empty = zip(*rates, strict=True)
    shares = tuple(some / all_ * 100 for some, all_ in rates)
    return [
        Figure(f"POST …/runs with its result, {connections} connections", "runs/s", runs, "target ≥ 1,000"),
        Figure(f"the same routes with nothing behind, by {PARSER}", "requests/s", empty),
        Figure(f"the former of the latter, {connections} connections", "%", shares, "target ≥ 40"),
    ]
