"""Attributes: set at the start, from outside and from inside, and what runs are found by."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

import continuum
from continuum import DurableValueError, InputInvalid, RunNotFound, activity, workflow
from continuum.composition.instance import Instance
from continuum.model.attributes import ATTRIBUTES_MAX
from tests.support.hosting import Place

NOBODY = "00000000-0000-4000-8000-000000000000"


@activity
async def nothing() -> None:
    return None


@workflow(name="attributes.waits")
async def waits() -> None:
    await nothing()
    await continuum.wait_signal("go")


async def found(app: Instance, **wanted: Any) -> set[str]:
    return {run.run_id for run in (await app.list_runs(attributes=wanted)).items}


async def test_attributes_are_set_from_outside(app: Instance) -> None:
    run = await app.start(waits, attributes={"customer": "c1", "region": None})
    await run.set_attributes({"tier": 4, "due": datetime(2026, 1, 1, tzinfo=UTC)})
    assert (await run.status()).attributes == {"customer": "c1", "tier": 4, "due": "2026-01-01T00:00:00Z"}
    await app.set_attributes(run.run_id, {"customer": None, "tier": "4"})
    assert (await run.status()).attributes == {"tier": "4", "due": "2026-01-01T00:00:00Z"}
    await continuum.set_attributes(run.run_id, {"tier": None, "due": None}, instance=app.name)
    assert (await run.status()).attributes == {}
    await run.signal("go")
    await run.result(timeout=15)
    await run.set_attributes({"reviewed": True})
    assert await found(app, reviewed=True) == {run.run_id}


# P46
async def test_many_who_set_different_names_at_once_all_succeed(place: Place) -> None:
    async with place.node() as app, place.node(client_only=True) as outside:
        run = await app.start(waits)
        nodes = (app, outside)
        await asyncio.gather(*[nodes[n % 2].set_attributes(run.run_id, {f"n{n}": n}) for n in range(40)])
        assert (await run.status()).attributes == {f"n{n}": n for n in range(40)}
        await run.signal("go")
        await run.result(timeout=15)


async def test_what_cannot_be_set_is_refused_at_the_call(app: Instance) -> None:
    run = await app.start(waits)
    with pytest.raises(DurableValueError) as nested:
        await run.set_attributes({"a": {"b": 1}})  # type: ignore[dict-item]
    assert nested.value.path == "/attributes/a"
    with pytest.raises(DurableValueError) as started:
        await app.start(waits, attributes={"tags": ["a", {"b": 1}]})
    assert started.value.path == "/attributes/tags/1"
    await run.set_attributes({"a": "x" * (ATTRIBUTES_MAX // 2)})
    with pytest.raises(DurableValueError, match=f"more than {ATTRIBUTES_MAX} bytes") as full:
        await run.set_attributes({"b": "x" * (ATTRIBUTES_MAX // 2)})
    assert full.value.run_id == run.run_id
    with pytest.raises(RunNotFound) as unknown:
        await app.set_attributes(NOBODY, {"a": 1})
    assert unknown.value.run_id == NOBODY
    with pytest.raises(InputInvalid, match="UUID"):
        await app.set_attributes("no id", {"a": 1})
    await run.cancel()


# P81
async def test_filters_know_types(app: Instance) -> None:
    values: dict[str, Any] = {
        "int": 4,
        "text": "4",
        "part": 4.5,
        "true": True,
        "one": 1,
        "list": ["a", 4],
        "empty": "",
        "date": datetime(2026, 1, 1, tzinfo=UTC),
    }
    runs = {name: (await app.start(waits, attributes={"v": value})).run_id for name, value in values.items()}
    await app.start(waits)
    for name, value in values.items():
        assert await found(app, v=value) == {runs[name]}, name
    assert await found(app, v=4.0) == {runs["int"]}
    assert await found(app, v=1.0) == {runs["one"]}
    assert await found(app, v=["a"]) == await found(app, v=[4, "a", 4]) == {runs["list"]}
    for other in ("a", False, 0, ["4"], ["a", "b"], "true", "null", "2026"):
        assert await found(app, v=other) == set(), other
    assert await found(app, v=[]) == {runs["list"]}
    assert await found(app, v=4, w=1) == set()
    with pytest.raises(InputInvalid, match="a filter finds what is set"):
        await found(app, v=None)
    with pytest.raises(DurableValueError):
        await found(app, v={"a": 1})
