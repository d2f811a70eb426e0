"""What `continuum.info()` says is the same for as long as the run lives, whoever has loaded it."""

import continuum
from continuum import workflow
from tests.support.hosting import Place, evict


@workflow
async def notes_its_start() -> list[str]:
    noted = await continuum.side_effect(continuum.info().started_at.isoformat)
    await continuum.wait_signal("go")
    return [noted, continuum.info().started_at.isoformat()]


async def test_a_run_that_was_loaded_again_finds_the_same_facts(place: Place) -> None:
    async with place.node() as app:
        run = await app.start(notes_its_start)
        await evict(app, run.run_id, waits_for="go")
        await run.signal("go")
        noted, loaded = await run.result(timeout=15)
        assert noted == loaded
        assert (await run.status()).started_at.isoformat() == noted
