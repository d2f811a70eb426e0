"""Attributes: set at the start, from outside and from inside, and what runs are found by."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pytest

import continuum
from continuum import (
    DurableValueError,
    InputInvalid,
    NotAllowedHere,
    NotInWorkflow,
    RunNotFound,
    activity,
    workflow,
)
from continuum.composition.instance import Instance
from continuum.model.attributes import ATTRIBUTES_MAX
from tests.support.eventually import eventually
from tests.support.hosting import Place, evict, instance_of

NOBODY = "00000000-0000-4000-8000-000000000000"


@activity
async def nothing() -> None:
    return None


@workflow(name="attributes.waits")
async def waits() -> None:
    await nothing()
    await continuum.wait_signal("go")


@workflow(name="attributes.labelled")
async def labelled() -> None:
    continuum.set_attributes(step="first", kept=1)
    await nothing()
    continuum.set_attributes(step="waiting", kept=None, seen=[1, "a"])
    await continuum.wait_signal("go")
    child = await continuum.start_child(waits, id="child")
    continuum.set_attributes(step="done", child=child.run_id)


@workflow(name="attributes.mother")
async def mother() -> dict[str, Any]:
    continuum.set_attributes(family="f1")
    child = await continuum.start_child(labelled, id="labelled")
    await child.signal("go")
    await child
    return {"child": child.run_id}


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


async def test_a_workflow_sets_its_own(place: Place) -> None:
    node = place.another()
    async with node:
        app = instance_of(node)
        run = await app.start(labelled, attributes={"customer": "c1"})

        async def is_waiting() -> bool:
            return (await run.status()).attributes.get("step") == "waiting"

        await eventually(is_waiting)
        assert (await run.status()).attributes == {"customer": "c1", "step": "waiting", "seen": [1, "a"]}
        assert await found(app, step="waiting", customer="c1") == {run.run_id}
        await run.set_attributes({"step": "seen by somebody", "customer": None})
        await evict(app, run.run_id, waits_for="go")
        await run.signal("go")  # which replays it: what it had set is not set again
        await run.result(timeout=15)
        assert (await run.status()).attributes == {
            "step": "done",
            "seen": [1, "a"],
            "child": str(uuid5(UUID(run.run_id), "child")),
        }
        assert not any("attribute" in event.type for event in await app.history(run.run_id))


async def test_a_run_that_never_waits_has_its_attributes_from_its_insert(app: Instance) -> None:
    @workflow(name="attributes.quick")
    async def quick() -> None:
        continuum.set_attributes(a=1, customer=None)

    run = await app.start(quick, attributes={"customer": "c1", "b": 2})
    await run.result(timeout=15)
    assert (await run.status()).attributes == {"a": 1, "b": 2}


async def test_children_inherit_what_the_same_turn_has_set(app: Instance) -> None:
    run = await app.start(mother, attributes={"customer": "c1"}, namespace="eu")
    child_id = (await run.result(timeout=15))["child"]
    child = await app.get_run(child_id)
    assert (child.namespace, child.attributes["customer"], child.attributes["family"]) == ("eu", "c1", "f1")
    assert {one.run_id for one in (await app.list_runs(namespace="eu")).items} >= {run.run_id, child_id}
    assert (await app.list_runs(namespace="default")).items == ()


async def test_a_run_must_be_named_outside_of_a_workflow_and_may_not_be_inside(app: Instance) -> None:
    @workflow(name="attributes.outward")
    async def outward(run_id: str) -> str:
        try:
            await continuum.set_attributes(run_id, {"a": 1}, instance="app")
        except NotAllowedHere as error:
            return str(error)
        return ""

    with pytest.raises(NotInWorkflow):
        continuum.set_attributes(a=1)
    with pytest.raises(InputInvalid, match="no 'tier'"):
        continuum.set_attributes(NOBODY, {}, tier=4)  # type: ignore[call-overload]
    run = await app.start(outward, NOBODY)
    assert "set_attributes(name=value) for the run's own" in await run.result(timeout=15)


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
