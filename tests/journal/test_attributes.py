"""Attributes are merged in one statement, whoever holds the run and whatever its state."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.attributes import ATTRIBUTES_MAX
from continuum.model.states import RunState
from continuum.model.writes import LANDED, REFUSED, SetAttributes, Unknown, Verdict
from tests.journal.backends import Harness
from tests.journal.builders import OTHER, a_commit, a_run, a_start, an_ending, timer_started
from tests.journal.steps import land, run_in, started_run


async def set_attributes(journal: Journal, run_id: str, **changes: Any) -> Verdict:
    (verdict,) = await journal.write(0, [SetAttributes(run_id, changes)])
    return verdict


async def attributes(journal: Journal, run_id: str) -> Any:
    row = await journal.run(run_id)
    assert row is not None
    return row.attributes


async def test_changes_are_merged_and_none_removes(journal: Journal) -> None:
    lease = await started_run(journal, a_start(a_run(attributes={"customer": "c1", "amount": 4})))
    assert await set_attributes(journal, lease.run_id, amount="4", vip=True, tags=["a", 1]) == LANDED
    assert await attributes(journal, lease.run_id) == {"customer": "c1", "amount": "4", "vip": True, "tags": ["a", 1]}
    assert await set_attributes(journal, lease.run_id, customer=None, never=None, tags=[]) == LANDED
    assert await attributes(journal, lease.run_id) == {"amount": "4", "vip": True, "tags": []}
    assert await set_attributes(journal, lease.run_id, amount=None, vip=None, tags=None) == LANDED
    assert await attributes(journal, lease.run_id) is None
    assert await set_attributes(journal, lease.run_id, ü="Größe \U0001f600 'quoted' {}") == LANDED
    assert await attributes(journal, lease.run_id) == {"ü": "Größe \U0001f600 'quoted' {}"}


async def test_values_come_back_as_they_were(journal: Journal) -> None:
    lease = await started_run(journal)
    values: dict[str, Any] = {
        "big": (1 << 63) - 1,
        "small": -(1 << 63),
        "part": 0.1,
        "whole": 4.0,
        "long": 2.0**53 - 1,
        "tiny": 1e-300,
    }
    values |= {"zero": 0, "no": False, "empty": ""}
    await set_attributes(journal, lease.run_id, **values)
    found = await attributes(journal, lease.run_id)
    assert found == values
    assert [type(found[name]) for name in values] == [type(value) for value in values.values()]


# P46
async def test_two_concurrent_merges_of_different_names_both_survive(harness: Harness, journal: Journal) -> None:
    other = await harness.another()
    lease = await started_run(journal)
    for n in range(10):
        await asyncio.gather(
            set_attributes(journal, lease.run_id, **{f"here{n}": n}),
            set_attributes(other, lease.run_id, **{f"there{n}": n}),
        )
    found = await attributes(journal, lease.run_id)
    assert sorted(found) == sorted(f"{where}{n}" for where in ("here", "there") for n in range(10))
    await other.close()


async def test_merges_of_one_batch_take_effect_in_their_order(journal: Journal) -> None:
    first, second = await started_run(journal), await started_run(journal)
    nobody = a_run().run_id
    verdicts = await journal.write(
        0,
        [
            SetAttributes(second.run_id, {"a": 1, "b": 1}),
            SetAttributes(nobody, {"a": 1}),
            SetAttributes(first.run_id, {"a": 5}),
            SetAttributes(second.run_id, {"a": 2}),
            SetAttributes(second.run_id, {"b": None, "c": 3}),
        ],
    )
    assert list(verdicts) == [LANDED, Unknown(), LANDED, LANDED, LANDED]
    assert await attributes(journal, second.run_id) == {"a": 2, "c": 3}
    assert await attributes(journal, first.run_id) == {"a": 5}


async def test_a_merge_beside_a_commit_of_the_same_run_loses_neither(journal: Journal) -> None:
    lease = await started_run(journal)
    verdicts = await journal.write(0, [SetAttributes(lease.run_id, {"a": 1}), a_commit(lease, timer_started())])
    assert list(verdicts) == [LANDED, LANDED]
    row = await journal.run(lease.run_id)
    assert row is not None
    assert (row.attributes, row.last_seq, row.lease_token) == ({"a": 1}, lease.base_seq + 1, lease.token)


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.SUSPENDED, RunState.BLOCKED])
async def test_whoever_holds_a_run_its_attributes_change(journal: Journal, state: RunState) -> None:
    run_id = await run_in(journal, state)
    before = await journal.run(run_id)
    assert await set_attributes(journal, run_id, a=1) == LANDED
    after = await journal.run(run_id)
    assert before is not None
    assert after is not None
    assert (after.state, after.lease_token, after.wake_at) == (before.state, before.lease_token, before.wake_at)
    assert after.attributes == {"a": 1}


async def test_a_commit_changes_attributes_if_it_takes_effect(journal: Journal) -> None:
    lease = await started_run(journal, a_start(a_run(attributes={"customer": "c1", "step": 1})))
    changes = {"step": 2, "customer": None, "tags": ["a"]}
    stale = replace(a_commit(replace(lease, token=7), timer_started()), attributes=changes)
    assert list(await journal.write(0, [stale])) == [REFUSED]
    assert await attributes(journal, lease.run_id) == {"customer": "c1", "step": 1}
    await land(journal, replace(a_commit(lease, timer_started()), attributes=changes))
    assert await attributes(journal, lease.run_id) == {"step": 2, "tags": ["a"]}
    row = await journal.run(lease.run_id)
    assert row is not None
    assert (row.last_seq, row.lease_owner, row.state) == (lease.base_seq + 1, lease.owner, RunState.RUNNING)


async def test_the_last_commit_of_a_run_may_change_its_attributes(journal: Journal) -> None:
    lease, other = await started_run(journal), await started_run(journal)
    ends = replace(an_ending(lease), attributes={"step": "done"})
    assert list(await journal.write(0, [ends, a_commit(other, timer_started())])) == [LANDED, LANDED]
    assert await attributes(journal, lease.run_id) == {"step": "done"}
    assert await attributes(journal, other.run_id) is None


async def test_an_ended_run_is_still_to_be_found(journal: Journal) -> None:
    lease = await started_run(journal, a_start(owner=OTHER))
    await land(journal, an_ending(lease))
    assert await set_attributes(journal, lease.run_id, reviewed=True) == LANDED
    assert await attributes(journal, lease.run_id) == {"reviewed": True}


async def test_attributes_do_not_grow_beyond_their_limit(journal: Journal) -> None:
    lease = await started_run(journal)
    half = "x" * (ATTRIBUTES_MAX // 2)
    assert await set_attributes(journal, lease.run_id, a=half) == LANDED
    assert await set_attributes(journal, lease.run_id, b=half) == REFUSED
    assert await attributes(journal, lease.run_id) == {"a": half}
    assert await set_attributes(journal, lease.run_id, a=None, b=half) == LANDED
    assert await attributes(journal, lease.run_id) == {"b": half}
    assert await set_attributes(journal, a_run().run_id, a=1) == Unknown()
