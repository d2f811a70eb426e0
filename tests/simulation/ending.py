"""The last look, when all is quiet: at the tables, at what nodes keep in memory, at every result."""

from __future__ import annotations

from collections.abc import Sequence

from continuum.journal.memory import MemoryStore
from continuum.model.events import Event, EventType
from continuum.model.failure import Failure
from continuum.model.runs import RunRow
from continuum.model.states import RunState
from continuum.replay.machine import Machine
from continuum.replay.turns import RunInfo
from tests.simulation.checker import Checker
from tests.simulation.debts import look_at_debts, was_undone
from tests.simulation.model import Facts, explain
from tests.simulation.payments import look_at_books
from tests.simulation.plans import Run
from tests.simulation.workflows import script, ticks
from tests.simulation.world import Node


def look_at_the_end(
    checker: Checker, store: MemoryStore, stories: Sequence[Sequence[Run]], nodes: Sequence[Node], gone: Sequence[Node]
) -> None:
    """Check what holds once every run has ended."""
    checker.look_at_the_end()
    for node in nodes:
        _look_at_node(checker, node)
    for node in (*gone, *nodes):
        for (key, attempt), times in node.begun.items():
            checker.expect(times == 1, f"{node.label} began attempt {attempt} of {key} {times} times")
    started: dict[str, str] = {}
    for row in store.runs.values():
        generations = [
            [stored.event for stored in store.events[row.run_id, generation]]
            for generation in range(1, row.generation + 1)
        ]
        if row.workflow == ticks.name:
            _look_at_tick(checker, row, generations[0])
            continue
        arguments = script.signature.parameters.decode(generations[0][0].payload or b"{}")
        nonce = arguments["nonce"]
        checker.expect(nonce not in started, f"{nonce} was started twice: {started.get(nonce)}, {row.run_id}")
        started[nonce] = row.run_id
        _look_at_result(checker, store, row, arguments["steps"], generations)
        look_at_debts(row, generations, checker.violate)
        look_at_books(checker.books, row, generations, checker.violate)
        for number, history in enumerate(generations, start=1):
            _replay(checker, row, number, history)
    for runs in stories:
        present = [run.nonce for run in runs if run.nonce in started]
        checker.expect(len(present) in {0, len(runs)}, f"of what was started together, there is {present}")


def _look_at_tick(checker: Checker, row: RunRow, history: Sequence[Event]) -> None:
    if row.state is RunState.COMPLETED:
        given = ticks.signature.parameters.decode(history[0].payload or b"{}")
        expected = f"{given['schedule_id']} at {given['moment'].isoformat()}"
        said = ticks.signature.result.decode(history[-1].payload or b"null")
        checker.expect(said == expected, f"{row.run_id} of a schedule said {said}, not {expected}")
    checker.expect(row.state is not RunState.FAILED, f"{row.run_id} of a schedule failed")
    _replay(checker, row, 1, history)


def _look_at_node(checker: Checker, node: Node) -> None:
    parts, expect = node.wiring, checker.expect
    expect(not len(parts.registry), f"{node.label} keeps executions: {parts.registry.run_ids}")
    expect(not parts.attempts.running, f"{node.label} keeps attempts")
    expect(not parts.attempts._known, f"{node.label} remembers attempts: {list(parts.attempts._known)[:3]}")
    expect(parts.attempts._taken_in_all == 0, f"{node.label} lost slots: {parts.attempts._taken}")
    expect(not parts.committer.in_flight, f"{node.label} has writes in flight")
    expect(not parts.awaiting.waiters, f"{node.label} keeps waiters")


def _look_at_result(
    checker: Checker, store: MemoryStore, row: RunRow, steps: Sequence[str], generations: Sequence[Sequence[Event]]
) -> None:
    payload = generations[-1][-1].payload
    if row.state is RunState.COMPLETED:
        words = script.signature.result.decode(payload or b"null")
        wrong = explain(steps, words, Facts(row.run_id, generations, lambda run_id: _ending(store, run_id)))
        checker.expect(wrong is None, f"the result of {row.run_id}: {wrong}: {words} of {steps}")
    elif row.state is RunState.FAILED:
        failure = Failure.decode(payload or b"{}")
        checker.expect("raise" in steps, f"{row.run_id} failed: {failure.type}: {failure.message}")


def _ending(store: MemoryStore, run_id: str) -> tuple[RunState, bytes | None] | None:
    row = store.runs.get(run_id)
    last = None if row is None else store.event_at(run_id, row.generation, row.last_seq)
    return None if row is None else (row.state, None if last is None else last.event.payload)


def _replay(checker: Checker, row: RunRow, generation: int, history: Sequence[Event]) -> None:
    """Let the code meet the whole history once more: it must come to the same end."""
    if history[-1].type is EventType.CANCELLED and not was_undone(history):
        return  # by no code
    facts = RunInfo(
        row.run_id, row.workflow, row.version, generation, row.namespace, "", row.created_at, row.parent_id, row.depth
    )
    machine = Machine(script if row.workflow == script.name else ticks, facts)
    try:
        machine.replay(history)
        checker.expect(machine.outcome is not None, f"{row.run_id}/{generation} does not end when it is replayed")
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        checker.violate(f"{row.run_id}/{generation} cannot be replayed: {error}")
    finally:
        machine.close()
