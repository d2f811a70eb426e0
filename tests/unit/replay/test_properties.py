"""For random workflows and every cut at a turn: who only knows the history goes on as if nothing had happened."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from continuum.model.events import Event
from continuum.model.packing import pack_history, unpack_history
from continuum.replay.machine import Machine
from continuum.replay.turns import Turn
from tests.unit.replay.builders import START, ARun, an_info, state_of
from tests.unit.replay.programs import Move, digest, drive, interpret, performed, programs

EXAMPLES = 200
quick = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32)


def resume(history: list[Event], moves: list[Move], at: datetime) -> tuple[Machine, list[Turn]]:
    """Replay a history from nothing and make the remaining moves."""
    machine, turns = Machine(interpret, an_info()), list[Turn]()
    machine.replay(history)
    for move in moves:
        at += timedelta(seconds=move.after)
        turns.append(machine.turn(move.answers, at))
    return machine, turns


@quick
@given(programs, seeds)
def test_resuming_at_any_turn_gives_the_same_ending_and_the_same_commands(program: Any, seed: int) -> None:
    run, moves, turns = drive(program, seed)
    event(f"ended: {type(run.last.outcome).__name__}")
    at = START
    for number, cut in enumerate(run.cuts):
        machine, others = resume(run.history[:cut], moves[number:], at)
        assert others == turns[number + 1 :]
        assert state_of(machine) == state_of(run.machine)
        machine.close()
        at += timedelta(seconds=moves[number].after if number < len(moves) else 0)
    run.machine.close()


# P64
@settings(quick, max_examples=EXAMPLES // 2)
@given(programs, seeds)
def test_resuming_from_a_snapshot_of_any_beginning_equals_resuming_from_events(program: Any, seed: int) -> None:
    run, moves, turns = drive(program, seed)
    draw = Random(seed)
    number = draw.randrange(len(run.cuts))
    history, packed = run.history[: run.cuts[number]], draw.randint(0, run.cuts[number])
    at = START + timedelta(seconds=sum(move.after for move in moves[:number]))
    loaded = [*unpack_history(pack_history(history[:packed])), *history[packed:]]

    machine, others = resume(loaded, moves[number:], at)

    assert loaded == history
    assert others == turns[number + 1 :]
    assert state_of(machine) == state_of(run.machine)
    machine.close()
    run.machine.close()


@settings(quick, max_examples=EXAMPLES // 2)
@given(programs, seeds)
def test_replay_performs_no_effect_and_has_nothing_to_add(program: Any, seed: int) -> None:
    run = drive(program, seed)[0]
    performed.clear()

    machine = run.replayed()

    assert (performed, machine.unwritten) == ([], 0)
    machine.close()
    run.machine.close()


@settings(quick, max_examples=EXAMPLES // 2)
@given(programs, seeds)
def test_answers_give_the_same_history_in_one_turn_or_in_many(program: Any, seed: int) -> None:
    run, moves, _ = drive(program, seed, passing_time=False)
    other = ARun(interpret, program, alone=True)
    for answer in (answer for move in moves for answer in move.answers):
        other.turn(answer)

    assert other.history == run.history
    run.machine.close()
    other.machine.close()


def test_histories_are_the_same_under_another_hash_seed() -> None:
    asked = [(program, seed) for program in SOME_PROGRAMS for seed in range(5)]
    expected = []
    for program, seed in asked:
        run = drive(program, seed)[0]
        expected.append(digest(run))
        run.machine.close()

    ended = subprocess.run(
        [sys.executable, "-m", "tests.unit.replay.programs"],
        input="".join(json.dumps(each) + "\n" for each in asked),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
    )

    assert ended.stdout.split() == expected
    assert len(set(expected)) > len(SOME_PROGRAMS)


SOME_PROGRAMS = [
    [["gather", [["act", 1], ["risky", 2], ["sleep", 5]]], ["draw"]],
    [["group", [["act", number] for number in range(8)]], ["effect", 3]],
    [["first of", [["act", 1], ["wait", "red"], ["sleep", 5]]], ["act", 4]],
    [["as completed", [["risky", number] for number in range(8)]], ["wait at most", "green", 5]],
    [["at most", 5, [["group", [["act", 1], ["wait", "red"]]]]], ["if", [["draw"]], [["fail", [["act", 1]]]]]],
    [["withdraw", 3], ["broken effect"], ["gather", [["fail", [["act", 1]]], ["act", 2]]]],
]
