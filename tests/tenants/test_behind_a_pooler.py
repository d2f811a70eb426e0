"""Migrations through PgBouncer in transaction mode: each transaction has any session, and sessions have a past."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from continuum.journal.sql import head, revision_of
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import connect
from tests.tenants.projects import ROOT


def test_two_processes_may_upgrade_the_same_schemas_through_a_pooler(
    postgres_database: str, pooler: PgBouncer, tmp_path: Path
) -> None:
    """Both name their statements alike; and who has waited for the other must see the schema that it made."""
    url = pooler.url_of(postgres_database)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONTINUUM_")}
    environment["PYTHONPATH"] = str(ROOT)
    for n in range(3):
        environment[f"CONTINUUM_TENANTS__t{n}__URL"] = url
        environment[f"CONTINUUM_TENANTS__t{n}__SCHEMA"] = f"t{n}"
    command = [sys.executable, "-m", "continuum.cli", "migrate", "--all-tenants", "--json", "--jobs", "1"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)
    ]
    for process in both:
        told = json.loads(process.communicate()[0])["tenants"]
        assert [(one["after"], one["error"]) for one in told] == [(head(), None)] * 3

    async def look() -> list[object]:
        connection = await connect(postgres_database)
        held = await connection.fetch("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")
        await connection.close()
        engine = create_async_engine(postgres_database, poolclass=NullPool)
        return [*held, *[await revision_of(engine, schema=f"t{n}") for n in range(3)]]

    assert asyncio.run(look()) == [head()] * 3  # and nobody holds a lock any more
