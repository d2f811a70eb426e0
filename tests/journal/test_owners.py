"""Owner rows: the heartbeat, and who may be declared dead."""

import pytest

from continuum.errors import ContinuumError, SchemaTaken
from continuum.journal.port import Journal
from tests.journal.backends import INSTANCE, Harness
from tests.journal.builders import OTHER, OWNER, TTL, URL, an_owner, is_about
from tests.journal.steps import later

THIRD = "node-3/continuum/boot-3/1"


async def test_registered_owners_are_listed_with_where_they_are_reached(journal: Journal) -> None:
    assert sorted(await journal.owners(), key=str) == [an_owner(OWNER, advertise_url=URL), an_owner(OTHER)]


async def test_registering_returns_the_databases_time(journal: Journal) -> None:
    assert is_about(await journal.register(an_owner(THIRD), ttl_seconds=TTL), await journal.now())


async def test_an_owner_row_expires_a_ttl_from_now(harness: Harness, journal: Journal) -> None:
    await journal.register(an_owner(THIRD), ttl_seconds=100.0)
    assert is_about((await harness.owners())[THIRD], await later(journal, 100.0))


async def test_an_owner_id_is_never_registered_twice(harness: Harness, journal: Journal) -> None:
    before = await harness.owners()
    with pytest.raises(ContinuumError):
        await journal.register(an_owner(OWNER), ttl_seconds=TTL)
    assert await harness.owners() == before


async def test_renewing_extends_the_row(harness: Harness, journal: Journal) -> None:
    await harness.age(TTL - 1)
    assert is_about(await journal.renew(OWNER, ttl_seconds=TTL), await journal.now())
    await harness.age(TTL - 1)
    assert await journal.declare_dead() == [OTHER]


async def test_renewing_late_is_fine_while_the_row_exists(harness: Harness, journal: Journal) -> None:
    await harness.age(10 * TTL)
    assert await journal.renew(OWNER, ttl_seconds=TTL) is not None
    assert await journal.declare_dead() == [OTHER]


async def test_renewing_a_row_that_is_gone_says_that_everything_is_lost(harness: Harness, journal: Journal) -> None:
    await harness.age(TTL + 1)
    await journal.declare_dead()
    assert await journal.renew(OWNER, ttl_seconds=TTL) is None
    assert await harness.owners() == {}


async def test_only_expired_owners_are_declared_dead_and_only_once(harness: Harness, journal: Journal) -> None:
    assert list(await journal.declare_dead()) == []
    await harness.age(TTL + 1)
    await journal.register(an_owner(THIRD), ttl_seconds=TTL)
    assert sorted(await journal.declare_dead()) == [OWNER, OTHER]
    assert list(await journal.declare_dead()) == []
    assert await journal.owners() == [an_owner(THIRD)]


async def test_retiring_deletes_the_row_and_may_be_repeated(journal: Journal) -> None:
    await journal.retire(OWNER)
    await journal.retire(OWNER)
    assert await journal.owners() == [an_owner(OTHER)]


async def test_the_heart_works_on_the_same_rows(harness: Harness, journal: Journal) -> None:
    heart = journal.heart()
    await heart.register(an_owner(THIRD), ttl_seconds=TTL)
    assert await heart.renew(THIRD, ttl_seconds=TTL) is not None
    await heart.retire(OWNER)
    await journal.close_heart()
    assert sorted(await harness.owners()) == [OTHER, THIRD]


async def test_a_second_node_of_the_same_instance_sees_the_same_owners(harness: Harness, journal: Journal) -> None:
    second = await harness.another()
    assert await second.renew(OWNER, ttl_seconds=TTL) is not None
    assert len(await second.owners()) == 2
    await second.close()


async def test_tables_of_another_instance_are_refused(harness: Harness, journal: Journal) -> None:
    second = await harness.another()
    await second.open(INSTANCE)
    with pytest.raises(SchemaTaken, match="continuum"):
        await second.open("billing")
    await second.close()
