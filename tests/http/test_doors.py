"""What stands around the handlers: the host's own routes and dependencies, bounds of bodies, probes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

import continuum
import continuum.http
from continuum import ConfigurationError
from tests.http.hosts import BASE, asked, caller, kind, pointers, served, start, started

JSON = {"Content-Type": "application/json"}
LIMIT = 1 << 20


class Own(BaseModel):
    n: int


def with_own_routes() -> FastAPI:
    host = FastAPI()
    host.include_router(continuum.http.router())

    @host.post("/own")
    async def own(_body: Own) -> None: ...

    @host.get("/missing")
    async def missing() -> None:
        raise continuum.RunNotFound("the host's own business")

    return host


async def test_the_hosts_own_refusals_stay_its_own(memory: httpx.AsyncClient) -> None:
    async with caller(with_own_routes(), "http://host") as client:
        answer = await client.post("/own", json={"n": "x"})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/json")
        assert answer.json()["detail"][0]["loc"] == ["body", "n"]
        assert (await client.get("/continuum/nowhere/at/all")).json() == {"detail": "Not Found"}
        with pytest.raises(continuum.RunNotFound):
            await client.get("/missing")


async def admin(token: Annotated[str | None, Header()] = None) -> None:
    if token != "secret":
        raise HTTPException(401, "who are you?", headers={"WWW-Authenticate": "Bearer"})


async def test_the_hosts_dependencies_stand_before_every_route() -> None:
    host = FastAPI()
    host.include_router(continuum.http.router(dependencies=[Depends(admin)]))
    run = "/runs/0198f3c2-7d3e-7c62-a7a4-0d5f0f8b7a11"
    async with continuum.application(), caller(host, f"{BASE}/continuum") as client:
        for method, path in [
            ("POST", "/runs"),
            ("GET", "/runs"),
            ("GET", run),
            ("GET", f"{run}/await"),
            ("GET", f"{run}/events"),
            ("POST", f"{run}/signals/go"),
            ("POST", f"{run}/cancel"),
            ("GET", "/health/live"),
            ("GET", "/health/ready"),
        ]:
            answer = await client.request(method, path, json={"workflow": "x"} if path == "/runs" else None)
            assert (answer.status_code, answer.json()) == (401, {"detail": "who are you?"}), path
            assert answer.headers["www-authenticate"] == "Bearer"
        client.headers["Token"] = "secret"
        assert (await start(client, asked)).status_code == 202


async def test_a_router_serves_only_the_instances_that_it_names() -> None:
    host = FastAPI()
    host.include_router(continuum.http.router(prefix="/all"))
    host.include_router(continuum.http.router(prefix="/some", instances=["other"]))
    async with continuum.application(), caller(host, "http://host") as client:
        body = {"workflow": "http.asked"}
        assert (await client.post("/all/continuum/runs", json=body)).status_code == 202
        assert kind(await client.post("/some/continuum/runs", json=body)) == (404, "instance-not-found")


def test_arguments_that_cannot_be_are_refused_when_the_router_is_made() -> None:
    with pytest.raises(ConfigurationError, match=r"list of names: \['orders'\]"):
        continuum.http.router(instances="orders")
    with pytest.raises(ConfigurationError, match="wait_max"):
        continuum.http.router(wait_max=31)


async def test_errors_of_ours_that_no_client_can_mend_go_to_the_host(
    memory: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("continuum.client.wire.Wire.row", broken)
    run_id = await started(memory, asked)
    with pytest.raises(ZeroDivisionError):
        await memory.get(f"/runs/{run_id}/await", params={"timeout": 0})


class Keyed:
    """A codec whose key may be the wrong one."""

    fits = True

    def encode(self, payload: bytes, _: continuum.PayloadContext) -> bytes:
        return payload[::-1]

    def decode(self, payload: bytes, _: continuum.PayloadContext) -> bytes:
        if not self.fits:
            raise ValueError("the wrong key")
        return payload[::-1]


async def test_what_cannot_be_opened_here_is_not_a_clients_fault(host: FastAPI) -> None:
    codec = Keyed()
    async with continuum.application(payload_codec=codec), caller(host, f"{BASE}/continuum") as client:
        run_id = await started(client, asked)
        await client.post(f"/runs/{run_id}/signals/go", json=1)
        assert (await client.get(f"/runs/{run_id}/await")).json()["result"] == [1]
        codec.fits = False
        with pytest.raises(RuntimeError, match="codec cannot open"):
            await client.get(f"/runs/{run_id}/events")
        answer = await client.get(f"/runs/{run_id}/await")
        assert (answer.status_code, answer.json()["state"]) == (202, "blocked"), "no result is not one of null"
        assert "the wrong key" in answer.json()["blocked_reason"]


async def test_a_stream_that_meets_what_cannot_be_opened_says_so_before_it_breaks(host: FastAPI) -> None:
    codec, seen = Keyed(), list[str]()

    async def follow(run_id: str) -> None:
        headers = {"Accept": "text/event-stream"}
        async with client.stream("GET", f"/runs/{run_id}/events", headers=headers) as answer:
            async for line in answer.aiter_lines():
                seen.append(line)

    async with (
        continuum.application(payload_codec=codec),
        served(host) as url,
        httpx.AsyncClient(base_url=f"{url}/continuum/continuum") as client,
    ):
        run_id = await started(client, asked)
        codec.fits = False
        with pytest.raises(httpx.RemoteProtocolError):
            await follow(run_id)
    assert seen == [": a run's history", "", "event: unreadable", "data: {}", ""], "why is nothing for clients"


async def test_the_wrong_event_loop_is_not_a_clients_fault(host: FastAPI) -> None:
    async def on_a_loop_of_its_own() -> None:
        async with caller(host, f"{BASE}/continuum") as client:
            with pytest.raises(continuum.WrongEventLoop):
                await client.get("/runs/0198f3c2-7d3e-7c62-a7a4-0d5f0f8b7a11/await")

    async with continuum.application():
        await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(on_a_loop_of_its_own()))


# --- bounds -----------------------------------------------------------------------------------------------------------


def body_of(size: int) -> bytes:
    empty = json.dumps({"workflow": "http.asked", "attributes": None, "input": {}}).encode()
    return empty + b" " * (size - len(empty))


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 65_536):
        yield body[at : at + 65_536]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_has_at_most_a_mebibyte(memory: httpx.AsyncClient, chunked: bool) -> None:
    fits, exceeds = [
        await memory.post("/runs", content=in_chunks(body) if chunked else body, headers=JSON)
        for body in (body_of(LIMIT), body_of(LIMIT + 1))
    ]
    assert fits.status_code == 202
    assert kind(exceeds) == (413, "body-too-large")


async def test_every_route_that_takes_a_body_bounds_it(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    for path in ("/runs", f"/runs/{run_id}/signals/go", f"/runs/{run_id}/cancel"):
        assert kind(await memory.post(path, content=in_chunks(b" " * 2 * LIMIT), headers=JSON)) == (
            413,
            "body-too-large",
        )


async def test_a_body_that_is_too_large_is_not_read_to_its_end(host: FastAPI) -> None:
    sent = 0

    async def without_end() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    async with continuum.application(), served(host) as url, httpx.AsyncClient(timeout=10) as client:
        with contextlib.suppress(httpx.NetworkError):  # the connection is closed on who goes on sending
            answer = await client.post(f"{url}/continuum/continuum/runs", content=without_end(), headers=JSON)
            assert answer.status_code == 413
    assert sent < 20 * LIMIT


async def test_a_body_announced_too_large_is_refused_before_it_comes(host: FastAPI) -> None:
    async with continuum.application(), served(host) as url:
        address = httpx.URL(url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(
            b"POST /continuum/continuum/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000000\r\n\r\n"
        )
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_the_bound_is_an_option() -> None:
    host = FastAPI()
    host.include_router(continuum.http.router(body_max=100))
    async with continuum.application(), caller(host, f"{BASE}/continuum") as client:
        assert (await client.post("/runs", content=body_of(100), headers=JSON)).status_code == 202
        assert kind(await client.post("/runs", content=body_of(101), headers=JSON)) == (413, "body-too-large")


async def test_an_input_beyond_payload_max_is_too_large(host: FastAPI) -> None:
    async with continuum.application(payload_max=1000), caller(host, f"{BASE}/continuum") as client:
        run_id = await started(client, asked)
        answer = await client.post(f"/runs/{run_id}/signals/go", json="x" * 1000)
        assert kind(answer) == (413, "body-too-large")


# --- probes -----------------------------------------------------------------------------------------------------------


async def test_probes_tell_live_from_ready(host: FastAPI) -> None:
    async with caller(host, f"{BASE}/continuum") as client:
        async with continuum.application() as app:
            assert (await client.get("/health/live")).json() == {"status": "live", "instance": "continuum"}
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()) == (
                200,
                {"state": "ready", "instance": "continuum", "details": []},
            )
            app.begin_drain()
            draining = await client.get("/health/ready")
            assert (draining.status_code, draining.json()["state"]) == (503, "draining")
            assert draining.headers["retry-after"] == "1"
        over = await client.get("/health/ready")
        assert (over.status_code, over.json()["state"]) == (503, "not_started")
        assert (await client.get("/health/live")).status_code == 200
        assert kind(await client.get("http://host/continuum/nobody/health/live")) == (404, "instance-not-found")
        assert pointers(await client.get("http://host/continuum/no%20name/health/live")) == ["instance"]


async def test_other_methods_are_told_all_that_a_path_takes(memory: httpx.AsyncClient) -> None:
    answer = await memory.delete("/runs")
    assert kind(answer) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"
    assert (await memory.post("/health/live")).headers["allow"] == "GET"
