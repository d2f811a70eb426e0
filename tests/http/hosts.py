"""Hosts and callers: an application called in memory, or served by uvicorn on loopback."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn
from blockbuster import BlockBuster
from fastapi import FastAPI
from pydantic import BaseModel

import continuum
from continuum import activity, workflow
from tests.support.eventually import eventually

BASE = "http://host/continuum"


class Verdict(BaseModel):
    ok: bool
    by: str = "nobody"


@activity
async def double(n: int) -> int:
    return 2 * n


@workflow(name="http.doubled")
async def doubled(n: int) -> int:
    """Double a number, twice."""
    return await double(await double(n))


@workflow(name="http.reviewed", signals={"review": Verdict})
async def reviewed(order: str, cents: int = 0) -> dict[str, Any]:
    verdict = await continuum.wait_signal("review", Verdict)
    return {"order": order, "cents": cents, "ok": verdict.ok, "by": verdict.by}


@workflow(name="http.asked")
async def asked(count: int = 1) -> list[Any]:
    return [await continuum.wait_signal("go", object) for _ in range(count)]


@workflow(name="http.failing")
async def failing(message: str) -> None:
    raise ValueError(message)


@workflow(name="http.buggy")
async def buggy() -> None:
    raise NotImplementedError("nobody has written this yet")


@workflow(name="http.endless")
async def endless() -> float:
    return float("inf")


undone: list[int] = []


@activity(name="http.undo")
async def undo(n: int) -> None:
    undone.append(n)


@activity(name="http.owing", compensate=undo)
async def owing(n: int) -> int:
    return n


@workflow(name="http.indebted")
async def indebted(n: int) -> None:
    await owing(n)
    await continuum.wait_signal("never")


@workflow(name="http.generations")
async def generations(left: int) -> int:
    if left:
        continuum.continue_as_new(left - 1)
    return left


@contextmanager
def unblocked() -> Iterator[None]:
    """Let what blocks an event loop raise BlockingError where it does; connecting may look at a file or two."""
    guard = BlockBuster(scanned_modules=["continuum"])
    for function in guard.functions.values():
        function.can_block_in("continuum/journal/sql/lines.py", {"_connect"})
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@asynccontextmanager
async def caller(host: FastAPI, base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Call an application in memory, on a loop that may never block."""
    transport = httpx.ASGITransport(host)
    with unblocked():
        async with httpx.AsyncClient(transport=transport, base_url=base_url, timeout=30) as client:
            yield client


@asynccontextmanager
async def served(host: FastAPI) -> AsyncIterator[str]:
    """Serve an application by uvicorn on this loop; yield its base URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(host, log_level="critical", lifespan="off", ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await eventually(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def start(client: httpx.AsyncClient, flow: Any, /, *, headers: Any = None, **options: Any) -> httpx.Response:
    """Start a run; what is not an option of a start is its input."""
    known = ("run_id", "version", "namespace", "attributes", "start_at")
    body = {name: options.pop(name) for name in known if name in options}
    return await client.post("/runs", json={"workflow": flow.name, "input": options, **body}, headers=headers)


async def started(client: httpx.AsyncClient, flow: Any, /, **options: Any) -> str:
    """Start a run and return its id."""
    answer = await start(client, flow, **options)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def pointers(answer: httpx.Response) -> list[str]:
    """Return where a refused body is wrong."""
    assert answer.headers["content-type"] == "application/problem+json"
    return [error.get("pointer", error.get("parameter")) for error in answer.json()["errors"]]


def kind(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the kind of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert {"type", "title", "detail"} <= body.keys()
    return answer.status_code, body["type"].removeprefix("urn:continuum:problem:")


async def events(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Read a stream of server-sent events; comments are passed over."""
    event: dict[str, str] = {}
    async for line in response.aiter_lines():
        if not line and event:
            yield event
            event = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def data(event: dict[str, str]) -> dict[str, Any]:
    """Return what an event carries."""
    read: dict[str, Any] = json.loads(event["data"])
    return read
