"""Spans of runs and attempts, made by the real SDK."""

import asyncio
import contextlib
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from msgspec.structs import replace
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import StatusCode
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

import continuum
import continuum.http
import continuum.otel
import continuum.rest
from continuum import Retry, RunBlocked, RunFailed, activity, workflow
from continuum.clock import VirtualClock
from continuum.composition.instance import Instance
from continuum.runtime import tracing
from continuum.telemetry import emitting
from tests.components.test_peers import Wire, node_on
from tests.otel.looking import ATTEMPT, RUN, Seen, events, id_of, links, parent_of, said, took
from tests.support.eventually import eventually
from tests.support.hosting import Place
from tests.support.stage import Stage, settled

SECRET = "payload-marker-4711"
tries: list[int] = []
users: list[Any] = []


def _of_a_user(name: str) -> None:
    with users[0].start_as_current_span(name):
        pass


@activity(name="otel.flaky", retry=Retry(initial=0.01, jitter=0.0))
async def flaky(secret: str) -> str:
    tries.append(1)
    _of_a_user("in async")
    if len(tries) == 1:
        raise ConnectionError("the first try fails")
    return secret


@activity(name="otel.threaded")
def threaded(secret: str) -> str:
    _of_a_user("in a thread")
    return secret


@activity(name="otel.keyed", idempotency_key=lambda key: key)
async def keyed(key: str) -> str:
    return key


@workflow(name="otel.below")
async def below(secret: str) -> str:
    return await threaded(secret)


@workflow(name="otel.story")
async def story(secret: str) -> str:
    await flaky(secret)
    child = await continuum.start_child(below, secret)
    await child
    await asyncio.sleep(0.05)
    await continuum.wait_signal("go", str)
    await keyed("k")
    await keyed("k")
    return secret


@workflow(name="otel.waits")
async def waits(secret: str) -> str:
    await threaded(secret)
    return await continuum.wait_signal("go", str)


@workflow(name="otel.fails")
async def fails(secret: str) -> None:
    raise LookupError("not here")


@workflow(name="otel.breaks")
async def breaks(secret: str) -> None:
    raise NotImplementedError("not yet")


@pytest.fixture(autouse=True)
def _users_tracer(seen: Seen) -> None:
    tries.clear()
    users[:] = [seen.tracer]


async def test_a_run_is_told_in_short_spans_that_link_to_the_span_of_its_start(seen: Seen, app: Instance) -> None:
    with seen.tracer.start_as_current_span("request") as request:
        run = await app.start(story, SECRET, namespace="shop")
    started_in = request.get_span_context().span_id
    await eventually(lambda: any("timer.fired" in events(span) for span in seen.spans(RUN, run_id=run.run_id)))
    await eventually(lambda: not _spans_of()._runs)  # it is parked: no span is open
    with seen.tracer.start_as_current_span("sender"):
        await run.signal("go", SECRET)
    assert await run.result(timeout=20) == SECRET

    awake = seen.spans(RUN, run_id=run.run_id)
    common = {
        "continuum.instance": app.name,
        "continuum.run.id": run.run_id,
        "continuum.workflow.name": "otel.story",
        "continuum.workflow.version": 1,
        "continuum.namespace": "shop",
        "continuum.generation": 1,
    }
    for span in awake:
        assert common.items() <= (span.attributes or {}).items()
        assert (links(span), parent_of(span)) == ([started_in], None)
    assert [(span.attributes or {})["continuum.run.state"] for span in awake] == [
        *["suspended"] * (len(awake) - 1),
        "completed",
    ]
    assert sum(took(span) for span in awake) < 5
    told = [name for span in awake for name in events(span)]
    assert {"run.started", "timer.scheduled", "timer.fired", "signal.received", "child.started"} <= set(told)
    assert told.count("activity.idempotency_hit") == 1
    (sender,) = seen.spans("sender")
    assert said(sender, "signal.delivered")["continuum.run.id"] == run.run_id

    first, second = seen.spans(ATTEMPT, run_id=run.run_id, activity="otel.flaky")
    assert common.items() <= (first.attributes or {}).items()
    assert [(one.attributes or {})["continuum.attempt"] for one in (first, second)] == [1, 2]
    assert [links(one) for one in (first, second)] == [[started_in]] * 2
    assert [one.status.status_code for one in (first, second)] == [StatusCode.ERROR, StatusCode.UNSET]
    assert said(first, "exception") == {
        "exception.type": "builtins.ConnectionError",
        "exception.message": "the first try fails",
    }
    assert said(first, "activity.retried")["continuum.error"] == "builtins.ConnectionError"
    assert [parent_of(span) for span in seen.spans("in async")] == [id_of(first), id_of(second)]
    assert len(seen.spans(ATTEMPT, activity="otel.keyed")) == 1

    (thread,) = seen.spans(ATTEMPT, activity="otel.threaded")
    assert links(thread) == [started_in], "children inherit the trace"
    assert [parent_of(span) for span in seen.spans("in a thread")] == [id_of(thread)]
    assert SECRET not in seen.everything()
    told_twice = {"run_id", "run.id", "workflow", "namespace", "owner", "token", "trace_context"}
    in_events = {key for span in awake for event in span.events for key in event.attributes or {}}
    assert not in_events & {f"continuum.{key}" for key in told_twice}


async def test_what_is_replayed_is_not_traced_again(seen: Seen, app: Instance) -> None:
    run = await app.start(waits, SECRET)
    await eventually(lambda: seen.spans(ATTEMPT, run_id=run.run_id))
    await _leaves_memory(app, run.run_id)
    await run.signal("go", "on")
    assert await run.result(timeout=20) == "on"
    assert len(seen.spans(ATTEMPT, run_id=run.run_id)) == 1
    *_, last = seen.spans(RUN, run_id=run.run_id)
    assert "run.replayed" in events(last)
    tokens: list[Any] = [(one.attributes or {})["continuum.lease.token"] for one in seen.spans(RUN, run_id=run.run_id)]
    assert tokens[0] == 1
    assert tokens[-1] > 1, "another lease"
    assert tokens == sorted(tokens)


@activity(name="otel.book", transactional=True, retry=Retry(max_attempts=1))
async def book(session: AsyncSession, wrong: bool) -> int:
    await session.execute(text("SELECT nonsense" if wrong else "SELECT 1"))
    return 1


@workflow(name="otel.books")
async def books(wrong: bool) -> int:
    return await book(wrong)


async def test_a_transactional_attempts_span_ends_as_its_transaction_does(
    seen: Seen, app: Instance, place: Place
) -> None:
    outcomes = []
    for wrong in (False, True):
        run = await app.start(books, wrong)
        with contextlib.suppress(RunFailed):
            await run.result(timeout=20)
        await eventually(partial(seen.spans, ATTEMPT, run_id=run.run_id))
        outcomes += [(one.attributes or {})["continuum.outcome"] for one in seen.spans(ATTEMPT, run_id=run.run_id)]
    assert outcomes == ["completed" if place.engine is not None else "failed", "failed"], "memory has no transactions"


async def test_failures_are_told_by_type_and_message_alone(seen: Seen) -> None:
    async with continuum.application() as app:
        failed, blocked = await app.start(fails, SECRET), await app.start(breaks, SECRET)
        with pytest.raises(RunFailed):
            await failed.result(timeout=20)
        with pytest.raises(RunBlocked):
            await blocked.result(timeout=20)
        (one,) = seen.spans(RUN, run_id=failed.run_id)
        assert one.status.status_code is StatusCode.ERROR
        assert one.status.description == "builtins.LookupError: not here"
        assert (one.attributes or {})["error.type"] == "builtins.LookupError"
        *_, other = seen.spans(RUN, run_id=blocked.run_id)
        assert (other.attributes or {})["continuum.run.state"] == "blocked"
        assert "NotImplementedError" in str(other.status.description)
    assert SECRET not in seen.everything()
    assert "Traceback" not in seen.everything()


async def test_what_an_activity_starts_belongs_to_its_attempt(seen: Seen) -> None:
    @activity(name="otel.starts")
    async def starts() -> str:
        return (await continuum.start(fails, "x")).run_id

    @workflow(name="otel.starting")
    async def starting() -> str:
        return await starts()

    async with continuum.application() as app:
        run_id = await (await app.start(starting)).result(timeout=20)
        await eventually(lambda: seen.spans(RUN, run_id=run_id))
    (attempt,) = seen.spans(ATTEMPT, activity="otel.starts")
    assert links(seen.spans(RUN, run_id=run_id)[0]) == [id_of(attempt)]


async def test_a_rest_client_sends_the_span_that_it_is_called_in(seen: Seen) -> None:
    host = FastAPI()
    host.include_router(continuum.http.router(metrics=False))
    async with (
        continuum.application(),
        httpx.AsyncClient(transport=httpx.ASGITransport(host)) as http,
        continuum.rest.Client("http://host/continuum", http=http) as client,
    ):
        with seen.tracer.start_as_current_span("caller") as caller:
            run = await client.start(below, "x")
        await run.result(timeout=20)
        await eventually(lambda: seen.spans(RUN, run_id=run.run_id))
    assert links(seen.spans(RUN, run_id=run.run_id)[0]) == [caller.get_span_context().span_id]


async def test_two_instances_of_one_process_are_told_apart(seen: Seen) -> None:
    one, two = (Place("memory", None).children(name) for name in ("one", "two"))
    async with one, two:
        runs = {name: await continuum.start(below, "x", instance=name) for name in ("one", "two")}
        for run in runs.values():
            await run.result(timeout=20)
        for name, run in runs.items():
            spans = seen.spans(instance=name)
            assert {span.name for span in spans} == {RUN, ATTEMPT}
            assert {(span.attributes or {})["continuum.run.id"] for span in spans} == {run.run_id}
        values = seen.values()
        for metric in ("continuum.runs.started", "continuum.run.duration", "continuum.ready"):
            assert {dict(labels)["continuum.instance"] for labels in values[metric]} == {"one", "two"}
    one.forget()
    two.forget()


async def test_each_sender_hears_in_its_own_span_that_the_owner_was_called(seen: Seen) -> None:
    stage, wire = Stage(VirtualClock()), Wire()
    owner, other = await node_on(stage, wire), await node_on(stage, wire, run_supervisor=False)
    try:
        for name in ("first", "second"):
            run = await owner.instance.start(waits, SECRET)
            with seen.tracer.start_as_current_span(name):
                await other.instance.signal(run.run_id, "go", "on")
                await settled()
    finally:
        await stage.clear()
    for name, (_, _, headers) in zip(("first", "second"), wire.calls, strict=True):
        (sender,) = seen.spans(name)
        assert sorted(events(sender)) == ["run.forwarded", "signal.delivered"]
        assert headers["traceparent"].split("-")[2] == f"{id_of(sender):016x}", "peers forward the context"


async def test_setup_is_done_once_and_can_be_undone(seen: Seen) -> None:
    before = tracing.tracer
    assert before is not None
    continuum.otel.setup()
    other = tracing.tracer
    assert other is not before, "another provider replaces the first"
    continuum.otel.setup()
    assert tracing.tracer is other
    continuum.otel.shutdown()
    continuum.otel.shutdown()
    assert tracing.tracer is None
    assert not emitting._attached
    async with continuum.application() as app:
        assert await (await app.start(below, "x")).result(timeout=20) == "x"
    assert seen.spans(RUN) == []
    assert seen.values() == {}


async def test_a_trace_context_that_is_none_leaves_a_run_its_spans(seen: Seen) -> None:
    """Whoever inserts runs by SQL may write anything there."""
    place = Place("memory", None)
    async with place.node(run_supervisor=False) as client:
        run = await client.start(waits, SECRET)
    place.store.put_run(replace(place.store.runs[run.run_id], trace_context="none that W3C knows"))
    async with place.node() as node:
        await node.signal(run.run_id, "go", "on")
        assert await node.await_run(run.run_id, waits, timeout=20) == "on"
    for name in (RUN, ATTEMPT):
        assert seen.spans(name, run_id=run.run_id)
        assert [links(span) for span in seen.spans(name, run_id=run.run_id) if links(span)] == []


async def test_an_sdk_that_raises_changes_nothing(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = _spans_of()

    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("the exporter is full")

    monkeypatch.setattr(spans, "_tracer", type("Broken", (), {"start_span": broken})())
    async with continuum.application() as app:
        assert await (await app.start(below, "x")).result(timeout=20) == "x"


async def test_an_sdk_that_raises_for_a_while_is_told_again_afterwards(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("the exporter is full")

    async with continuum.application() as app:
        with monkeypatch.context() as bad:
            bad.setattr(SdkSpan, "add_event", broken)
            bad.setattr(SynchronousMeasurementConsumer, "consume_measurement", broken)
            for flow in (below, fails):
                with contextlib.suppress(RunFailed):
                    await (await app.start(flow, "x")).result(timeout=20)
            assert not _spans_of()._runs, "all that was begun is ended"
        run = await app.start(below, "x")
        assert await run.result(timeout=20) == "x"
        await eventually(lambda: seen.spans(RUN, run_id=run.run_id))
    assert any("run.started" in events(span) for span in seen.spans(RUN, run_id=run.run_id))
    assert sum(seen.values()["continuum.runs.finished"].values()) == 1


def _spans_of() -> Any:
    assert tracing.tracer is not None
    return tracing.tracer


async def _leaves_memory(app: Instance, run_id: str) -> None:
    wiring = app.wiring
    assert wiring is not None

    def is_gone() -> bool:
        execution = wiring.registry.get(run_id)
        return execution is None or (execution.is_idle and execution.evict())

    await eventually(is_gone)
    await eventually(lambda: run_id not in wiring.registry)
