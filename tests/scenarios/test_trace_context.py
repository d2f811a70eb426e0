"""The trace that a start belongs to is kept with the run, whether anybody traces here or not."""

from collections.abc import Mapping

import pytest

import continuum
from continuum import InputInvalid, activity, workflow
from continuum.composition.instance import Instance
from tests.support.hosting import wiring_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def kept(app: Instance, run_id: str) -> str | None:
    row = await wiring_of(app).journal.run(run_id)
    assert row is not None
    return row.trace_context


@activity
async def nothing() -> None: ...


@workflow
async def below() -> None:
    await nothing()


@workflow
async def above(n: int) -> tuple[str, str | None]:
    child = await continuum.start_child(below)
    await child
    return child.run_id, continuum.info().trace_context


async def test_a_run_keeps_the_trace_context_of_its_start_and_its_children_inherit_it(app: Instance) -> None:
    run = await app.start(above, 1, trace_context=PARENT)
    child, told = await run.result(timeout=20)
    assert (await kept(app, run.run_id), await kept(app, child), told) == (PARENT, PARENT, PARENT)

    headers = {"traceparent": PARENT, "tracestate": "a=1,b= 2", "baggage": "x=y"}
    runs = await app.start_many(above, [1, 2], trace_context=headers)
    assert [await kept(app, one.run_id) for one in runs] == [f"{PARENT} a=1,b= 2"] * 2

    without = await app.start(above, 1)
    assert await kept(app, without.run_id) is None
    for one in (*runs, without):
        await one.result(timeout=20)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        f"{PARENT}-more",
        f"ff{PARENT[2:]}",
        {"traceparent": "nonsense"},
    ],
)
async def test_what_is_no_trace_context_is_refused(given: str | Mapping[str, str]) -> None:
    async with continuum.application():
        with pytest.raises(InputInvalid) as refused:
            await continuum.start(above, 1, trace_context=given)
    assert [problem.pointer for problem in refused.value.problems] == ["/trace_context"]


async def test_headers_that_name_no_trace_are_as_good_as_none() -> None:
    async with continuum.application():
        run = await continuum.start(above, 1, trace_context={})
        assert (await run.result(timeout=20))[1] is None


async def test_a_trace_state_that_nobody_could_carry_is_dropped_whole() -> None:
    async with continuum.application():
        for state in ("x" * 513, "a=\n", ""):
            run = await continuum.start(above, 1, trace_context={"traceparent": PARENT, "tracestate": state})
            assert (await run.result(timeout=20))[1] == PARENT
