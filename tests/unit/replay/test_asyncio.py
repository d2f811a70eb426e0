"""asyncio's own primitives, unpatched, as the language of workflows.

Every turn of every test here is also replayed by a machine that only knows the history (see `builders.ARun`).
"""

# ruff: noqa: BLE001, PERF401  # workflows do here what they should not

import asyncio
import contextlib
import gc
import math
from collections.abc import AsyncGenerator
from random import Random

import pytest

from continuum.model.failure import Failure
from continuum.replay import context
from tests.unit.replay.builders import a_run, broken, charge, done, ping, refund, signal


def test_a_sleep_is_a_durable_timer() -> None:
    async def flow() -> str:
        await asyncio.sleep(10)
        return "late"

    run = a_run(flow)

    assert run.events == ["started", "timer_started 1 +10"]
    assert run.turn(after=9.999) == []
    assert run.turn(after=0.001) == ["timer_fired 1", 'completed "late"']


def test_a_sleep_of_nothing_needs_no_timer() -> None:
    async def flow() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        await asyncio.sleep(1e-9)  # less than the clock can tell
        return "now"

    assert a_run(flow).events == ["started", 'completed "now"']


@pytest.mark.parametrize("delay", [math.inf, 1e300, 3e11])
def test_a_sleep_beyond_the_calendar_never_ends(delay: float) -> None:
    async def flow() -> str:
        await asyncio.wait(
            [asyncio.create_task(asyncio.sleep(delay)), asyncio.create_task(wait_go())], return_when="FIRST_COMPLETED"
        )
        return "went"

    async def wait_go() -> None:
        await context.wait_signal("go")

    run = a_run(flow)

    assert run.last.deadline is None
    assert run.turn(after=1e10) == []
    assert run.turn(signal("go")) == ["signal_received go", 'completed "went"']


def test_a_timer_never_fires_before_its_time() -> None:
    # 1.7e9 seconds as a float are coarser than a microsecond. A deadline rounded down would be due at once, and
    # a loop that sleeps until a point in time would be fired again and again within one turn.
    async def flow() -> int:
        loop = asyncio.get_running_loop()
        end = loop.time() + 3e-7
        rounds = 0
        while loop.time() < end:
            rounds += 1
            await asyncio.sleep(end - loop.time())
        return rounds

    run = a_run(flow)

    assert run.events == ["started", "timer_started 1 +1e-06"]
    assert run.turn(after=1e-6) == ["timer_fired 1", "completed 1"]


def test_timers_that_are_due_together_fire_in_the_order_of_their_deadlines_then_of_asking() -> None:
    async def flow() -> list[str]:
        order: list[str] = []

        async def late(name: str, delay: float) -> None:
            await asyncio.sleep(delay)
            order.append(name)

        await asyncio.gather(late("c", 3), late("a", 1), late("b", 2), late("a2", 1))
        return order

    run = a_run(flow)

    assert run.turn(after=60) == [
        "timer_fired 2",
        "timer_fired 4",
        "timer_fired 3",
        "timer_fired 1",
        'completed ["a","a2","b","c"]',
    ]


def test_timeout_interrupts_an_activity_and_withdraws_it() -> None:
    async def flow() -> str:
        try:
            async with asyncio.timeout(5):
                await charge(1)
        except TimeoutError:
            return "gave up"
        return "paid"

    run = a_run(flow)

    assert run.events == ["started", "timer_started 1 +5", 'activity_scheduled 2 charge {"cents":1}']
    assert run.turn(after=5) == ["timer_fired 1", 'completed "gave up"']
    assert run.last.resolved == (2,)


def test_timeout_that_is_not_reached_leaves_no_deadline() -> None:
    async def flow() -> None:
        async with asyncio.timeout(5):
            await charge(1)
        await charge(2)

    run = a_run(flow)

    assert run.turn(done(2)) == ["activity_completed 2 0", 'activity_scheduled 3 charge {"cents":2}']
    assert run.last.deadline is None


def test_timeout_at_takes_the_loop_s_time() -> None:
    async def flow() -> str:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + 5) as scope:
                scope.reschedule(asyncio.get_running_loop().time() + 7)
                await charge(1)
        except TimeoutError:
            return "gave up"
        return "paid"

    run = a_run(flow)

    assert run.events[1:3] == ["timer_started 1 +5", "timer_started 2 +7"]
    assert run.turn(after=5) == []
    assert run.turn(after=2) == ["timer_fired 2", 'completed "gave up"']


def test_a_timeout_of_nothing_still_cancels() -> None:
    async def flow() -> str:
        try:
            async with asyncio.timeout(0):
                await charge(1)
        except TimeoutError:
            return "gave up"
        return "paid"

    run = a_run(flow)

    assert run.events == ["started", 'activity_scheduled 1 charge {"cents":1}', 'completed "gave up"']
    assert run.last.scheduled == ()


@pytest.mark.parametrize("answered", [True, False])
def test_wait_for_takes_the_answer_or_gives_up(answered: bool) -> None:
    async def flow() -> object:
        try:
            return await asyncio.wait_for(charge(1), 5)
        except TimeoutError:
            return "gave up"

    run = a_run(flow)
    run.turn(done(1, 7)) if answered else run.turn(after=5)

    assert run.outcome == (7 if answered else "gave up")


def test_gather_gives_results_in_the_order_of_its_arguments() -> None:
    async def flow() -> list[int]:
        return list(await asyncio.gather(charge(1), charge(2), charge(3)))

    run = a_run(flow)

    assert run.scheduled == ['1 charge {"cents":1}', '2 charge {"cents":2}', '3 charge {"cents":3}']
    assert run.turn(done(3, 30)) == ["activity_completed 3 30"]
    assert run.turn(done(1, 10)) == ["activity_completed 1 10"]
    assert run.turn(done(2, 20)) == ["activity_completed 2 20", "completed [10,20,30]"]


def test_gather_raises_the_first_failure_and_leaves_the_others_running() -> None:
    async def flow() -> str:
        try:
            await asyncio.gather(charge(1), charge(2))
        except Exception as error:
            return f"{type(error).__name__} {await ping()}"
        return "paid"

    run = a_run(flow)
    run.turn(broken(2, ValueError("no money")))

    assert run.machine.open_activities == {1, 3}
    assert run.turn(done(1, 10)) == ["activity_completed 1 10"]
    assert run.turn(done(3))[-1] == 'completed "ActivityFailed 0"'


def test_gather_can_return_exceptions() -> None:
    async def flow() -> list[str]:
        results = await asyncio.gather(charge(1), charge(2), return_exceptions=True)
        return [str(result) for result in results]

    run = a_run(flow)
    run.turn(broken(1, Failure("builtins.ValueError", "no money", attempts=3)))
    run.turn(done(2, 20))

    assert run.outcome == ["activity charge failed after 3 attempt(s): builtins.ValueError: no money", "20"]


def test_a_task_group_waits_for_all() -> None:
    async def flow() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(charge(cents)) for cents in (1, 2)]
        return [task.result() for task in tasks]

    run = a_run(flow)
    run.turn(done(2, 20))
    run.turn(done(1, 10))

    assert run.outcome == [10, 20]


def test_a_failure_in_a_task_group_cancels_its_siblings_and_withdraws_their_activities() -> None:
    async def flow() -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                for cents in (1, 2, 3):
                    group.create_task(charge(cents))
        except ExceptionGroup as errors:
            return [type(error).__name__ for error in errors.exceptions]
        return []

    run = a_run(flow)

    assert run.turn(broken(2, ValueError("no"))) == ["activity_failed 2 ValueError: no", 'completed ["ActivityFailed"]']
    assert sorted(run.last.resolved) == [1, 2, 3]


def test_a_task_group_cancels_its_tasks_in_an_order_that_replays() -> None:
    # TaskGroup keeps its tasks in a set and cancels them in the order of that set. By address no replay would agree.
    async def clean_up_after(cents: int) -> None:
        try:
            await charge(cents)
        except asyncio.CancelledError:
            await refund(cents)
            raise

    async def flow() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for cents in range(50):
                    group.create_task(clean_up_after(cents))
                group.create_task(ping())
        except ExceptionGroup:
            await ping()

    run = a_run(flow)
    run.turn(broken(1, ValueError("no")))
    others = [run.replayed() for _ in range(20)]  # each at other addresses; a drift would be raised

    assert len(run.last.scheduled) == 50
    assert {other.open_activities for other in others} == {run.machine.open_activities}


def test_create_task_runs_beside() -> None:
    async def flow() -> list[int]:
        first = asyncio.create_task(charge(1), name="first")
        second = await charge(2)
        assert first.get_name() == "first"
        return [await first, second]

    run = a_run(flow)

    assert run.scheduled == ['2 charge {"cents":2}', '1 charge {"cents":1}']
    run.turn(done(1, 10), done(2, 20))
    assert run.outcome == [10, 20]


def test_names_of_tasks_count_within_the_run() -> None:
    async def flow() -> list[str]:
        named = asyncio.create_task(ping(), name="mine")
        counted = asyncio.create_task(ping())
        return [named.get_name(), counted.get_name(), asyncio.current_task().get_name()]  # type: ignore[union-attr]

    assert a_run(flow).outcome == ["mine", "Task-3", "workflow"]


def test_cancelling_a_task_withdraws_its_activity() -> None:
    async def flow() -> str:
        task = asyncio.create_task(charge(1))
        await context.wait_signal("stop")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "stopped"
        return "paid"

    run = a_run(flow)

    assert run.turn(signal("stop")) == ["signal_received stop", 'completed "stopped"']
    assert run.last.resolved == (1,)


def test_wait_for_the_first_completed() -> None:
    async def flow() -> list[int]:
        tasks = [asyncio.create_task(charge(cents)) for cents in range(20)]
        ready, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:  # a set: its order must replay too
            task.cancel()
            await refund(int(task.get_name().removeprefix("Task-")))
        return [task.result() for task in ready]

    run = a_run(flow)
    run.turn(done(3, 30))

    for _ in range(10):
        assert run.replayed().open_activities == run.machine.open_activities
    for command_id in range(21, 40):
        run.turn(done(command_id))
    assert run.outcome == [30]


def test_wait_for_the_first_exception() -> None:
    async def flow() -> list[int]:
        tasks = [asyncio.create_task(charge(cents)) for cents in (1, 2, 3)]
        ready, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        return [len(ready), len(pending)]

    run = a_run(flow)

    assert run.turn(done(1)) == ["activity_completed 1 0"]
    assert run.turn(broken(3, ValueError("no")))[-1] == "completed [2,1]"


def test_futures_in_sets_have_an_order_that_replays() -> None:
    async def flow() -> list[int]:
        shielded = [asyncio.shield(asyncio.create_task(charge(cents))) for cents in range(20)]
        ready, _ = await asyncio.wait(shielded)
        return [future.result() for future in ready]

    run = a_run(flow)
    run.turn(*(done(command_id, command_id) for command_id in range(1, 21)))
    others = [run.replayed() for _ in range(10)]  # another order would be another result, and so a drift

    assert {other.outcome for other in others} == {run.last.outcome}


def test_wait_gives_up_after_its_timeout_and_cancels_nothing() -> None:
    async def flow() -> list[int]:
        tasks = [asyncio.create_task(charge(1))]
        ready, pending = await asyncio.wait(tasks, timeout=5)
        return [len(ready), len(pending), await tasks[0]]

    run = a_run(flow)
    run.turn(after=5)
    run.turn(done(2, 10)) if 2 in run.machine.open_activities else run.turn(done(1, 10))

    assert run.outcome == [0, 1, 10]


@pytest.mark.parametrize("kind", [list, tuple, "tasks"])
def test_as_completed_starts_in_order_and_yields_as_answered(kind: object) -> None:
    # It makes a set of the coroutines before it starts them.
    async def both(cents: int) -> int:
        await ping()
        return await charge(cents)

    async def flow() -> list[int]:
        coroutines = [both(cents) for cents in range(20)]
        given = [asyncio.create_task(one) for one in coroutines] if kind == "tasks" else kind(coroutines)  # type: ignore[operator]
        return [await earliest for earliest in asyncio.as_completed(given)]

    run = a_run(flow)
    run.turn(*(done(command_id) for command_id in range(1, 21)))

    assert run.scheduled == [f'{21 + cents} charge {{"cents":{cents}}}' for cents in range(20)]
    run.turn(*(done(command_id, command_id) for command_id in range(40, 20, -1)))
    assert run.outcome == list(range(40, 20, -1))


def test_as_completed_of_activities_can_time_out() -> None:
    async def flow() -> list[object]:
        seen: list[object] = []
        try:
            for earliest in asyncio.as_completed([charge(1), charge(1), charge(2)], timeout=5):
                seen.append(await earliest)
        except TimeoutError:
            seen.append("late")
        return seen

    run = a_run(flow)
    run.turn(done(3, 30))
    run.turn(after=5)

    assert run.outcome == [30, "late"]


def test_as_completed_takes_the_same_coroutine_twice_for_one() -> None:
    async def flow() -> list[int]:
        twice = charge(1)
        return [await earliest for earliest in asyncio.as_completed([twice, charge(2), twice])]

    run = a_run(flow)
    run.turn(done(2, 20), done(1, 10))

    assert run.outcome == [20, 10]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("kind", [set, iter])
def test_as_completed_refuses_what_has_no_order(kind: type) -> None:
    async def flow() -> list[int]:
        try:
            return [await earliest for earliest in asyncio.as_completed(kind([charge(1), charge(2)]))]
        except BaseException:
            return []

    run = a_run(flow)

    assert run.reason.startswith("asyncio.as_completed starts what it is given in the order of a set")
    assert "test_asyncio.py" in run.reason
    gc.collect()  # what was never started says so once it is collected: here, where it is expected


def test_shield_keeps_an_activity_alive() -> None:
    async def flow() -> int:
        task = asyncio.create_task(charge(1))
        try:
            await asyncio.wait_for(asyncio.shield(task), 5)
        except TimeoutError:
            return await task
        return 0

    run = a_run(flow)
    run.turn(after=5)

    assert run.machine.open_activities == {1}
    assert run.turn(done(1, 10))[-1] == "completed 10"


def test_events_wake_all_who_wait() -> None:
    async def flow() -> list[str]:
        event, woken = asyncio.Event(), list[str]()

        async def wait(name: str) -> None:
            await event.wait()
            woken.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(wait("a"))
            group.create_task(wait("b"))
            await charge(1)
            event.set()
        return woken

    run = a_run(flow)
    run.turn(done(1))

    assert run.outcome == ["a", "b"]


def test_a_lock_is_given_in_the_order_of_asking() -> None:
    async def flow() -> list[int]:
        lock, order = asyncio.Lock(), list[int]()

        async def alone(cents: int) -> None:
            async with lock:
                await charge(cents)
                order.append(cents)

        await asyncio.gather(alone(1), alone(2), alone(3))
        return order

    run = a_run(flow)

    for command_id in (1, 2, 3):
        assert run.scheduled == [f'{command_id} charge {{"cents":{command_id}}}']
        run.turn(done(command_id))
    assert run.outcome == [1, 2, 3]


def test_a_condition_is_notified() -> None:
    async def flow() -> int:
        condition, paid = asyncio.Condition(), list[int]()

        async def pay(cents: int) -> None:
            paid.append(await charge(cents))
            async with condition:
                condition.notify_all()

        async with asyncio.TaskGroup() as group:
            for cents in (1, 2):
                group.create_task(pay(cents))
            async with condition:
                await condition.wait_for(lambda: len(paid) == 2)
        return sum(paid)

    run = a_run(flow)
    run.turn(done(1, 10))
    run.turn(done(2, 20))

    assert run.outcome == 30


def test_a_semaphore_bounds_what_runs_at_once() -> None:
    async def flow() -> int:
        semaphore = asyncio.Semaphore(2)

        async def bounded(cents: int) -> int:
            async with semaphore:
                return await charge(cents)

        return sum(await asyncio.gather(*(bounded(cents) for cents in range(4))))

    run = a_run(flow)

    assert len(run.last.scheduled) == 2
    run.turn(done(2, 1))
    assert len(run.machine.open_activities) == 2
    run.turn(done(1, 1), done(3, 1))
    run.turn(done(4, 1))
    assert run.outcome == 4


def test_a_queue_hands_work_to_workers() -> None:
    async def flow() -> list[int]:
        queue, paid = asyncio.Queue[int](maxsize=1), list[int]()

        async def worker() -> None:
            while True:
                paid.append(await charge(await queue.get()))
                queue.task_done()

        workers = [asyncio.create_task(worker()) for _ in range(2)]
        for cents in range(4):
            await queue.put(cents)
        await queue.join()
        for each in workers:
            each.cancel()
        return paid

    run = a_run(flow)
    while run.last.outcome is None:
        newest = max(run.machine.open_activities)
        run.turn(done(newest, newest))

    assert run.outcome == [2, 3, 4, 1]


def test_an_async_generator_may_await_activities() -> None:
    async def flow() -> list[int]:
        cleaned: list[int] = []

        async def pages() -> object:
            try:
                for cents in range(3):
                    yield await charge(cents)
            finally:
                cleaned.append(await charge(99))

        paid = []
        async for page in pages():  # type: ignore[attr-defined]
            paid.append(page)
        return paid + cleaned

    run = a_run(flow)
    for command_id in (1, 2, 3, 4):
        run.turn(done(command_id, command_id * 10))

    assert run.outcome == [10, 20, 30, 40]


def test_a_callback_of_the_loop_is_a_durable_timer_too() -> None:
    async def flow() -> str:
        future = asyncio.get_running_loop().create_future()
        handle = asyncio.get_running_loop().call_later(5, future.set_result, "called")
        asyncio.get_running_loop().call_later(9, print, "never").cancel()
        answer: str = await future
        handle.cancel()  # harmless: it has run
        return answer

    run = a_run(flow)

    assert run.events == ["started", "timer_started 1 +5", "timer_started 2 +9"]
    assert run.turn(after=5) == ["timer_fired 1", 'completed "called"']


def test_an_error_in_a_callback_is_nobody_s() -> None:
    async def flow() -> str:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "unharmed"

    assert a_run(flow).outcome == "unharmed"


def test_a_cancelled_callback_does_not_run() -> None:
    async def flow() -> list[str]:
        said: list[str] = []
        asyncio.get_running_loop().call_soon(said.append, "no").cancel()
        await asyncio.sleep(0)
        return said

    assert a_run(flow).outcome == []


# --- all of it at once ------------------------------------------------------------------------------------------------


async def a_plant(workers: int, parts: int) -> list[str]:
    """Workers on a queue, behind a barrier, with a semaphore, a lock and a condition that somebody waits for."""
    said: list[str] = []
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    barrier, few, alone = asyncio.Barrier(workers), asyncio.Semaphore(2), asyncio.Lock()
    progress, half = asyncio.Condition(), asyncio.Event()

    async def produce() -> None:
        for part in (*range(parts), *[-1] * workers):
            await queue.put(part)

    async def work(name: int) -> None:
        await barrier.wait()
        while (part := await queue.get()) >= 0:
            try:
                async with few, asyncio.timeout(3):
                    made = await charge(part)
            except TimeoutError:
                made = -1
            async with alone:
                said.append(f"{name}: {part} {made}")
            async with progress:
                progress.notify_all()

    async def watch() -> None:
        async with progress:
            await progress.wait_for(lambda: len(said) >= parts // 2)
        half.set()

    async with asyncio.TaskGroup() as group:
        for doing in (produce(), watch(), *map(work, range(workers))):
            group.create_task(doing)
        await half.wait()
        said.append("half")
    return said


@pytest.mark.parametrize("seed", range(10))
def test_workers_that_meet_in_every_way_replay_at_every_cut(seed: int) -> None:
    draw = Random(seed)
    run = a_run(a_plant, 3, 6)

    while run.last.outcome is None:
        waiting = sorted(run.machine.open_activities)
        some = draw.sample(waiting, draw.randint(0, len(waiting)))
        run.turn(*(done(number, number) for number in some), after=draw.choice([0.5, 1, 2]))

    said = run.outcome
    assert isinstance(said, list)
    assert (len(said), said.count("half")) == (7, 1)


def test_generators_that_are_left_early_close_as_they_did() -> None:
    async def flow() -> list[object]:
        said: list[object] = []

        async def parts() -> AsyncGenerator[int]:
            try:
                for part in range(3):
                    yield await charge(part)
            finally:
                said.append(await charge(9))

        async with contextlib.aclosing(parts()) as made:
            async for part in made:
                said.append(part)
                break
        async for part in parts():
            said.append(part)
        return said

    run = a_run(flow)
    for number in range(1, 7):
        run.turn(done(number, number))
    assert run.outcome == [1, 2, 3, 4, 5, 6]
