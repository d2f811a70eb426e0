"""What the guide on databases says is so."""

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects.mysql.asyncmy import MySQLDialect_asyncmy
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from continuum import ConfigurationError
from continuum.composition.wiring import CATCH_UP_ALONE_SECONDS
from continuum.journal.sql import journal, opening
from continuum.journal.sql.tables import metadata
from tests.databases.test_connections import CONNECTIONS, RUNS
from tests.support.pgbouncer import RECIPE
from tools.run_matrix import MAJORS, PYTHONS

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "databases.md").read_text()
SAID = " ".join(GUIDE.split())


def test_the_code_of_the_guide_runs() -> None:
    names: dict[str, Any] = {"POOLED_URL": "postgresql+asyncpg://a@b/c", "DIRECT_URL": "postgresql+asyncpg://a@d/c"}
    for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(compile(block, "guide", "exec"), names)
    assert names["orders"].instance is not None
    names["orders"].forget()
    assert set(RECIPE["connect_args"]) == set(re.findall(r'^ +"(\w+_(?:size|func))"', GUIDE, re.MULTILINE))


def test_numbers_are_those_of_the_code() -> None:
    assert f"| **at most** | **{CONNECTIONS}** | **3** |" in SAID
    assert f"a test holds {RUNS:,} runs in flight with five connections" in SAID
    assert f"PostgreSQL {MAJORS[0]} to {MAJORS[-1]}, SQLite, PgBouncer, Python {PYTHONS[0]} to {PYTHONS[-1]}" in SAID
    assert f"PostgreSQL {opening.POSTGRES_MIN // 10_000} to" in SAID
    assert journal.LOCK_SECONDS_POSTGRES == 0.25
    assert "wait a quarter of a second for somebody else's lock" in SAID
    assert journal.PATIENCE_SECONDS_SQLITE == 10
    assert "other changes for ten seconds" in SAID
    assert CATCH_UP_ALONE_SECONDS == 1
    runs = metadata("postgresql", None).tables["continuum_runs"]
    assert f"`fillfactor = {runs.dialect_options['postgresql']['with']['fillfactor']}`" in SAID


def test_another_driver_is_refused_by_name() -> None:
    url = make_url("mysql+asyncmy://nobody@/nothing")
    engine = AsyncEngine(Engine(NullPool(lambda: None), MySQLDialect_asyncmy(), url))  # type: ignore[arg-type]
    with pytest.raises(
        ConfigurationError, match=r"mysql\+asyncmy cannot .* use postgresql\+asyncpg://, postgresql\+psycopg"
    ):
        opening.dialect_of(engine)
