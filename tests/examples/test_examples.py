"""Every example runs as its first lines say: as a script in memory, and on a database; a second time as well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from continuum import migrate

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")


def run(example: Path, place: Path, url: str | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "CONTINUUM_DATABASE_URL"}
    if url is not None:
        environment["CONTINUUM_DATABASE_URL"] = url
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_as_a_script_in_memory(example: Path, tmp_path: Path) -> None:
    assert run(example, tmp_path).strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_it_runs_on_a_database_and_again_on_the_same(example: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'example.db'}"
    engine = create_async_engine(url)
    await migrate(engine)
    await engine.dispose()
    for _ in range(2):
        assert run(example, tmp_path, url).strip()


def test_each_has_a_test_of_its_own() -> None:
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {path.stem for path in EXAMPLES} <= tests
