"""Looking ahead: which open runs would go on with the code at hand, which versions they need, which patches are done with."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import continuum
from continuum import InputInvalid, PatchUse, Preflight, RunState, Trouble, activity, workflow
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from tests.support.eventually import eventually
from tests.support.hosting import Place, evict, instance_of, wiring_of

made: list[int] = []


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    made.clear()
    with scoped_catalog():
        yield


@activity(name="preflight.add")
async def add(a: int, b: int) -> int:
    return a + b


def make() -> int:
    made.append(1)
    return 1


def flow(code: str = "as it was", *, version: int = 1) -> Any:
    """One workflow, as it is written and rewritten."""

    @workflow(name="preflight.flow", version=version)
    async def body(n: int) -> int:
        if code == "drifted":
            await add(n, 2)
        first = await add(n, 1)
        if code == "patched" and continuum.patched("no tax"):
            first = await add(first, -1)
        first = await add(first, 0)
        if code == "raising":
            raise ValueError("as this code does")
        if code == "buggy":
            raise AttributeError("a bug of this code")
        if code == "grown":
            await continuum.side_effect(make)
            await add(n, 3)
        return first + await continuum.wait_signal("go", int)

    return body


async def waiting(app: Instance, definition: Any, *inputs: Any, waits_for: str = "go") -> list[str]:
    """Start runs, and let them leave memory when they wait."""
    runs = [await app.start(definition, value) for value in inputs]
    for run in runs:
        await evict(app, run.run_id, waits_for=waits_for)
    return [run.run_id for run in runs]


async def test_code_that_fits_is_clean_and_looking_touches_nothing(place: Place) -> None:
    async with place.node(recovery=False, pruner=False, heartbeater=False) as app:
        await waiting(app, flow(), 1, 2)
        await app.start(flow(), 3, start_at=datetime(2999, 1, 1, tzinfo=UTC))
        ended = await app.start(flow(), 4)
        await ended.signal("go", 1)
        await ended.result(timeout=15)
        parts = wiring_of(app)
        await eventually(lambda: parts.is_quiet)
        before, seen = await place.everything(), list[tuple[int, int]]()
        found = await app.preflight(watch=lambda done, total: seen.append((done, total)))
        assert (found.open_runs, found.runs, found.events, found.clean, found.troubles) == (3, 3, 11, 3, ())
        assert found.is_clean
        assert (seen[0], seen[-1]) == ((0, 3), (3, 3))
        assert await place.everything() == before


async def test_what_a_history_does_not_hold_is_never_done(app: Instance) -> None:
    await waiting(app, flow(), 1)
    flow("grown")
    assert (await app.preflight()).is_clean
    assert made == []


async def test_drift_is_told_once_per_line_with_its_runs(app: Instance) -> None:
    ids = await waiting(app, flow(), *range(7))
    flow("drifted")
    found = await app.preflight()
    (trouble,) = found.troubles
    site = trouble.site
    assert site is not None
    assert __file__ in site
    assert site.endswith("in body")
    assert trouble == Trouble(
        kind="drift",
        workflow="preflight.flow",
        version=1,
        site=site,
        seq=2,
        expected="activity_scheduled preflight.add (command 1)",
        found="activity_scheduled preflight.add (command 1), with another b",
        runs=7,
        examples=trouble.examples,
    )
    assert len(trouble.examples) == 5
    assert set(trouble.examples) < set(ids)
    assert (found.clean, found.is_clean) == (0, False)
    assert [(await app.get_run(run_id)).state for run_id in ids] == [RunState.SUSPENDED] * 7  # nothing came of it


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [("buggy", "stuck", "a bug of this code"), ("raising", "fails", "as this code does")],
)
async def test_code_that_would_not_get_on_is_told_with_its_line(app: Instance, code: str, kind: str, said: str) -> None:
    await waiting(app, flow(), 1, 2)
    flow(code)
    (trouble,) = (await app.preflight()).troubles
    assert (trouble.kind, trouble.runs, trouble.expected) == (kind, 2, None)
    assert said in trouble.found
    assert trouble.site is not None
    assert trouble.site.endswith("in body")


async def test_an_input_that_todays_types_cannot_read_is_told(app: Instance) -> None:
    def reading(kind: Any) -> Any:
        async def body(n: kind) -> None:
            await continuum.wait_signal("go")

        return workflow(name="preflight.reading")(body)

    await waiting(app, reading(str), "seven")
    reading(int)
    (trouble,) = (await app.preflight()).troubles
    assert trouble.kind == "stuck"
    assert "the journaled input cannot be read by this code" in trouble.found


async def test_missing_code_is_told_and_a_workflow_can_be_looked_at_alone(place: Place) -> None:
    @workflow(name="preflight.other")
    async def other(n: int) -> int:
        return n + await continuum.wait_signal("go", int)

    async with place.node() as app:
        await waiting(app, flow(version=2), 1, 2)
        await waiting(app, other, 1)
    with scoped_catalog() as known:
        del known._workflows["preflight.flow", 2]
        async with place.node(dispatcher=False) as app:
            found = await app.preflight()
            (trouble,) = found.troubles
            assert (trouble.kind, trouble.workflow, trouble.version, trouble.runs) == (
                "missing",
                "preflight.flow",
                2,
                2,
            )
            assert (found.runs, found.clean) == (3, 1)
            assert (await app.preflight(workflow=other)).is_clean
            assert (await app.preflight(workflow="preflight.other")).runs == 1


async def test_blocked_runs_that_this_code_would_mend_are_counted(place: Place) -> None:
    async with place.node() as app:
        (run_id,) = await waiting(app, flow(), 1)
        flow("drifted")
        await app.signal(run_id, "go", 1)
        with pytest.raises(continuum.RunBlocked):
            await app.await_run(run_id, timeout=15)
    async with place.node(dispatcher=False) as app:
        assert not (await app.preflight()).is_clean
        flow()
        found = await app.preflight()
        assert (found.is_clean, found.mended) == (True, 1)


async def test_a_sample_is_taken_of_each_version_from_the_oldest_to_the_newest(app: Instance) -> None:
    ids = await waiting(app, flow(), *range(5))
    await waiting(app, flow(version=2), 1)
    looked_at: list[str] = []
    load = wiring_of(app).journal.load_runs

    async def loading(run_ids: Any) -> Any:
        looked_at.extend(run_ids)
        return await load(run_ids)

    wiring_of(app).journal.load_runs = loading  # type: ignore[method-assign]
    found = await app.preflight(sample=2)
    assert (found.open_runs, found.runs) == (6, 3)
    assert {ids[0], ids[-1]} < set(looked_at)
    assert (await app.preflight(sample=100)).runs == 6
    for nonsense in (0, -1, True, 1.5):
        with pytest.raises(InputInvalid, match="sample"):
            await app.preflight(sample=nonsense)  # type: ignore[arg-type]


async def test_histories_come_from_snapshots_where_there_are_any(place: Place) -> None:
    @workflow(name="preflight.long")
    async def long(n: int) -> int:
        for number in range(20):
            n = await add(n, number)
        return n + await continuum.wait_signal("go", int)

    async with place.node(snapshotter={"interval": 0.05, "threshold": 10}) as app:
        run = await app.start(long, 1)

        async def is_compacted() -> bool:
            return await place.count("snapshots") > 0

        await eventually(is_compacted)
        await evict(app, run.run_id, waits_for="go")
        (loaded,) = await wiring_of(app).journal.load_runs([run.run_id])
        assert loaded.snapshot_seq > 0
        found = await app.preflight()
        assert (found.is_clean, found.events) == (True, 41)


async def test_only_the_present_generation_counts(app: Instance) -> None:
    @workflow(name="preflight.looping")
    async def looping(n: int) -> int:
        await add(n, 1)
        if n < 3:
            continuum.continue_as_new(n + 1)
        return await continuum.wait_signal("go", int)

    await waiting(app, looping, 1)
    found = await app.preflight()
    assert (found.is_clean, found.runs) == (True, 1)


async def test_a_run_that_is_gone_by_the_time_it_is_read_is_left_out(app: Instance) -> None:
    ids = await waiting(app, flow(), 1, 2)
    load = wiring_of(app).journal.load_runs

    async def loading(run_ids: Any) -> Any:
        wiring_of(app).journal.load_runs = load  # type: ignore[method-assign]  # whoever cancels the run loads it too
        await app.cancel(ids[0])
        return await load(run_ids)

    wiring_of(app).journal.load_runs = loading  # type: ignore[method-assign]
    found = await app.preflight()
    assert (found.open_runs, found.runs, found.clean) == (2, 1, 1)


class Shifted:
    """A payload codec with a key."""

    def __init__(self, key: int) -> None:
        self.key = key

    def encode(self, payload: bytes, _context: Any) -> bytes:
        return bytes([self.key]) + payload[::-1]

    def decode(self, payload: bytes, _context: Any) -> bytes:
        if payload[0] != self.key:
            raise ValueError("sealed with another key")
        return payload[:0:-1]


async def test_a_history_that_the_codec_cannot_open_is_told(place: Place) -> None:
    place.codec = Shifted(1)
    async with place.node() as app:
        await waiting(app, flow(), 1)
    async with place.node(dispatcher=False) as app:
        assert (await app.preflight()).is_clean
    place.codec = Shifted(2)
    async with place.node(dispatcher=False) as app:
        (trouble,) = (await app.preflight()).troubles
        assert trouble.kind == "unreadable"
        assert "sealed with another key" in trouble.found


# --- patches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def patched(place: Place) -> tuple[Place, list[str], list[str]]:
    """Two runs from before a patch, and one that takes it."""
    async with place.node() as app:
        old = await waiting(app, flow(), 1, 2)
        new = await waiting(app, flow("patched"), 3)
    return place, old, new


async def patches(app: Instance) -> tuple[PatchUse, ...]:
    return (await app.preflight()).patches


# P50, P58
async def test_a_patch_is_needed_as_long_as_an_open_run_goes_without(
    patched: tuple[Place, list[str], list[str]],
) -> None:
    place, old, _ = patched
    async with place.node() as app:
        (use,) = await patches(app)
        assert (use.patch, use.taken, use.without, use.undecided, use.is_needed) == ("no tax", 1, 2, 0, True)
        for run_id in old:
            await app.signal(run_id, "go", 0)
            await app.await_run(run_id, timeout=15)
        (use,) = await patches(app)
        assert (use.taken, use.without, use.is_needed) == (1, 0, False)


async def test_runs_that_have_not_got_to_a_patch_do_not_need_the_old_way(place: Place) -> None:
    async with place.node() as app:
        await waiting(app, flow("patched"), 1)
        await app.start(flow("patched"), 2, start_at=datetime(2999, 1, 1, tzinfo=UTC))
        (use,) = await patches(app)
        assert (use.taken, use.without, use.undecided, use.is_needed) == (1, 0, 1, False)


async def test_a_sample_never_says_that_a_patch_is_done_with_unless_it_was_all(place: Place) -> None:
    async with place.node(dispatcher=False) as app:
        await waiting(app, flow("patched"), 1)
        (use,) = (await app.preflight(sample=1)).patches
        assert use.is_needed is False  # all of one run were looked at
        await waiting(app, flow("patched"), 2, 3)
        (use,) = (await app.preflight(sample=1)).patches
        assert (use.without, use.is_needed) == (None, None)


async def test_a_drifted_run_leaves_it_open_whether_a_patch_is_needed(place: Place) -> None:
    async with place.node(dispatcher=False) as app:
        await waiting(app, flow("patched"), 1)
        await waiting(app, flow("drifted"), 2)
        flow("patched")
        found = await app.preflight()
        assert [one.kind for one in found.troubles] == ["drift"]
        assert [(use.taken, use.without, use.is_needed) for use in found.patches] == [(1, None, None)]


async def test_versions_tell_open_runs_nodes_and_what_the_journal_knows_of_patches(
    patched: tuple[Place, list[str], list[str]],
) -> None:
    place, _, _ = patched
    other = flow(version=2)
    async with place.node(node="n1", workflows=[flow("patched")]) as app, place.node(node="n2", workflows=[other]):

        async def told() -> bool:
            return len(await app.versions()) == 2

        await eventually(told)
        first, second = await app.versions()
        assert (first.workflow, first.version, first.open_runs, first.nodes) == (
            "preflight.flow",
            1,
            {RunState.SUSPENDED: 3},
            ("n1",),
        )
        assert first.patches == (PatchUse("preflight.flow", 1, "no tax", 1, None, 2),)
        assert (first.is_stranded, first.is_removable) == (False, False)
        assert (second.version, second.runs, second.nodes, second.is_removable) == (2, 0, ("n2",), True)
    async with place.node(node="n3", workflows=[other]) as app:

        async def stranded() -> bool:
            first = (await app.versions())[0]
            return first.is_stranded and first.nodes == ()

        await eventually(stranded)


async def test_the_verbs_find_their_instance_and_are_refused_in_a_workflow(place: Place) -> None:
    @workflow(name="preflight.asking", purity="off")
    async def asking() -> None:
        await continuum.preflight(instance="app")

    children = place.children()
    async with children:
        app = instance_of(children)
        assert isinstance(await continuum.preflight(instance="app"), Preflight)
        assert isinstance(await continuum.versions(instance="app"), tuple)
        run = await app.start(asking)
        with pytest.raises(continuum.RunBlocked, match="NotAllowedHere"):
            await run.result(timeout=15)
        await run.cancel()
    children.forget()


async def test_a_look_without_an_instance_reads_and_claims_nothing(place: Place) -> None:
    async with place.node() as app:
        await waiting(app, flow(), 1)
    stopped = instance_of(place.another())
    async with stopped.looking() as journal:
        assert await journal.look() == "app"
        assert len(await journal.open_runs(workflow=None, limit=10, before=None)) == 1
        assert await journal.owners() == []
    assert not stopped.is_running
