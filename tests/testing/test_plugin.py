"""The pytest plugin, in pytest processes of its own."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BARE = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest", "-q")


def run_pytest(place: Path, text: str, *options: str, **environment: str) -> tuple[int, str]:
    """Run a file of tests, with the plugin and nothing of this suite's configuration; return the code and the output."""
    (place / "test_some.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *BARE, *options],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_pytest_finds_it_by_itself() -> None:
    (found,) = entry_points(group="pytest11", name="continuum")
    assert found.value == "pytest_continuum"


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import pytest_continuum, sys; print({'continuum', 'sqlalchemy', 'pydantic', 'msgspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_suite_that_has_nothing_to_do_with_continuum_does_not_load_it(tmp_path: Path) -> None:
    code, told = run_pytest(
        tmp_path,
        "import sys\n"
        "def test_it(request):\n"
        "    assert request.config.pluginmanager.hasplugin('continuum')\n"
        "    assert not {'continuum', 'sqlalchemy', 'pydantic'} & set(sys.modules)\n",
    )
    assert code == 0, told


SCOPES = """
import asyncio
import pytest
import continuum
from continuum import workflow
from continuum.definitions.catalog import catalog

@workflow(name="of the module")
async def module_flow() -> int:
    return 1

@pytest.fixture(scope="module")
def application():
    with asyncio.Runner() as runner:
        entered = continuum.application()
        runner.run(entered.__aenter__())
        yield runner
        runner.run(entered.__aexit__(None, None, None))

def run(runner, flow):
    async def once():
        return await (await continuum.start(flow)).result(timeout=30)
    return runner.run(once())

@pytest.mark.parametrize("n", [1, 2])
def test_each_has_its_own(application, n):
    assert "of a test" not in {name for name, _ in catalog().workflows}

    def make():  # another origin each time: a duplicate, if the first were still there
        async def flow() -> int:
            return n
        flow.__qualname__ += str(n)
        return workflow(name="of a test")(flow)

    assert run(application, make()) == n  # an instance that runs already sees it as well

def test_what_is_imported_in_a_test_stays(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text(
        "from continuum import workflow\\n@workflow\\nasync def late() -> int:\\n    return 2\\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import imported_late

def test_it_is_still_there():
    names = {name for name, _ in catalog().workflows}
    assert {"of the module", "imported_late.late"} <= names
    assert "of a test" not in names
"""


def test_definitions_made_in_a_test_vanish_after_it(tmp_path: Path) -> None:
    code, told = run_pytest(tmp_path, SCOPES)
    assert (code, "4 passed" in told) == (0, True), told


PARANOID = """
import asyncio
import pytest
import continuum, continuum.testing
from continuum import activity, workflow

@activity
async def write(name: str) -> None: ...

@workflow(purity="off")
async def in_order_of_a_set() -> None:
    for name in {"anna", "berta", "cora", "dora", "emma", "frida", "greta", "hanna", "ida", "jana"}:
        await write(name)

async def once(environment):
    async with environment():
        await (await continuum.start(in_order_of_a_set)).result()

def test_unmarked(continuum_environment):
    asyncio.run(once(continuum_environment))

def test_imported():
    asyncio.run(once(continuum.testing.environment))

@pytest.mark.continuum_paranoid(False)
def test_marked_off(continuum_environment):
    asyncio.run(once(continuum_environment))

@pytest.mark.continuum_paranoid
def test_marked_on(continuum_environment):
    asyncio.run(once(continuum_environment))
"""


@pytest.mark.parametrize(
    ("options", "environment", "ini", "failed"),
    [
        ((), {}, "", {"test_marked_on"}),
        (("--continuum-paranoid",), {}, "", {"test_unmarked", "test_imported", "test_marked_on"}),
        ((), {"CONTINUUM_PARANOID": "1"}, "", {"test_unmarked", "test_imported", "test_marked_on"}),
        ((), {}, "continuum_paranoid = true", {"test_unmarked", "test_imported", "test_marked_on"}),
    ],
)
def test_a_suite_is_made_paranoid_by_option_variable_or_configuration(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], ini: str, failed: set[str]
) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    _, told = run_pytest(tmp_path, PARANOID, *options, **environment)
    names = {"test_unmarked", "test_imported", "test_marked_on", "test_marked_off"}
    assert {name for name in names if f"FAILED test_some.py::{name} " in told} == failed, told
    assert "ReplayDiffers" in told


ASYNC = """
import pytest
import continuum, continuum.testing
from continuum import workflow

@workflow
async def flow() -> int:
    return 1

{marker}
async def test_it(continuum_environment):
    async with continuum_environment() as env:
        assert await (await continuum.start(flow)).result() == 1
"""


@pytest.mark.parametrize(
    ("marker", "options"),
    [
        ("@pytest.mark.asyncio", ("-p", "no:anyio")),
        ("@pytest.mark.anyio\n@pytest.mark.parametrize('anyio_backend', ['asyncio'])", ("-p", "no:asyncio")),
    ],
)
def test_it_works_under_either_plugin_for_async_tests(tmp_path: Path, marker: str, options: tuple[str, ...]) -> None:
    code, told = run_pytest(tmp_path, ASYNC.format(marker=marker), *options)
    assert (code, "1 passed" in told) == (0, True), told
