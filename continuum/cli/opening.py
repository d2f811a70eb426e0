"""An instance without workers on the tables of a database, for as long as a command needs it.

Tables know to which instance they belong, so that nobody has to say its name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from continuum.cli.migrating import missing_file, url_of
from continuum.composition.building import application, children
from continuum.composition.instance import Instance
from continuum.composition.instances import DEFAULT
from continuum.errors import SchemaNotReady
from continuum.journal.sql import brief_engine, instance_of


@asynccontextmanager
async def opened(url: str | None, schema: str | None) -> AsyncIterator[Instance]:
    """Give the instance that the tables of a database belong to.

    Raises:
        ConfigurationError: it cannot be told which database, or it cannot hold a journal.
        SchemaNotReady: no instance has ever used it.
        JournalUnavailable: it does not answer.
    """
    target = url_of(url)
    file = missing_file(target)
    if file is not None:
        raise SchemaNotReady(f"there is no file {file}")
    engine = brief_engine(target)
    try:
        name = await instance_of(engine, schema=schema)
        if name is None:
            raise SchemaNotReady("no instance has used this database yet: start its host first")
        if name == DEFAULT:
            async with application(engine, schema=schema, client_only=True) as instance:
                yield instance
            return
        made = children(name=name, engine=engine, schema=schema, client_only=True)
        try:
            async with made:
                assert made.instance is not None
                yield made.instance
        finally:
            made.forget()
    finally:
        await engine.dispose()
