"""Reading a database without a running instance: nothing is claimed and nothing written, so a read-only role will do.

Which database: the one of an instance that the host's code makes (`shop.app:orders` names what `children()` returned, with
its schema and its payload codec), or `--url`, with `--codec` where payloads are sealed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from continuum.cli.migrating import missing_file, url_of
from continuum.composition.children import Children
from continuum.composition.instance import Instance
from continuum.errors import ConfigurationError, SchemaNotReady
from continuum.journal.port import Journal
from continuum.journal.sealing import sealed
from continuum.journal.sql import SqlJournal, brief_engine


def imported(targets: Sequence[str]) -> Instance | None:
    """Import modules; return the instance that one of them names, `module:children`.

    Raises:
        ConfigurationError: a module cannot be imported, or what is named is no instance.
    """
    found: list[Instance] = []
    for target in targets:
        module, _, name = target.partition(":")
        known = named(module, name) if name else loaded(module)
        if name:
            instance = known.instance if isinstance(known, Children) else known
            if not isinstance(instance, Instance):
                raise ConfigurationError(f"{target} is {known!r}: name what continuum.children(...) returned")
            found.append(instance)
    if len(found) > 1:
        raise ConfigurationError("several instances are named: look at one database after the other")
    return found[0] if found else None


def loaded(module: str) -> Any:
    """Import a module as `python -m` does: also from the working directory."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except Exception as error:  # an import runs code, which may raise anything
        raise ConfigurationError(f"{module} cannot be imported: {error!r}") from error


def named(module: str, name: str) -> Any:
    """Return something of a module."""
    try:
        return getattr(loaded(module), name)
    except AttributeError as error:
        raise ConfigurationError(f"there is no {name} in {module}") from error


@asynccontextmanager
async def looking(
    instance: Instance | None, *, url: str | None, schema: str | None, codec: str | None
) -> AsyncIterator[tuple[Journal, str]]:
    """Give the journal to look into, and the name of its instance.

    Raises:
        ConfigurationError: it cannot be told which database, or it cannot hold a journal.
        SchemaNotReady: it has no tables, or older ones.
        JournalUnavailable: it does not answer.
    """
    if instance is not None:
        if (url, schema, codec) != (None, None, None):
            raise ConfigurationError(
                "a named instance brings its database along: leave --url, --schema and --codec out"
            )
        async with instance.looking() as journal:
            yield journal, instance.name
        return
    target = url_of(url)
    file = missing_file(target)
    if file is not None:
        raise SchemaNotReady(f"there is no file {file}")
    engine = brief_engine(target)
    try:
        bare = SqlJournal(engine, schema=schema)
        journal = sealed(bare, named(*_parted(codec)) if codec else None)
        try:
            yield journal, await journal.look() or "continuum"
        finally:
            await journal.close()
    finally:
        await engine.dispose()


def _parted(codec: str) -> tuple[str, str]:
    module, _, name = codec.partition(":")
    if not name:
        raise ConfigurationError(f"--codec takes MODULE:NAME, not {codec!r}")
    return module, name
