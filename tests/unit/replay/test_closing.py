"""An execution that is given up: `finally:` blocks run, and nothing that they try has an effect."""

# ruff: noqa: BLE001, RUF006  # workflows do here what they should not

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from continuum.definitions.activity import activity
from continuum.definitions.children import start_child
from continuum.errors import NotAllowedHere
from continuum.replay import context
from continuum.replay import loop as loop_module
from tests.unit.replay.builders import ARun, a_run, charge, done, ping, settle, signal

performed: list[str] = []


@activity(name="act")
async def act(name: str) -> None:
    performed.append(name)


@pytest.fixture(autouse=True)
def _nothing_performed() -> None:
    performed.clear()


def closed(run: ARun) -> ARun:
    before = list(run.history)
    run.machine.close()
    run.machine.close()  # harmless
    assert run.machine.turn((), run.at).events == ()
    assert run.history == before
    assert performed == []
    assert run.machine._loop not in loop_module._open_loops
    return run


def test_finally_blocks_run_in_all_tasks() -> None:
    ended: list[str] = []

    async def beside() -> None:
        try:
            await charge(1)
        finally:
            ended.append("beside")

    async def flow() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(beside())
                await asyncio.sleep(60)
        finally:
            ended.append("main")

    closed(a_run(flow, alone=True))

    assert sorted(ended) == ["beside", "main"]


def test_finally_blocks_can_neither_command_nor_wait() -> None:
    tried: list[str] = []

    async def attempt(name: str) -> None:
        tried.append(name)
        try:
            match name:
                case "activity":
                    await act(name)
                case "sleep":
                    await asyncio.sleep(5)
                case "nothing":
                    await asyncio.sleep(0)
                case "timer":
                    asyncio.get_running_loop().call_later(5, performed.append, name)
                    asyncio.get_running_loop().call_soon(performed.append, name)
                    await asyncio.sleep(5)
                case "side effect":
                    await context.side_effect(lambda: performed.append(name))
                case "signal":
                    await context.wait_signal(name)
                case "task":
                    await asyncio.create_task(act(name))
                case _:
                    await asyncio.gather(act(name), act(name))
            performed.append(f"went past {name}")
        finally:
            tried.append(f"left {name}")

    names = ["activity", "sleep", "nothing", "timer", "side effect", "signal", "task", "gather"]

    async def flow() -> None:
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(clean_up(name))

    async def clean_up(name: str) -> None:
        try:
            await ping()
        finally:
            await attempt(name)

    closed(a_run(flow, alone=True))

    assert sorted(tried) == sorted([*names, *(f"left {name}" for name in names)])


def test_commands_of_the_current_turn_are_not_made_by_closing() -> None:
    async def flow() -> None:
        try:
            await charge(1)
        finally:
            context.log("INFO", "cleaning up")
            context.now()
            assert context.in_workflow()
            await act("late")

    run = a_run(flow, alone=True)
    run.machine.close()

    assert run.machine.turn((), run.at).events == ()
    assert performed == []


@pytest.mark.parametrize("what", ["activity", "sleep", "nothing", "timeout", "group", "gather"])
def test_a_coroutine_that_loops_and_swallows_everything_is_left_behind_for_good(what: str) -> None:
    rounds: list[int] = []

    async def once() -> None:
        match what:
            case "activity":
                await act("looping")
            case "sleep":
                await asyncio.sleep(5)
            case "nothing":
                await asyncio.sleep(0)
            case "timeout":
                async with asyncio.timeout(5):
                    await asyncio.sleep(9)
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(act("looping"))
            case _:
                await asyncio.gather(act("looping"), act("looping"))

    async def flow() -> None:
        await ping()
        while True:
            try:
                rounds.append(1)
                await once()
            except BaseException:
                rounds.append(2)

    async def parked() -> None:
        task = asyncio.create_task(flow())
        await context.wait_signal("go")
        await task

    run = a_run(parked, alone=True)
    if what != "nothing":  # which would spin
        run.turn(done(1))
    else:
        flow_of_its_own = a_run(swallowing(rounds), alone=True)
        closed(flow_of_its_own)
        run = flow_of_its_own
    closed(run)
    seen = len(rounds)
    del run
    gc.collect()

    assert len(rounds) == seen  # garbage collection did not throw GeneratorExit once more
    assert performed == []


def swallowing(rounds: list[int]) -> Callable[[], Awaitable[None]]:
    async def flow() -> None:
        try:
            await ping()
        finally:
            while True:
                try:
                    rounds.append(1)
                    await asyncio.sleep(0)
                except BaseException:
                    rounds.append(2)

    return flow


def test_many_awaits_in_the_way_out_are_walked_one_by_one() -> None:
    left: list[int] = []

    async def nested(depth: int) -> None:
        try:
            if depth:
                await nested(depth - 1)
            else:
                await charge(1)
        finally:
            left.append(depth)
            await act("late")

    async def flow() -> None:
        await nested(20)

    closed(a_run(flow, alone=True))

    assert left == list(range(21))


def test_an_error_in_a_finally_block_concerns_nobody() -> None:
    ended: list[str] = []

    async def flow() -> None:
        asyncio.create_task(beside())
        try:
            await charge(1)
        finally:
            raise ValueError("no")

    async def beside() -> None:
        try:
            await charge(2)
        finally:
            ended.append("beside")

    closed(a_run(flow, alone=True))

    assert ended == ["beside"]


def test_finally_blocks_run_in_the_context_of_their_task_and_leave_the_host_s_alone() -> None:
    tenant = contextvars.ContextVar("tenant", default="the host's")
    seen: list[str] = []

    async def beside() -> None:
        token = tenant.set("inner")
        try:
            await charge(1)
        finally:
            seen.append(tenant.get())
            tenant.reset(token)  # an error in another context
            seen.append(tenant.get())
            tenant.set("left behind")

    async def flow() -> None:
        tenant.set("outer")
        await asyncio.create_task(beside())

    closed(a_run(flow, alone=True))

    assert seen == ["inner", "outer"]
    assert tenant.get() == "the host's"


def test_tasks_started_on_the_way_out_never_run() -> None:
    async def flow() -> None:
        try:
            await charge(1)
        finally:
            asyncio.create_task(act("late"))
            task = asyncio.create_task(act("later"))
            task.add_done_callback(lambda _: performed.append("callback"))

    closed(a_run(flow, alone=True))


def test_what_was_waited_for_is_forgotten() -> None:
    async def flow() -> None:
        await asyncio.gather(charge(1), asyncio.sleep(5), context.wait_signal("go"))

    run = closed(a_run(flow, alone=True))

    assert (run.machine.open_activities, run.machine.deadline, run.machine.waits_for) == (frozenset(), None, ())


def test_a_closed_loop_says_so() -> None:
    seen: list[bool] = []

    async def flow() -> None:
        loop = asyncio.get_running_loop()
        seen.extend((loop.is_running(), loop.is_closed(), loop.get_debug()))
        await loop.shutdown_asyncgens()
        try:
            await charge(1)
        finally:
            seen.append(loop.is_closed())

    closed(a_run(flow, alone=True))

    assert seen[-1:] == [True]
    assert seen[:3] == [True, False, False]


async def test_a_parked_machine_that_is_forgotten_does_no_harm() -> None:
    ended: list[bool] = []

    async def pages() -> AsyncIterator[int]:
        try:
            yield 1
            await act("between pages")
        finally:
            ended.append(context.in_workflow())
            await act("from a generator")

    async def flow() -> None:
        generator = pages()
        async for _ in generator:
            break
        try:
            await charge(1)
        finally:
            ended.append(context.in_workflow())
            await act("from a finally block")

    run = a_run(flow, alone=True)
    del run
    gc.collect()
    await asyncio.sleep(0)

    assert (ended, performed) == ([], [])
    loop_module._shut_all()
    gc.collect()
    await asyncio.sleep(0)
    assert (ended, performed) == ([True], [])


async def test_generators_are_not_finalized_by_the_host_s_loop() -> None:
    ended: list[str] = []

    async def pages() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("finally")
            await act("from a generator")

    async def flow() -> str:
        async for _ in pages():
            break
        gc.collect()
        await ping()
        return "over"

    run = a_run(flow, alone=True)
    run.turn(done(1))
    run.machine.close()
    await asyncio.sleep(0)
    await asyncio.get_running_loop().shutdown_asyncgens()

    assert run.outcome == "over"
    assert (ended, performed) == ([], [])


def test_a_machine_that_ended_or_drifted_can_be_closed() -> None:
    async def flow() -> str:
        return "over"

    closed(a_run(flow, alone=True))


def output_of(tmp_path: Path, program: str) -> list[str]:
    """Run a program to its end; it must print nothing but what it prints."""
    (tmp_path / "program.py").write_text(program)
    ended = subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "program.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


PROGRAM = """
import asyncio
from continuum.definitions.activity import activity
from continuum.definitions.children import start_child
from continuum.errors import NotAllowedHere
from tests.unit.replay.builders import a_run, charge

@activity(name="act")
def act() -> None:
    print("performed")

async def flow() -> None:
    try:
        await charge(1)
    finally:
        print("finally")
        await act()

async def stubborn() -> None:
    rounds = 0
    while True:
        try:
            rounds += 1
            if rounds < 3:
                print("round", rounds)
            async with asyncio.timeout(60):
                await act() if rounds > 1 else await charge(1)
        except BaseException:
            continue
"""


def test_open_executions_are_shut_when_the_process_ends(tmp_path: Path) -> None:
    said = output_of(tmp_path, PROGRAM + "run = a_run(flow, alone=True)\nprint('parked')\n")

    assert said == ["parked", "finally"]


def test_a_coroutine_that_was_left_behind_does_not_wake_up_when_the_process_ends(tmp_path: Path) -> None:
    said = output_of(tmp_path, PROGRAM + "run = a_run(stubborn, alone=True)\nrun.machine.close()\nprint('closed')\n")

    assert said == ["round 1", "round 2", "closed"]


def test_a_signal_after_closing_reaches_nobody() -> None:
    async def flow() -> None:
        await context.wait_signal("go")

    run = closed(a_run(flow, alone=True))

    assert run.machine.turn((signal("go"),), run.at).events == ()


WAYS: dict[str, Callable[[], Awaitable[object]]] = {
    "an activity": lambda: act("x"),
    "a signal": lambda: context.wait_signal("never"),
    "a timer": lambda: asyncio.sleep(5),
    "a side effect": lambda: context.side_effect(lambda: 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_awaited_on_the_way_out_is_refused_at_the_call_once_in_each_task(way: str) -> None:
    told: list[str] = []

    async def tries(name: str) -> None:
        try:
            await charge(1)
        finally:
            for attempt in (1, 2):
                try:
                    await WAYS[way]()
                except NotAllowedHere as refused:
                    told.append(f"{name} {attempt} {'compensations' in refused.message}")

    async def flow() -> None:
        await asyncio.gather(tries("one"), tries("other"))

    closed(a_run(flow, alone=True))
    assert sorted(told) == ["one 1 True", "other 1 True"]


def test_a_child_that_is_awaited_on_the_way_out_is_refused_too() -> None:
    told: list[str] = []

    async def flow() -> None:
        child = await start_child(settle, 1)
        try:
            await child
        finally:
            try:
                await child
            except NotAllowedHere:
                told.append("refused")

    closed(a_run(flow, alone=True))
    assert told == ["refused"]
