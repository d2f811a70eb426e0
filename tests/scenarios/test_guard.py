"""An instance that guards its turns: who reaches for the world in one is blocked or told, and goes on with better code."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import continuum
from continuum import RunBlocked, Workflow, activity, workflow
from continuum.definitions.catalog import scoped_catalog
from continuum.runtime import ledger
from tests.support.hosting import Place


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ledger, "BLOCKED_BACKOFF_SECONDS", 0.2)
    with scoped_catalog():
        yield


@activity
async def read(path: str) -> str:
    return Path(path).read_text()


def unsuspicious(path: str) -> str:  # what a library does that the purity check does not read
    return Path(path).read_text()


LINE = unsuspicious.__code__.co_firstlineno + 1


def rates(*, careless: bool) -> Workflow[[str], str]:
    """One workflow, as it is written and mended."""

    @workflow(name="test.rates", purity="off")
    async def flow(path: str) -> str:
        rate = unsuspicious(path) if careless else await read(path)
        return rate + await continuum.wait_signal("go", str)

    return flow


async def test_a_guarded_run_that_reads_a_file_is_blocked_until_an_activity_reads_it(
    place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "rate.txt"
    path.write_text("7")

    async with place.node(guard="raise") as app:
        run = await app.start(rates(careless=True), str(path))
        with pytest.raises(RunBlocked) as caught:
            await run.result(timeout=15)
        assert "a workflow's turn reached for the real world, open" in caught.value.reason
        assert f"test_guard.py:{LINE} in unsuspicious)" in caught.value.reason

        rates(careless=False)
        await run.signal("go", "!")
        assert await run.result(timeout=15, wait_blocked=True) == "7!"


async def test_an_instance_that_only_warns_goes_on(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rate.txt"
    path.write_text("7")

    @workflow(purity="off")
    async def careless(path: str) -> str:
        return unsuspicious(path)

    with caplog.at_level(logging.WARNING, "continuum.guard"):
        async with place.node(guard="warn") as app:
            for _ in range(2):
                assert await (await app.start(careless, str(path))).result(timeout=15) == "7"
    told = [record.getMessage() for record in caplog.records if record.name == "continuum.guard"]
    assert len(told) == 1
    assert told[0].endswith(f"test_guard.py:{LINE})")


async def test_an_activity_of_a_guarded_instance_may_do_what_it_likes(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "rate.txt"
    path.write_text("7")

    @workflow
    async def proper(path: str) -> str:
        return await read(path)

    async with place.node(guard="raise") as app:
        assert await (await app.start(proper, str(path))).result(timeout=15) == "7"
