"""`migrations="off"` trusts the host that the tables are right, whatever the version table says."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import continuum


async def test_off_does_not_look_at_the_version_table_and_check_does(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'off.db'}")
    await continuum.migrate(engine)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM continuum_alembic_version"))
    with pytest.raises(continuum.SchemaNotReady):
        async with continuum.application(engine, migrations="check"):
            pass
    async with continuum.application(engine, migrations="off"):
        assert continuum.readiness().state == "ready"
    await engine.dispose()
