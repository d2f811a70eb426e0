"""Twenty transfers to and fro, at the same time: each is booked once, and what is too much is not."""

import re
from pathlib import Path
from typing import Any

import pytest

from examples.transfer import OPENING, main


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'bank.db'}"
    database: str = request.getfixturevalue("postgres_database")
    return database


async def test_every_transfer_is_booked_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", url)
    told: dict[str, Any] = await main()
    moved = sum(10 + n for n in range(20) if n % 2) - 10 * 7
    assert told["booked"] == 20
    assert told["balances"] == {"alice": OPENING - moved, "bob": OPENING + moved}
    assert re.fullmatch(r"alice has only \d+", told["refused"])
