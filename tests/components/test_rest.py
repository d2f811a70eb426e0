"""The verbs over REST: the same names, values and errors as in process."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

import continuum
import continuum.http
import continuum.rest
from continuum import (
    IdempotencyConflict,
    InputInvalid,
    InstanceNotRegistered,
    InstanceNotStarted,
    NotAllowedHere,
    ResultTimedOut,
    RunBlocked,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotActive,
    RunNotFound,
    SignalInvalid,
    SignalUnknown,
    WorkflowNotFound,
    activity,
    workflow,
)
from continuum.errors import PayloadTooLarge, RequestFailed
from tests.support.eventually import eventually


class Order(BaseModel):
    id: str
    cents: int


@activity
async def double(order: Order) -> Order:
    return Order(id=order.id, cents=2 * order.cents)


@workflow(name="rest.doubled")
async def doubled(order: Order, *, times: int = 1) -> Order:
    for _ in range(times):
        order = await double(order)
    return order


@workflow(name="rest.waits", signals={"order": Order, "a/b?c": object})
async def waits() -> list[Any]:
    return [await continuum.wait_signal("order", Order), await continuum.wait_signal("a/b?c", object)]


@workflow(name="rest.loops")
async def loops(left: int) -> int:
    await double(Order(id="o", cents=left))
    if left:
        continuum.continue_as_new(left - 1)
    return left


@workflow(name="rest.fails")
async def fails() -> None:
    raise continuum.ActivityError("no", details={"x": 1})


@workflow(name="rest.blocks")
async def blocks() -> None:
    raise NotImplementedError("not yet")


@pytest.fixture
async def client() -> AsyncIterator[continuum.rest.Client]:
    app = FastAPI()
    app.include_router(continuum.http.router(prefix="/api"))
    async with (
        continuum.application(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
        continuum.rest.Client("http://host/api/", http=http) as client,
    ):
        yield client


async def test_a_run_is_started_and_awaited_with_its_types(client: continuum.rest.Client) -> None:
    run = await client.start(doubled, Order(id="o", cents=2))
    assert await run.result(timeout=15) == Order(id="o", cents=4)
    bound = await client.start(doubled.bound(Order(id="o", cents=2), times=3))
    assert await bound.result(timeout=15) == Order(id="o", cents=16)
    assert await client.await_run(run.run_id, doubled) == Order(id="o", cents=4)
    named = await client.start("rest.doubled", {"order": {"id": "p", "cents": 1}}, instance="continuum")
    assert await named.result(timeout=15) == {"id": "p", "cents": 2}
    assert (await named.status()).workflow == "rest.doubled"


async def test_many_are_started_together_and_found_by_their_handles(client: continuum.rest.Client) -> None:
    orders = [Order(id=str(n), cents=n) for n in range(3)]
    typed = await client.start_many(doubled, orders, namespace="many", attributes={"batch": 1})
    bound = await client.start_many([doubled.bound(orders[1], times=2)], namespace="many")
    named = await client.start_many("rest.doubled", [{"order": {"id": "n", "cents": 4}}], namespace="many")
    assert [await run.result(timeout=15) for run in typed] == [Order(id=str(n), cents=2 * n) for n in range(3)]
    assert await client.handle(bound[0].run_id, doubled).result(timeout=15) == Order(id="1", cents=4)
    assert await client.handle(named[0].run_id).result(timeout=15) == {"id": "n", "cents": 8}
    assert await client.start_many(doubled, []) == []
    with pytest.raises(InputInvalid) as misfit:
        await client.start_many("rest.doubled", [{"order": {"id": "n", "cents": 4}}, {"order": 1}], namespace="many")
    assert misfit.value.problems[0].pointer.startswith("/runs/1/input/order")
    for wrong in (doubled, "rest.doubled"):
        with pytest.raises(InputInvalid, match="one input per run"):
            await client.start_many(wrong)  # type: ignore[arg-type]
    with pytest.raises(NotAllowedHere, match="no workflow"):
        await client.start_many(double, orders)
    assert len((await client.list_runs(namespace="many")).items) == 5


async def test_a_repeated_start_finds_the_run(client: continuum.rest.Client) -> None:
    for key in ("k", '"quoted" \\ key', "x" * 200):
        first = await client.start(doubled, Order(id=key, cents=1), idempotency_key=key)
        again = await client.start(doubled, Order(id=key, cents=1), idempotency_key=key)
        assert (first.existing, again.existing, again.run_id) == (False, True, first.run_id)
        with pytest.raises(IdempotencyConflict):
            await client.start(doubled, Order(id=key, cents=2), idempotency_key=key)
    with pytest.raises(InputInvalid):
        await client.start(doubled, Order(id="o", cents=1), idempotency_key="schlüssel")


async def test_signals_arrive_with_their_payloads(client: continuum.rest.Client) -> None:
    run = await client.start(waits)
    assert await run.signal("order", Order(id="o", cents=1), delivery_id="d") == "delivered"
    assert await client.signal(run.run_id, "order", Order(id="o", cents=1), delivery_id="d") == "duplicate"
    assert await run.signal("a/b?c", {"when": datetime(2026, 1, 1, tzinfo=UTC)}) == "delivered"
    first, second = await run.result(timeout=15)
    assert (first, second) == ({"id": "o", "cents": 1}, {"when": "2026-01-01T00:00:00Z"})
    with pytest.raises(RunNotActive) as refused:
        await run.signal("order", Order(id="o", cents=1))
    assert refused.value.run_id == run.run_id
    with pytest.raises(SignalInvalid):
        await run.signal("order", object())


async def test_runs_are_read_listed_and_cancelled(client: continuum.rest.Client) -> None:
    run = await client.start(waits, namespace="n", attributes={"customer": "c", "rank": 3})
    other = await client.start(waits, namespace="n")
    one = await client.get_run(run.run_id)
    assert one == await continuum.get_run(run.run_id)
    assert (one.attributes, one.namespace) == ({"customer": "c", "rank": 3}, "n")
    page = await client.list_runs(workflow=waits, attributes={"customer": "c", "rank": 3})
    assert [item.run_id for item in page.items] == [run.run_id]
    first = await client.list_runs(namespace="n", limit=1)
    rest = await client.list_runs(namespace="n", limit=1, cursor=first.next_cursor)
    assert [first.items[0].run_id, rest.items[0].run_id] == [other.run_id, run.run_id]
    assert await run.cancel() == "cancelled"
    assert (await client.list_runs(namespace="n", state="cancelled")).items[0].run_id == run.run_id
    with pytest.raises(RunCancelled):
        await run.result(timeout=15)
    with pytest.raises(RunNotActive):
        await client.cancel(run.run_id)


async def test_a_history_is_the_one_that_the_instance_tells(
    client: continuum.rest.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continuum.rest.client.EVENTS_PAGE", 2)
    run = await client.start(doubled, Order(id="o", cents=2))
    await run.result(timeout=15)
    assert await client.history(run.run_id) == await continuum.history(run.run_id)


async def test_a_history_of_any_generation_is_read_in_pages(
    client: continuum.rest.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continuum.rest.client.EVENTS_PAGE", 2)
    run = await client.start(loops, 2)
    assert await run.result(timeout=15) == 0
    for generation in (None, 1, 2, 3):
        assert await client.history(run.run_id, generation=generation) == await continuum.history(
            run.run_id, generation=generation
        )
    assert await client.history(run.run_id, generation=4) == []
    with pytest.raises(RunNotFound):
        await client.history(uuid4())


async def test_a_failed_run_raises_what_became_of_it(client: continuum.rest.Client) -> None:
    run = await client.start(fails)
    with pytest.raises(RunFailed) as failed:
        await run.result(timeout=15)
    assert failed.value.type == "continuum.errors.ActivityError"
    assert failed.value.details == {"x": 1}
    assert failed.value.caused_by(continuum.ActivityError)
    error = (await client.get_run(run.run_id)).error
    assert error is not None
    assert error.message == "no"


async def test_a_blocked_run_leaves_nobody_hanging(
    client: continuum.rest.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    ask = client._sender.ask

    async def count(*args: Any, wait: float = 0.0, **kwargs: Any) -> Any:
        asked.append(wait)
        return await ask(*args, wait=wait, **kwargs)

    monkeypatch.setattr(client._sender, "ask", count)
    run = await client.start(blocks)
    with pytest.raises(RunBlocked, match="not yet"):
        await run.result(timeout=15)
    with pytest.raises(ResultTimedOut):
        await run.result(timeout=0.3, wait_blocked=True)
    assert len(asked) == 4, "started, waited, waited, and once more when the time was up"


async def test_waiting_ends_with_its_timeout(client: continuum.rest.Client) -> None:
    run = await client.start(waits)
    with pytest.raises(ResultTimedOut):
        await run.result(timeout=0.2)
    waiting = asyncio.ensure_future(run.result())
    await run.signal("order", Order(id="o", cents=1))
    await run.signal("a/b?c")
    assert (await waiting)[1] is None


@workflow(name="rest.directed")
async def directed(name: str) -> object:
    return await continuum.wait_signal(name, object)


@pytest.mark.parametrize("name", [".", "..", "../cancel"])
async def test_a_signal_may_have_a_name_that_is_a_direction_in_a_path(client: continuum.rest.Client, name: str) -> None:
    run = await client.start(directed, name)
    assert await run.signal(name, 1) == "delivered"
    assert await run.result(timeout=15) == 1


async def test_a_202_is_no_result_whatever_state_it_shows(
    client: continuum.rest.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of before may have answered so, when a run ended between its wait and its look."""
    run = await client.start(doubled, Order(id="o", cents=3))
    ask, early = client._sender.ask, [httpx.Response(202, json={"run_id": run.run_id, "state": "completed"})]

    async def answered(*args: Any, **kwargs: Any) -> Any:
        return early.pop() if early else await ask(*args, **kwargs)

    monkeypatch.setattr(client._sender, "ask", answered)
    monkeypatch.setattr("continuum.rest.client.PAUSE_SECONDS", 0.01)
    assert await run.result(timeout=15) == Order(id="o", cents=6)


async def test_refusals_are_the_same_errors(client: continuum.rest.Client) -> None:
    nobody = uuid4()
    with pytest.raises(RunNotFound):
        await client.get_run(nobody)
    with pytest.raises(RunNotFound):
        await client.await_run(nobody, timeout=1)
    with pytest.raises(RunNotFound):
        await client.signal(nobody, "x")
    with pytest.raises(WorkflowNotFound):
        await client.start("rest.unheard_of")
    with pytest.raises(InstanceNotRegistered):
        await client.get_run(nobody, instance="elsewhere")
    with pytest.raises(InputInvalid) as misfit:
        await client.start("rest.doubled", {"order": {"id": "o", "cents": "many"}})
    assert misfit.value.problems[0].pointer == "/input/order/cents"
    run = await client.start(waits)
    with pytest.raises(RunExists):
        await client.start(waits, run_id=run.run_id)
    with pytest.raises(SignalInvalid) as unfit:
        await client.signal(run.run_id, "order", {"id": "o"})
    assert (unfit.value.path, unfit.value.run_id) == ("/cents", run.run_id)
    with pytest.raises(SignalUnknown) as unknown:
        await client.signal(run.run_id, "ordre", {"id": "o"})
    assert (unknown.value.path, unknown.value.run_id) == ("/name", run.run_id)
    with pytest.raises(InputInvalid):
        await client.get_run("no id")
    with pytest.raises(InputInvalid):
        await client.start("rest.doubled", "no mapping")  # type: ignore[call-overload]
    with pytest.raises(PayloadTooLarge):
        await client.signal(run.run_id, "order", "x" * 2_000_000)


async def test_an_instance_that_was_left_is_told() -> None:
    app = FastAPI()
    app.include_router(continuum.http.router(prefix="/api"))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    async with http, continuum.application():
        client = continuum.rest.Client("http://host/api", http=http)
        run = await client.start(waits)
        waiting = asyncio.ensure_future(run.result(timeout=0.5))
        await eventually(lambda: not waiting.done())
        await continuum.drain()
        with pytest.raises(ResultTimedOut):  # what it is answered early it asks again
            await waiting
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as late:
        with pytest.raises(InstanceNotStarted):
            await continuum.rest.Client("http://host/api", http=late).get_run(run.run_id)


async def test_what_is_not_continuum_is_said_so() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/cancel"):
            raise httpx.ConnectError("nobody listens")
        return httpx.Response(200 if request.method == "GET" else 502, text="<html>")

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = continuum.rest.Client("http://host", http=http)
        for ask, status in ((client.get_run(uuid4()), 200), (client.signal(uuid4(), "x"), 502)):
            with pytest.raises(RequestFailed) as failed:
                await ask
            assert failed.value.status == status
        with pytest.raises(RequestFailed, match="not answered"):
            await client.cancel(uuid4())


async def test_it_makes_and_closes_a_client_of_its_own() -> None:
    client = continuum.rest.Client("http://127.0.0.1:1", timeout=5)
    with pytest.raises(RequestFailed):
        await client.get_run(uuid4())
    assert client._sender._http is not None
    await client.close()
    assert client._sender._http is None


@workflow(name="rest.traced")
async def traced() -> str | None:
    return continuum.info().trace_context


async def test_a_trace_context_travels_in_the_headers(client: continuum.rest.Client) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    run = await client.start(traced, trace_context={"traceparent": parent, "tracestate": "a=1"})
    assert await run.result(timeout=15) == f"{parent} a=1"
    assert await (await client.start(traced)).result(timeout=15) is None
    with pytest.raises(InputInvalid):
        await client.start(traced, trace_context="nonsense")
