"""Makes instances: `children()` for the host's engines, `application()` for the default one."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Unpack

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from continuum.clock import SystemClock
from continuum.composition.children import Children, children_of
from continuum.composition.instance import Instance
from continuum.composition.instances import DEFAULT, Instances
from continuum.composition.options import InstanceOptions, Settings, checked_name, settings_of
from continuum.composition.transacting import transactions_on
from continuum.composition.wiring import World
from continuum.definitions.catalog import catalog
from continuum.errors import ConfigurationError
from continuum.ids import uuid7
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.port import Journal
from continuum.journal.sealing import sealed
from continuum.journal.sql import SqlJournal
from continuum.journal.sql import migrate as migrate_engine

instances: Instances[Instance] = Instances()

DATABASE_URL = "CONTINUUM_DATABASE_URL"


def children(*, name: str, engine: Any = None, **options: Unpack[InstanceOptions]) -> Children:
    """Return the components of an instance named `name` on the host's `engine`.

    The name is registered at once; the database is not touched, and nothing belongs to a loop, before the components
    are entered: `async with children(...)`, `continuum.lifespan(*a, *b)`, or each of them in order. They may be left
    and entered again, on another loop too. `name="continuum"` returns an empty list: `application()` owns that one.

    Args:
        engine: an `AsyncEngine`; it is neither altered nor disposed. Continuum makes a few connections of its own.
        options: see the option reference; each component takes True, False or a dict of its options.

    Raises:
        ConfigurationError: an option is unknown or ill-typed, or a running instance has this name.
    """
    if checked_name(name) == DEFAULT:
        return Children()
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError(
            f"children(name={name!r}) needs an AsyncEngine, not {engine!r}: "
            "make it with sqlalchemy.ext.asyncio.create_async_engine"
        )
    settings = settings_of(name, dict(options))
    return children_of(_sql_instance(settings, engine))


@asynccontextmanager
async def application(
    engine_or_url: AsyncEngine | str | None = None, **options: Unpack[InstanceOptions]
) -> AsyncIterator[Instance]:
    """Run the default instance, "continuum", while the block lasts.

    Args:
        engine_or_url: the database; by default `CONTINUUM_DATABASE_URL`. Without one the journal is in memory: all
            verbs work, nothing survives the process.
        options: as for `children()`.

    Raises:
        ConfigurationError: an option is unknown or ill-typed, or the default instance is running already.
    """
    target = engine_or_url if engine_or_url is not None else os.environ.get(DATABASE_URL)
    settings = settings_of(DEFAULT, dict(options))
    if target is None:
        instance = memory_instance(settings, MemoryStore(SystemClock()), real_world)
        async with children_of(instance):
            yield instance
        return
    engine = _engine_of(target) if isinstance(target, str) else target
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError(f"application() takes an AsyncEngine or a database URL, not {engine_or_url!r}")
    try:
        instance = _sql_instance(settings, engine)
        async with children_of(instance):
            yield instance
    finally:
        if engine is not target:
            await engine.dispose()


EXTRAS = {"asyncpg": "postgres", "psycopg": "psycopg", "aiosqlite": "sqlite"}
URLS = "URLs begin with postgresql+asyncpg://, postgresql+psycopg:// or sqlite+aiosqlite://"


def _engine_of(url: str) -> AsyncEngine:
    try:
        return create_async_engine(url)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "")
        hint = f": pip install 'continuum-durable[{extra}]'" if extra else f"; {URLS}"
        message = f"no engine can be made from this database URL ({error}){hint}"
        raise ModuleNotFoundError(message, name=error.name) from error
    except SQLAlchemyError as error:
        raise ConfigurationError(f"no engine can be made from this database URL ({error}); {URLS}") from error


def real_world() -> World:
    """Return the surroundings of a real process."""
    return World(clock=SystemClock(), draw=random.Random(), new_id=uuid7, catalog=catalog(), is_threaded=True)


def memory_instance(
    settings: Settings,
    store: MemoryStore,
    world: Callable[[], World],
    *,
    journal: Callable[[MemoryStore], Journal] = MemoryJournal,
) -> Instance:
    """Register an instance on an in-memory journal."""

    async def ready() -> None:
        """Nothing is to be prepared."""

    def unthreaded() -> World:
        return replace(world(), is_threaded=False)

    return _register(settings, lambda: sealed(journal(store), settings.values["payload_codec"]), ready, unthreaded)


def _sql_instance(settings: Settings, engine: AsyncEngine) -> Instance:
    values = settings.values

    async def prepare() -> None:
        if values["migrations"] == "upgrade":
            await migrate_engine(engine, schema=values["schema"])

    def make() -> Journal:
        journal = SqlJournal(
            engine,
            schema=values["schema"],
            listen_engine=values["listen_engine"],
            checks_revision=values["migrations"] != "off",
        )
        return sealed(journal, values["payload_codec"])

    return _register(settings, make, prepare, lambda: replace(real_world(), transactions=transactions_on(engine)))


def _register(settings: Settings, make: Callable[[], Journal], prepare: Any, world: Callable[[], World]) -> Instance:
    known = instances.known(settings.name)
    made = Instance(settings, make_journal=make, prepare=prepare, world=world, instances=instances)
    instances.register(settings.name, made, is_running=known is not None and known.is_entered)
    return made
