"""An activity that succeeded under an idempotency key is not performed again, in whichever run."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from continuum import ActivityFailed, DurableValueError, IdempotencyConflict, Retry, RunFailed, activity, workflow
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from continuum.telemetry import TelemetryEvent, attach, detach
from tests.scenarios.test_payloads import Toy
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, instance_of

performed: list[tuple[Any, ...]] = []
SECRET = "4000-1234-5678-9010"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget what was performed and what a test defines."""
    performed.clear()
    with scoped_catalog():
        yield


@pytest.fixture
def heard() -> Iterator[list[TelemetryEvent]]:
    """What is told of hits."""
    events: list[TelemetryEvent] = []
    attach(events.append, ["activity.idempotency_hit"])
    yield events
    detach(events.append)


@activity(name="keyed.charge", idempotency_key=lambda order, cents: order, retry=Retry(max_attempts=3, initial=0.01))
async def charge(order: str, cents: int) -> dict[str, Any]:
    performed.append(("charge", order, cents))
    return {"paid": cents, "times": len(performed)}


@activity(name="keyed.blocking", idempotency_key=lambda n: f"n-{n}")
def blocking(n: int) -> int:
    performed.append(("blocking", n))
    return n + len(performed)


@activity(name="keyed.flaky", idempotency_key=lambda n: "k", retry=Retry(max_attempts=2, initial=0.01))
async def flaky(n: int) -> str:
    performed.append(("flaky", n))
    if len(performed) < 3:
        raise OSError("not yet")
    return f"after {len(performed)}"


@activity(name="keyed.plain")
async def plain(n: int) -> int:
    performed.append(("plain", n))
    return n


@workflow(name="keyed.pays")
async def pays(order: str, cents: int) -> dict[str, Any]:
    return await charge(order, cents)


@workflow(name="keyed.counts")
async def counts(n: int) -> int:
    return await blocking(n)


@workflow(name="keyed.tries")
async def tries() -> str:
    return await flaky(1)


async def test_a_second_run_gets_the_result_of_the_first(app: Instance, heard: list[TelemetryEvent]) -> None:
    first = await app.start(pays, "o-1", 5)
    assert await first.result(timeout=15) == {"paid": 5, "times": 1}
    for _ in range(3):
        assert await (await app.start(pays, "o-1", 5)).result(timeout=15) == {"paid": 5, "times": 1}
    assert performed == [("charge", "o-1", 5)]
    assert [event.metadata["recorded_by"] for event in heard] == [first.run_id] * 3
    assert {event.metadata["activity"] for event in heard} == {"keyed.charge"}
    assert await (await app.start(pays, "o-2", 5)).result(timeout=15) == {"paid": 5, "times": 2}


async def test_the_history_of_a_hit_is_that_of_a_success(app: Instance) -> None:
    runs = [await app.start(pays, "o-1", 5)]
    await runs[0].result(timeout=15)
    runs.append(await app.start(pays, "o-1", 5))
    await runs[1].result(timeout=15)
    first, second = [[(event.type, event.name, event.data) for event in await app.history(run.run_id)] for run in runs]
    assert first == second


async def test_a_blocking_activity_is_recalled_without_a_thread(place: Place) -> None:
    async with place.node(activity_supervisor={"threads": 1, "max_concurrency": 1}) as app:
        results = [await (await app.start(counts, 7)).result(timeout=15) for _ in range(4)]
        assert results == [8] * 4
        assert performed == [("blocking", 7)]
        assert await (await app.start(counts, 8)).result(timeout=15) == 10  # the slots were given back


async def test_failures_are_not_remembered(app: Instance) -> None:
    with pytest.raises(RunFailed):
        await (await app.start(tries)).result(timeout=15)
    assert await (await app.start(tries)).result(timeout=15) == "after 3"
    assert await (await app.start(tries)).result(timeout=15) == "after 3"
    assert len(performed) == 3


async def test_other_arguments_under_a_used_key_are_a_mistake_told_at_once(app: Instance) -> None:
    first = await app.start(pays, "o-1", 5)
    await first.result(timeout=15)

    @workflow(name="keyed.mistaken")
    async def mistaken() -> list[Any]:
        try:
            await charge("o-1", 6)
        except ActivityFailed as error:
            return [error.caused_by(IdempotencyConflict), error.attempts, error.message]
        return []

    told, attempts, message = await (await app.start(mistaken)).result(timeout=15)
    assert (told, attempts) == (True, 1)
    assert f"with other arguments, for run {first.run_id}" in message
    assert performed == [("charge", "o-1", 5)]


async def test_arguments_are_compared_as_todays_types_read_them(app: Instance) -> None:
    await (await app.start(pays, "o-1", 5)).result(timeout=15)

    def new_code() -> Any:
        async def charge(order: str, cents: int, currency: str = "EUR") -> dict[str, Any]:
            performed.append(("new", order, cents, currency))
            return {}

        charge.__module__, charge.__qualname__ = __name__, "charge"
        return activity(name="keyed.charge", idempotency_key=lambda order, cents, currency="EUR": order)(charge)

    charge_now = new_code()

    @workflow(name="keyed.pays.now")
    async def pays_now(currency: str) -> dict[str, Any]:
        found: dict[str, Any] = await charge_now("o-1", 5, currency)
        return found

    assert await (await app.start(pays_now, "EUR")).result(timeout=15) == {"paid": 5, "times": 1}
    with pytest.raises(RunFailed, match="with other arguments"):
        await (await app.start(pays_now, "USD")).result(timeout=15)


async def test_a_namespace_and_an_activity_have_keys_of_their_own(app: Instance) -> None:
    @activity(name="keyed.other", idempotency_key=lambda order, cents: order)
    async def other(order: str, cents: int) -> str:
        performed.append(("other", order))
        return "other"

    @workflow(name="keyed.others")
    async def others() -> str:
        return await other("o-1", 5)

    for namespace, times in (("default", 1), ("eu", 2), ("eu", 2), ("default", 1)):
        run = await app.start(pays, "o-1", 5, namespace=namespace)
        assert await run.result(timeout=15) == {"paid": 5, "times": times}
    assert await (await app.start(others)).result(timeout=15) == "other"


async def test_without_a_key_nothing_is_remembered(place: Place, app: Instance) -> None:
    @workflow(name="keyed.unkeyed")
    async def unkeyed() -> list[Any]:
        unkeyed_charge = charge.options(idempotency_key=None)
        return [await plain(1), await plain(1), (await unkeyed_charge("o-1", 1))["paid"]]

    assert await (await app.start(unkeyed)).result(timeout=15) == [1, 1, 1]
    assert (len(performed), await place.count("activity_results")) == (3, 0)


async def test_a_key_that_no_index_takes_fails_the_run_at_the_call(app: Instance) -> None:
    @workflow(name="keyed.unfit")
    async def unfit(key: str) -> str:
        try:
            await charge.options(idempotency_key=key)("o", 1)
        except DurableValueError as error:
            return error.path
        return "taken"

    for key in ("", "x" * 201, "a\nb"):
        assert await (await app.start(unfit, key)).result(timeout=15) == "/idempotency_key"
    assert await (await app.start(unfit, "x" * 200)).result(timeout=15) == "taken"


async def test_what_another_node_performed_counts_as_well(place: Place, heard: list[TelemetryEvent]) -> None:
    """The result goes the remote way: by the inbox of a run that lives elsewhere."""
    off: dict[str, Any] = {"activity_supervisor": False, "activity_dispatcher": False}
    async with place.node(**off) as mind, place.node(run_supervisor=False, dispatcher=False):
        first = await mind.start(pays, "o-1", 5)
        assert await first.result(timeout=15) == {"paid": 5, "times": 1}
        assert await (await mind.start(pays, "o-1", 5)).result(timeout=15) == {"paid": 5, "times": 1}
    async with place.node() as other:
        assert await (await other.start(pays, "o-1", 5)).result(timeout=15) == {"paid": 5, "times": 1}
    assert performed == [("charge", "o-1", 5)]
    assert len(heard) == 2


async def test_a_success_is_recorded_with_the_answer_or_neither_is(place: Place) -> None:
    """The node dies between the two: whoever takes over performs it again, and records it then."""
    node = place.another()
    async with node:
        app = instance_of(node)
        run = await app.start(pays, "o-1", 5)
        await eventually(lambda: len(performed) == 1)
        await crash(node)
    recorded = await place.count("activity_results")
    async with place.node() as other:
        result = await other.await_run(run.run_id, pays, timeout=30)
        assert result["times"] == len(performed)
        assert len(performed) == (1 if recorded else 2)
        assert await (await other.start(pays, "o-1", 5)).result(timeout=15) == result
        assert await place.count("activity_results") == 1


async def test_results_pass_the_payload_codec(place: Place) -> None:
    sealed = Place(place.kind, place.engine, codec=Toy())
    sealed.store = place.store
    async with sealed.node() as app:
        assert await (await app.start(pays, SECRET, 5)).result(timeout=15) == {"paid": 5, "times": 1}
        assert await (await app.start(pays, SECRET, 5)).result(timeout=15) == {"paid": 5, "times": 1}
        assert await place.count("activity_results") == 1
    sealed.codec = Toy(key=8)
    async with sealed.node() as other:
        with pytest.raises(RunFailed, match="the payload codec cannot open a"):
            await (await other.start(pays, SECRET, 5)).result(timeout=15)
    assert len(performed) == 1


# P69
async def test_results_stay_for_ever_unless_they_are_given_an_age(place: Place) -> None:
    async with place.node(pruner={"interval": 0.05}) as app:
        await (await app.start(pays, "o-1", 5)).result(timeout=15)
    async with place.node(pruner={"interval": 0.05, "results": 0.2}) as app:
        assert await (await app.start(pays, "o-2", 5)).result(timeout=15) == {"paid": 5, "times": 2}

        async def are_gone() -> bool:
            return await place.count("activity_results") == 0

        await eventually(are_gone)
        assert await (await app.start(pays, "o-1", 5)).result(timeout=15) == {"paid": 5, "times": 3}


async def test_a_task_that_is_withdrawn_while_it_is_asked_for_is_not_begun(place: Place) -> None:
    """Between the commit that schedules it and the answer about its key."""
    async with place.node() as app:
        supervisor: Any = app.wiring.attempts if app.wiring is not None else None
        asked, answer = asyncio.Event(), asyncio.Event()
        results = supervisor._journal.results

        async def slowly(keys: Any) -> Any:
            asked.set()
            await answer.wait()
            return await results(keys)

        supervisor._journal.results = slowly
        run = await app.start(pays, "o-1", 5)
        await asked.wait()
        assert await run.cancel() == "cancelled"
        answer.set()
        await eventually(lambda: supervisor.running == 0)
        assert performed == []
        assert supervisor.free_slots()[0] == 100
        supervisor._journal.results = results
        assert (await (await app.start(pays, "o-1", 5)).result(timeout=15))["times"] == 1
