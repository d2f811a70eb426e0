"""A run that was inserted for whoever claims it begins when its first turn does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import continuum
from continuum.definitions.catalog import scoped_catalog
from continuum.definitions.workflow import workflow
from continuum.model.events import PENDING, Answer, Event, EventType
from continuum.replay.machine import Machine
from continuum.replay.turns import Completed
from tests.unit.replay.builders import START, an_info

LATER = START + timedelta(days=1)
STARTED = Event(1, EventType.STARTED, START, name="test.flow", payload=b"{}", key=PENDING)


async def waits() -> str:
    """Sleep a minute and tell when that began."""
    begun = continuum.now()
    await asyncio.sleep(60)
    return begun.isoformat()


async def listens() -> int:
    """Wait for a number."""
    return await continuum.wait_signal("go", int)


def a_machine(flow: Callable[[], Coroutine[Any, Any, Any]] = waits) -> Machine:
    with scoped_catalog():
        return Machine(workflow(flow), an_info())


def test_its_time_begins_with_its_first_turn() -> None:
    machine = a_machine()
    machine.replay([STARTED])
    assert not machine.has_more
    turn = machine.turn([], LATER)
    assert [(event.seq, event.type) for event in turn.events] == [(2, EventType.BEGUN), (3, EventType.TIMER_STARTED)]
    assert turn.deadline == LATER + timedelta(seconds=60)
    machine.close()


def test_it_replays_as_it_was_begun() -> None:
    machine = a_machine()
    machine.replay([STARTED])
    events = [STARTED, *machine.turn([], LATER).events]
    machine.close()

    again = a_machine()
    again.replay(events)
    turn = again.turn([], LATER + timedelta(seconds=60))
    assert turn.outcome == Completed(f'"{LATER.isoformat()}"'.encode())
    again.close()


def test_a_signal_that_came_before_it_began_is_delivered_after() -> None:
    machine = a_machine(listens)
    machine.replay([STARTED])
    turn = machine.turn([Answer(EventType.SIGNAL_RECEIVED, name="go", payload=b"7")], LATER)
    assert [event.type for event in turn.events] == [
        EventType.BEGUN,
        EventType.SIGNAL_RECEIVED,
        EventType.COMPLETED,
    ]
    assert turn.outcome == Completed(b"7")
    machine.close()
