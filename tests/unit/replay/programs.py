"""Random workflows: small programs of effects, interpreted by one workflow; and answers in a random order.

Run as a module, it reads programs with seeds, one JSON line each, and prints digests of their histories: the same in
every process, whatever its hash seed.
"""

import asyncio
import hashlib
import json
import sys
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies as st

from continuum.definitions.activity import activity
from continuum.definitions.workflow import workflow
from continuum.errors import ActivityFailed, SideEffectFailed, SignalTimedOut
from continuum.model.events import Answer, EventType
from continuum.model.failure import failure_of
from continuum.replay import context
from continuum.replay.turns import Failed, Turn
from tests.unit.replay.builders import ARun, done, lines, signal

SIGNALS = ("red", "green")

# A program is a list of steps, a step a list: [name, argument, …]; JSON, so that it can be a workflow's input.
leaves = st.one_of(
    st.tuples(st.just("act"), st.integers(0, 9)),
    st.tuples(st.just("risky"), st.integers(0, 9)),
    st.tuples(st.just("sleep"), st.sampled_from([0, 1, 5, 5, 30])),
    st.tuples(st.just("wait"), st.sampled_from(SIGNALS)),
    st.tuples(st.just("wait at most"), st.sampled_from(SIGNALS), st.sampled_from([1, 5, 30])),
    st.tuples(st.just("effect"), st.integers(0, 9)),
    st.tuples(st.just("broken effect")),
    st.tuples(st.just("draw")),
    st.tuples(st.just("withdraw"), st.integers(0, 9)),
)


def nested(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(steps, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("gather"), several),
        st.tuples(st.just("group"), several),
        st.tuples(st.just("first of"), several),
        st.tuples(st.just("as completed"), several),
        st.tuples(st.just("at most"), st.sampled_from([1, 5, 30]), several),
        st.tuples(st.just("if"), several, several),
        st.tuples(st.just("fail"), several),
    )


programs = st.lists(st.recursive(leaves, nested, max_leaves=6), min_size=1, max_size=5)


@activity(name="programs.act")
async def act(number: int) -> int:
    raise AssertionError("workflow tests perform no activity")


performed: list[int] = []


def perform(number: int) -> int:
    """The effect of a side effect: another value wherever it happens, and a note that it did."""
    machine = context.current_machine()
    assert machine is not None
    performed.append(machine.last_seq)
    return number + 1_000 * machine.last_seq


class Unlucky(Exception):
    """What a program fails with."""


@workflow(name="interpret", allow=("wait-order",))
async def interpret(program: list[Any]) -> list[Any]:
    return await run_all(program)


async def run_all(steps: list[Any]) -> list[Any]:
    return [await run_one(step) for step in steps]


async def run_one(step: list[Any]) -> Any:
    match step:
        case ["act", number]:
            return await act(number)
        case ["risky", number]:
            try:
                return await act(number)
            except ActivityFailed as error:
                return [error.type, await act(-number)]
        case ["sleep", seconds]:
            await asyncio.sleep(seconds)
            return context.now().isoformat()
        case ["wait", name]:
            return await context.wait_signal(name, int)
        case ["wait at most", name, seconds]:
            try:
                return await context.wait_signal(name, int, timeout=seconds)
            except SignalTimedOut:
                return "no signal"
        case ["effect", number]:
            return await context.side_effect(lambda: perform(number))
        case ["broken effect"]:
            try:
                return await context.side_effect(lambda: 1 / (perform(0) % 2))
            except SideEffectFailed as error:
                return str(error)
        case ["draw"]:
            return [context.random().random(), str(context.uuid4()), context.today().isoformat()]
        case ["withdraw", number]:
            task = asyncio.create_task(act(number))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, act(number), return_exceptions=True)
            return "withdrawn"
        case ["gather", steps]:
            return [str(value) for value in await asyncio.gather(*map(run_one, steps), return_exceptions=True)]
        case ["group", steps]:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(run_one(each)) for each in steps]
            except ExceptionGroup as errors:
                return [type(error).__name__ for error in errors.exceptions]
            return [task.result() for task in tasks]
        case ["first of", steps]:
            tasks = [asyncio.create_task(run_one(each)) for each in steps]
            ready, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            return [str(task.exception() or task.result()) for task in ready]
        case ["as completed", steps]:
            seen: list[Any] = []
            for earliest in asyncio.as_completed([run_one(each) for each in steps]):
                try:
                    seen.append(await earliest)
                except ActivityFailed as error:
                    seen.append(error.type)
            return seen
        case ["at most", seconds, steps]:
            try:
                async with asyncio.timeout(seconds):
                    return await run_all(steps)
            except TimeoutError:
                return "too late"
        case ["if", steps, others]:
            return await run_all(steps if await act(0) % 2 else others)
        case ["fail", steps]:
            raise Unlucky(await run_all(steps))
        case _:
            raise AssertionError(step)


@dataclass(frozen=True)
class Move:
    """What happened before one turn: time passed, answers arrived."""

    after: float
    answers: tuple[Answer, ...]


TIMES = [0.0, 0.0, 0.5, 3.0, 40.0]


class Scheduler:
    """The world: answers what is open, in any order, sends signals, lets time pass."""

    def __init__(self, seed: int, times: list[float]) -> None:
        self.draw = Random(seed)
        self.times = times

    def move(self, run: ARun) -> Move:
        answers: list[Answer] = []
        open_ones = sorted(run.machine.open_activities)
        for command_id in self.draw.sample(open_ones, self.draw.randint(0, min(3, len(open_ones)))):
            answers.append(self.answer(command_id))  # noqa: PERF401  # with the others below
        while self.draw.random() < 0.4:
            answers.append(signal(self.draw.choice(SIGNALS), self.draw.randrange(100)))
        if self.draw.random() < 0.1:
            answers.append(done(self.draw.randrange(1, 9)))  # late, double, or to nobody
        self.draw.shuffle(answers)
        return Move(self.draw.choice(self.times), tuple(answers))

    def answer(self, command_id: int) -> Answer:
        if self.draw.random() < 0.15:
            failure = failure_of(self.draw.choice([ValueError("no"), KeyError("no"), TypeError("no")]))
            return Answer(EventType.ACTIVITY_FAILED, command_id, payload=failure.encode())
        return done(command_id, self.draw.randrange(10))


TURNS_MAX = 40


def drive(program: Any, seed: int, *, passing_time: bool = True) -> tuple[ARun, list[Move], list[Turn]]:
    """Run a program against a world until it ends, or for a while."""
    run, world = ARun(interpret, program, alone=True), Scheduler(seed, TIMES if passing_time else [0.0])
    moves: list[Move] = []
    turns = [run.last]
    while run.last.outcome is None and len(moves) < TURNS_MAX:
        moves.append(world.move(run))
        run.turn(*moves[-1].answers, after=moves[-1].after)
        turns.append(run.last)
    return run, moves, turns


def digest(run: ARun) -> str:
    outcome = run.last.outcome
    told = f"{outcome.failure.type} {outcome.failure.message}" if isinstance(outcome, Failed) else repr(outcome)
    return hashlib.sha256("\n".join([*lines(run.history), told]).encode()).hexdigest()


if __name__ == "__main__":
    for line in sys.stdin:
        asked, its_seed = json.loads(line)
        finished = drive(asked, its_seed)[0]
        finished.machine.close()
        sys.stdout.write(digest(finished) + "\n")
