"""How fast a history is replayed."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from benchmarks.measuring import Figure
from benchmarks.workflows import ten_steps
from continuum.model.events import Answer, Event, EventType
from continuum.replay.machine import Machine
from continuum.replay.turns import RunInfo

RUNS = 1_000
AT = datetime(2026, 1, 1, tzinfo=UTC)


def _machine() -> Machine:
    return Machine(
        ten_steps, RunInfo("01890000-0000-7000-8000-000000000000", ten_steps.name, 1, 1, "default", "bench", AT)
    )


def _history() -> list[Event]:
    machine = _machine()
    events = list(machine.begin(b'{"n":0}', AT).events)
    for step in range(1, 10):
        answer = Answer(EventType.ACTIVITY_COMPLETED, step, payload=str(step).encode())
        events.extend(machine.turn([answer], AT).events)
    machine.close()
    return events


async def measure(_url: str, *, quick: bool = False) -> list[Figure]:
    """Replay one history many times."""
    history, values = _history(), []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(RUNS // (4 if quick else 1)):
            machine = _machine()
            machine.replay(history)
            machine.close()
        values.append(len(history) * RUNS // (4 if quick else 1) / (time.perf_counter() - begun))
    return [Figure("replay", "events/s", tuple(values), "final target ≥ 100,000")]
