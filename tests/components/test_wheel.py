"""What users get: a wheel that can create its tables without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from continuum.journal.sql import head

ROOT = Path(__file__).parents[2]

UPGRADE = """
import asyncio, sys
from pathlib import Path
from sqlalchemy.ext.asyncio import create_async_engine
import continuum
from continuum.journal.sql import SqlJournal, migrate, revision_of

async def main(url):
    engine = create_async_engine(url)
    await migrate(engine)
    journal = SqlJournal(engine)
    await journal.open("continuum")
    await journal.close()
    print(Path(continuum.__file__).parent.parent, await revision_of(engine))
    await engine.dispose()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which the wheel, built from this checkout, has been installed."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"  # hatchling writes nothing, but the checkout may be read-only for who tests it
    kept = shutil.ignore_patterns(".*", "__pycache__", "tests", "benchmarks", "docs", "build", "dist")
    shutil.copytree(ROOT, source, ignore=kept)
    if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"):
        command = [uv, "build", "--quiet", "--wheel", "--out-dir", str(place), "--python", sys.executable, str(source)]
    else:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(place), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def python(site: Path, *arguments: str) -> str:
    """Run Python away from the checkout, with the wheel before everything else; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=site.parent, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installed_wheel_creates_its_tables(site: Path, tmp_path: Path) -> None:
    assert python(site, "-c", UPGRADE, f"sqlite+aiosqlite:///{tmp_path}/c.db") == f"{site} {head()}"


def test_alembic_finds_the_migrations_inside_the_package(site: Path, tmp_path: Path) -> None:
    ini = tmp_path / "alembic.ini"
    ini.write_text("[alembic]\nscript_location = continuum:migrations\npath_separator = os\n")
    alembic = ("-m", "alembic", "-c", str(ini), "-x", f"url=sqlite+aiosqlite:///{tmp_path}/d.db")
    python(site, *alembic, "upgrade", "head")
    assert python(site, *alembic, "current").startswith(head())


def test_the_pytest_plugin_stands_beside_the_package(site: Path) -> None:
    """Inside, it would load the package, and with it SQLAlchemy and pydantic, into every run of pytest."""
    told = python(
        site, "-c", "import pytest_continuum, sys; print(pytest_continuum.__file__, 'continuum' in sys.modules)"
    )
    assert told == f"{site}/pytest_continuum.py False"
    (points,) = site.glob("*.dist-info/entry_points.txt")
    assert "[pytest11]\ncontinuum = pytest_continuum" in points.read_text()


ASK_FOR = {
    "fastapi": ("import continuum.http", "continuum.http needs FastAPI: pip install 'continuum-durable[fastapi]'"),
    "opentelemetry": ("import continuum.otel", "pip install 'continuum-durable[otel]'"),
    "cryptography": ("import continuum.encryption", "pip install 'continuum-durable[crypto]'"),
    "asyncpg": ("enter('postgresql+asyncpg://h/d')", "pip install 'continuum-durable[postgres]'"),
    "aiosqlite": ("enter('sqlite+aiosqlite:///d.db')", "pip install 'continuum-durable[sqlite]'"),
    "aiomysql": ("enter('mysql+aiomysql://h/d')", "URLs begin with postgresql+asyncpg://"),
}
WITHOUT = """
import asyncio, sys
for package in {absent}:
    sys.modules[package] = None
import continuum, continuum.testing, continuum.rest

def enter(url):
    async def entered():
        async with continuum.application(url):
            pass
    asyncio.run(entered())

for package, (does, says) in {asked}.items():
    try:
        exec(does)
    except Exception as error:
        assert says in str(error), (package, repr(error))
    else:
        raise AssertionError(package)
print("told")
"""


def test_who_lacks_an_optional_library_is_told_what_to_install(site: Path) -> None:
    absent = [*ASK_FOR, "httpx", "typer", "rich", "prometheus_client", "psycopg", "uvicorn"]
    assert python(site, "-c", WITHOUT.format(absent=absent, asked=ASK_FOR)) == "told"
