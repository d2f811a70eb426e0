"""Paranoid mode: what a workflow takes from its process shows when another process replays it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import continuum
from continuum import workflow
from continuum.testing import NotReplayable, ReplayDiffers, environment
from continuum.testing.paranoia import close_twins, twins
from tests.testing import flows
from tests.testing.flows import collects, counts_its_runs, fulfil, in_order_of_a_set, names_its_process


async def test_an_honest_workflow_passes_in_every_terminal_form() -> None:
    """P98: completed, failed, cancelled and suspended runs are all replayed."""
    async with environment(paranoid=True) as env:
        done, refused, gone, open_one = [await continuum.start(fulfil, f"o-{n}", n) for n in range(4)]
        await done.signal("approved", True)
        await gone.cancel()
        assert await done.result() == ["charged 0", "label-o-0"]
        await refused.signal("approved", False)
        with pytest.raises(continuum.RunFailed, match="o-1"):
            await refused.result()
        assert (await gone.status()).state == "cancelled"
        assert (await env.history(open_one))[-1].type == "timer_started"


async def test_a_result_that_is_a_set_is_the_same_set_in_another_process() -> None:
    async with environment(paranoid=True):
        run = await continuum.start(collects, set(flows.NAMES))
        assert await run.result() == set(flows.NAMES)


async def test_the_order_of_a_set_is_found_with_its_position_and_its_site() -> None:
    with pytest.raises(ReplayDiffers) as caught:
        async with environment(paranoid=True):
            await (await continuum.start(in_order_of_a_set)).result()
    told = str(caught.value)
    assert re.search(r"at event \d+: expected activity_scheduled", told)
    assert f"{flows.__file__}:{in_order_of_a_set.fn.__code__.co_firstlineno + 3} in in_order_of_a_set" in told
    assert "PYTHONHASHSEED=" in told
    assert "sort sets" in told


async def test_a_variable_of_the_module_is_found() -> None:
    with pytest.raises(ReplayDiffers, match=r"expected activity_scheduled tests\.testing\.flows\.charge"):
        async with environment(paranoid=True):
            await (await continuum.start(counts_its_runs)).result()


async def test_waits_that_no_command_tells_of_are_compared() -> None:
    with pytest.raises(ReplayDiffers, match="after event 1 awaited signals differ"):
        async with environment(paranoid=True):
            await continuum.start(flows.waits_differently)


async def test_results_are_compared() -> None:
    with pytest.raises(ReplayDiffers, match=r"expected completed with \d+, found completed with \d+"):
        async with environment(paranoid=True):
            await (await continuum.start(names_its_process)).result()


async def test_what_fails_because_of_it_says_so() -> None:
    async def a_test() -> None:
        async with environment(paranoid=True):
            await (await continuum.start(in_order_of_a_set)).result()
            raise AssertionError("the test failed as well")

    with pytest.raises(ReplayDiffers) as caught:
        await a_test()
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_a_workflow_made_in_a_function_is_refused_with_the_way_out() -> None:
    @workflow
    async def local() -> int:
        return 1

    with pytest.raises(NotReplayable, match=r"defined inside a function.*top level of a module"):
        async with environment(paranoid=True):
            assert await (await continuum.start(local)).result() == 1


async def test_it_can_be_off_for_one_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUUM_PARANOID", "1")
    async with environment(paranoid=False):
        await (await continuum.start(in_order_of_a_set)).result()
    with pytest.raises(ReplayDiffers):
        async with environment():
            await (await continuum.start(in_order_of_a_set)).result()


async def test_the_twins_have_other_hash_seeds_and_come_back_when_they_have_fallen() -> None:
    first = list(twins())
    assert len({twin.hash_seed for twin in first} - {os.environ.get("PYTHONHASHSEED")}) == 2
    first[0]._process.kill()
    first[0]._process.wait()
    async with environment(paranoid=True):
        await (await continuum.start(collects, {"a"})).result()
    assert not {twin._process.pid for twin in twins()} & {twin._process.pid for twin in first}
    close_twins()


SCRIPT = """
import asyncio, sys
import continuum, continuum.testing
from continuum import activity, workflow

print("a module may print when it is imported")

@activity
async def one() -> int:
    return 1

@workflow
async def flow() -> int:
    return await one()

async def main():
    async with continuum.testing.environment(paranoid=True):
        print(await (await continuum.start(flow)).result())

if __name__ == "__main__":
    asyncio.run(main())
"""


def run_script(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=60)


def test_a_script_of_its_own_is_replayed_from_its_file(tmp_path: Path) -> None:
    done = run_script(tmp_path / "some_script.py", SCRIPT)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1"), done.stderr


def test_a_module_that_cannot_be_imported_twice_is_told_with_its_traceback(tmp_path: Path) -> None:
    broken = SCRIPT.replace(
        "import asyncio, sys", "import asyncio, sys\nif __name__ != '__main__': raise OSError('no')"
    )
    done = run_script(tmp_path / "unimportable.py", broken)
    assert done.returncode == 1
    assert "its module cannot be imported there" in done.stderr
    assert "OSError: no" in done.stderr
