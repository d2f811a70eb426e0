"""Asking about runs: rows, pages, histories, filters."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

import continuum
from continuum import InputInvalid, RunNotFound, workflow
from continuum.composition.instance import Instance
from tests.support.hosting import Place

NOBODY = "00000000-0000-4000-8000-000000000000"


@workflow
async def double(n: int) -> int:
    return 2 * n


@workflow
async def waits(n: int) -> int:
    return n + await continuum.wait_signal("go", int)


async def pages(app: Instance, limit: int, **where: Any) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = await app.list_runs(limit=limit, cursor=cursor, **where)
        found.append([run.run_id for run in page.items])
        cursor = page.next_cursor
        if cursor is None:
            return found


# P82
@pytest.mark.parametrize("limit", [1, 3, 7, 20, 100])
async def test_pages_lose_and_repeat_nothing_though_all_sort_keys_are_equal(app: Instance, limit: int) -> None:
    runs = await app.start_many(double, range(20))  # one commit: one created_at
    listed = await pages(app, limit)
    flat = [run_id for page in listed for run_id in page]
    assert sorted(flat) == sorted(run.run_id for run in runs)
    assert all(len(page) == limit for page in listed[:-1])


async def test_newer_runs_come_first_and_new_ones_do_not_disturb_a_page(app: Instance) -> None:
    old = [(await app.start(double, n)).run_id for n in range(6)]
    page = await app.list_runs(limit=3)
    assert [run.run_id for run in page.items] == old[:2:-1]
    await app.start(double, 99)
    rest = await app.list_runs(limit=10, cursor=page.next_cursor)
    assert [run.run_id for run in rest.items] == old[2::-1]
    assert rest.next_cursor is None


# P81
async def test_filters_combine_and_attributes_keep_their_types(app: Instance) -> None:
    number = await app.start(double, 1, attributes={"k": 4, "l": "x"}, namespace="a")
    text = await app.start(double, 1, attributes={"k": "4"}, namespace="b")
    parked = await app.start(waits, 1, attributes={"k": 4})
    for run in (number, text):
        await run.result(timeout=15)

    async def found(**where: Any) -> set[str]:
        return {run.run_id for run in (await app.list_runs(**where)).items}

    assert await found(attributes={"k": 4}) == {number.run_id, parked.run_id}
    assert await found(attributes={"k": "4"}) == {text.run_id}
    assert await found(attributes={"k": 4, "l": "x"}) == {number.run_id}
    assert await found(namespace="b") == {text.run_id}
    assert await found(state="completed") == {number.run_id, text.run_id}
    assert await found(state=continuum.RunState.SUSPENDED) == {parked.run_id}
    assert await found(workflow=waits) == {parked.run_id}
    assert await found(workflow=double.name, namespace="a", state="completed") == {number.run_id}
    assert await found(workflow="nobody.knows") == set()
    await parked.cancel()


# P82
async def test_pages_of_runs_that_began_at_once_neither_lose_nor_repeat_one(app: Instance) -> None:
    many = await app.start_many(double, range(7), attributes={"batch": 1})
    for run in many:
        await run.result(timeout=15)
    filters: list[dict[str, Any]] = [
        {},
        {"attributes": {"batch": 1}},
        {"state": "completed"},
        {"workflow": double, "namespace": "default"},
    ]
    for where in filters:
        found: list[str] = []
        cursor = None
        while True:
            page = await app.list_runs(limit=2, cursor=cursor, **where)
            found += [run.run_id for run in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(run.run_id for run in many), where


# P82
async def test_a_cursor_is_bound_to_the_filters_of_its_page(app: Instance) -> None:
    await app.start_many(double, range(3), attributes={"a": 1, "b": [2]})
    cursor = (await app.list_runs(attributes={"a": 1, "b": [2]}, limit=1)).next_cursor
    assert cursor is not None
    assert len((await app.list_runs(attributes={"b": [2], "a": 1}, limit=5, cursor=cursor)).items) == 2
    others: list[dict[str, Any]] = [
        {},
        {"attributes": {"a": "1", "b": [2]}},
        {"attributes": {"a": 1, "b": [2]}, "namespace": "default"},
        {"attributes": {"a": 1, "b": [2]}, "state": "completed"},
    ]
    for where in others:
        with pytest.raises(InputInvalid, match="other filters: begin without one") as refused:
            await app.list_runs(cursor=cursor, **where)
        assert refused.value.problems[0].pointer == "/cursor"


def a_cursor(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(parts)).encode()).decode()


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": True},
        {"limit": "10"},
        {"state": "sleeping"},
        {"cursor": "abc"},
        {"cursor": "é"},
        {"cursor": ""},
        {"cursor": a_cursor(1, 2)},
        {"cursor": a_cursor("2026-01-01T00:00:00+00:00", "not a uuid")},
        {"cursor": a_cursor("yesterday", NOBODY)},
        {"namespace": ""},
    ],
    ids=repr,
)
async def test_what_makes_no_sense_is_refused_with_what_would(app: Instance, asked: dict[str, Any]) -> None:
    with pytest.raises(InputInvalid) as caught:
        await app.list_runs(**asked)
    assert caught.value.problems[0].pointer == f"/{next(iter(asked))}"


async def test_unknown_runs_are_not_found(app: Instance) -> None:
    for ask in (app.get_run, app.history, app.await_run):
        with pytest.raises(RunNotFound) as caught:
            await ask(NOBODY)
        assert caught.value.run_id == NOBODY
    with pytest.raises(RunNotFound):
        await double.handle(NOBODY, instance="app").status()


async def test_a_history_says_what_happened_in_order(app: Instance) -> None:
    run = await app.start(waits, 1)
    await run.signal("go", 2)
    assert await run.result(timeout=15) == 3
    events = await app.history(run.run_id)
    assert [(event.seq, event.type, event.name, event.data) for event in events] == [
        (1, "started", waits.name, {"n": 1}),
        (2, "signal_received", "go", 2),
        (3, "completed", None, 3),
    ]
    assert all(event.at.tzinfo is not None for event in events)
    assert events[0].at <= events[1].at <= events[2].at <= datetime.now(UTC)


# P87
async def test_stamps_are_the_databases(place: Place, app: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose clock is an hour ahead changes nothing."""
    if place.kind != "postgresql":
        pytest.skip("the other databases' clock is this machine's")
    async with place.node() as ahead:
        assert ahead.wiring is not None
        clock = ahead.wiring.world.clock
        real = clock.now
        monkeypatch.setattr(type(clock), "now", lambda self: real().replace(year=2099), raising=True)
        run = await ahead.start(naps, 0.05)
        slept, started = await run.result(timeout=15)
        monkeypatch.undo()
    assert slept < 60
    assert not started.startswith("2099")


@workflow
async def naps(seconds: float) -> tuple[float, str]:
    before = continuum.now()
    await asyncio.sleep(seconds)
    return (continuum.now() - before).total_seconds(), continuum.info().started_at.isoformat()
