"""What `@workflow(signals={...})` declares is held at the door, by the contract of the run's own version."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

import continuum
from continuum import NotAllowedHere, Problem, RunBlocked, SignalInvalid, SignalUnknown, workflow
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from tests.support.hosting import Place, evict, instance_of


class Verdict(BaseModel):
    ok: bool
    notes: list[str] = Field(default=[], max_length=2)


@pytest.fixture(autouse=True)
def catalog() -> Iterator[None]:
    """Forget what a test defines."""
    with scoped_catalog():
        yield


def reviewed(version: int, **contract: Any) -> Any:
    """Define a version of a workflow that waits for one signal and returns it as it came."""

    async def flow() -> object:
        return await continuum.wait_signal("review")

    flow.__qualname__ = f"flow_{version}"
    return workflow(name="reviewed", version=version, signals=contract or None)(flow)


async def test_a_signal_that_the_contract_does_not_name_is_refused(app: Instance) -> None:
    run = await app.start(reviewed(1, review=Verdict, hint=str))
    with pytest.raises(SignalUnknown) as refused:
        await run.signal("reveiw", Verdict(ok=True))
    assert str(refused.value).endswith("takes no signal 'reveiw'; it declares: hint, review")
    assert refused.value.problems == (Problem("/name", "must be one of: hint, review"),)
    assert refused.value.run_id == run.run_id
    assert isinstance(refused.value, SignalInvalid)
    assert await run.signal("review", {"ok": True}) == "delivered"
    assert await run.result(timeout=15) == {"ok": True, "notes": []}
    assert [event.name for event in await app.history(run.run_id) if event.type == "signal_received"] == ["review"]


async def test_a_misfit_is_refused_where_it_is_sent_with_its_place(app: Instance) -> None:
    run = await app.start(reviewed(1, review=Verdict))
    for payload, path in (({"ok": "perhaps"}, "/ok"), ({"ok": True, "notes": ["a", 7]}, "/notes/1"), (None, "")):
        with pytest.raises(SignalInvalid) as refused:
            await run.signal("review", payload)
        assert (refused.value.path, refused.value.run_id) == (path, run.run_id)
    await run.cancel()


async def test_a_keyed_delivery_that_was_refused_is_not_remembered(app: Instance) -> None:
    run = await app.start(reviewed(1, review=Verdict))
    with pytest.raises(SignalInvalid):
        await run.signal("review", {}, delivery_id="d")
    assert await run.signal("review", Verdict(ok=True), delivery_id="d") == "delivered"
    assert await run.signal("review", Verdict(ok=True), delivery_id="d") == "duplicate"


async def test_the_contract_that_counts_is_that_of_the_runs_own_version(place: Place) -> None:
    node = place.another()
    async with node:
        app = instance_of(node)
        old = await app.start(reviewed(1, review=int))
        new = await app.start(reviewed(2, review=Verdict))
        open_ = await app.start(reviewed(3))
        for evicted in (False, True):  # asked of memory, then of the database
            if evicted:
                for run in (old, new, open_):
                    await evict(app, run.run_id, waits_for="review")
            with pytest.raises(SignalInvalid):
                await old.signal("review", Verdict(ok=True))
            with pytest.raises(SignalInvalid):
                await new.signal("review", 1)
        await open_.signal("anything", object.__doc__)
        assert await old.signal("review", 1) == "delivered"
        assert await new.signal("review", Verdict(ok=True)) == "delivered"
        assert await open_.signal("review", [1, "two"]) == "delivered"
        assert await old.result(timeout=15) == 1
        assert await open_.result(timeout=15) == [1, "two"]


async def test_a_run_whose_code_is_not_here_takes_any_signal_and_its_wait_checks(place: Place) -> None:
    @workflow(name="typed", signals={"n": int})
    async def typed() -> list[Any]:
        try:
            first: Any = await continuum.wait_signal("n", int)
        except SignalInvalid as error:
            first = error.path
        return [first, await continuum.wait_signal("n", int)]

    node = place.another()
    async with node:
        app = instance_of(node)
        run = await app.start(typed)
        await evict(app, run.run_id, waits_for="n")
        with scoped_catalog() as elsewhere:
            elsewhere._workflows.clear()
            reviewed(1, review=int)  # so that there are contracts at all
            async with place.node(client_only=True) as outside:
                assert await outside.signal(run.run_id, "n", "one") == "delivered"
                assert await outside.signal(run.run_id, "other", 1) == "delivered"
        await run.signal("n", 2)
        assert await run.result(timeout=15) == ["", 2]


async def test_a_wait_outside_of_the_contract_blocks_the_run_until_it_is_mended(app: Instance) -> None:
    def code(waits_for: str) -> Any:
        async def flow() -> bool:
            return (await continuum.wait_signal(waits_for, Verdict)).ok

        return workflow(name="mistyped", signals={"review": Verdict})(flow)

    run = await app.start(code("reveiw"))
    with pytest.raises(RunBlocked, match="waits for a signal 'reveiw' that no sender could deliver") as blocked:
        await run.result(timeout=15)
    assert NotAllowedHere.__name__ in blocked.value.reason
    code("review")
    assert await run.signal("review", Verdict(ok=True)) == "delivered"
    assert await run.result(timeout=30, wait_blocked=True) is True
