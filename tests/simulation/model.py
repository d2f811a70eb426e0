"""What may come of a script: it runs no code of the library, it reads histories and says which words they allow."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from uuid import UUID, uuid5

from continuum.model.events import Event, EventType
from continuum.model.states import RunState
from tests.simulation import kin
from tests.simulation.workflows import FAILED, LATE, LOST

ChildOf = Callable[[str], tuple[RunState, bytes | None] | None]
"""How the run with an id ended, and its last payload; None: there is no such run."""


def without_carried(generations: Sequence[Sequence[Event]]) -> list[Event]:
    """Return one history of all generations: what was only handed on stands where it first came in."""
    events: list[Event] = []
    seen: set[str] = set()
    for history in generations:
        for event in history:
            if event.type is EventType.SIGNAL_RECEIVED and event.message_id is not None:
                if event.message_id in seen:
                    continue
                seen.add(event.message_id)
            events.append(event)
    return events


class Facts:
    """What a history says that the results depend on, each told once."""

    def __init__(self, run_id: str, generations: Sequence[Sequence[Event]], child_of: ChildOf) -> None:
        history = without_carried(generations)
        self._run_id = run_id
        self._child_of = child_of
        self._unkeyed = _unkeyed(run_id, generations)
        self.failures = sum(event.type is EventType.ACTIVITY_FAILED for event in history)
        self._values = [_value(event) for event in history if event.type is EventType.SIDE_EFFECT_RECORDED]
        self._signals: dict[str, list[str]] = {}
        for event in history:
            if event.type is EventType.SIGNAL_RECEIVED:
                self._signals.setdefault(event.name or "", []).append(str(_value(event)))

    def effect(self) -> str:
        """Return the next side effect's value."""
        return str(self._values.pop(0))

    def signal(self, name: str) -> str | None:
        """Return the next signal of a name."""
        queue = self._signals.get(name)
        return queue.pop(0) if queue else None

    def child(self, rest: str, said: int) -> list[str | None]:
        """Return what a script may say of a child: what that came to, as its own row and history have it."""
        key, mode, _ = rest.split(":", 2)
        if mode == "leave":
            return [kin.LEFT]
        words: list[str | None] = [kin.CHILD_LATE] if mode == "brief" else []
        run_id = str(uuid5(UUID(self._run_id), key)) if key else self._unkeyed.get(str(said), "")
        match self._child_of(run_id):
            case (RunState.COMPLETED, bytes(payload)):
                return [*words, ",".join(json.loads(payload))]
            case (RunState.FAILED, _):
                return [*words, kin.CHILD_FAILED]
            case (RunState.CANCELLED, _):
                return [*words, kin.CHILD_CANCELLED]
            case _:
                return words


def _unkeyed(run_id: str, generations: Sequence[Sequence[Event]]) -> dict[str, str]:
    """Return the children without a key by the place of their step, which their nonce ends in."""
    children = {}
    for event in (event for history in generations for event in history):
        if event.type is EventType.CHILD_STARTED and event.key is not None and "/" in event.key:
            nonce = json.loads(event.payload or b"{}")["nonce"]
            children[nonce.rpartition(".")[2]] = str(uuid5(UUID(run_id), event.key))
    return children


def _value(event: Event) -> object:
    return json.loads(event.payload or b"null")


def explain(steps: Sequence[str], words: Sequence[str], facts: Facts) -> str | None:
    """Return what is wrong with a completed run's result, or None."""
    if "raise" in steps:
        return "it must have failed"
    if len(words) != len(steps):
        return f"{len(words)} words for {len(steps)} steps"
    for said, (step, word) in enumerate(zip(steps, words, strict=True)):
        allowed = _allowed(step, word, said, facts)
        if word not in allowed:
            return f"step {step} gave {word!r}, allowed are {allowed}"
    return None


def _allowed(step: str, word: str, said: int, facts: Facts) -> list[str | None]:
    kind, _, rest = step.partition(":")
    arguments = rest.split(":") if rest else []
    match kind:
        case "child":
            return [*facts.child(rest, said), *_failed(facts)]
        case "next":
            return [kin.NEXT]
        case "tell" | "kill":
            return [kin.TOLD, kin.NOBODY]
        case "book" | "hold" | "drop":
            return ["booked" if kind == "book" else "held", *([kin.GONE] if kind == "drop" else []), *_failed(facts)]
        case "undo":
            return [kin.UNDONE, kin.NOTHING, *_failed(facts)]
        case "saga":
            return [kin.SAGA]
        case "nap":
            return ["nap"]
        case "effect":
            return [facts.effect()]
        case "hear":
            return [LATE] if word == LATE and len(arguments) > 1 else [facts.signal(arguments[0])]
        case "both":
            return [f"{facts.signal(arguments[0])},2", *_failed(facts)]
        case "either":
            return [word if word in {"2", *_failed(facts)} else facts.signal(arguments[0])]
        case "group" | "doomed" | "brief":
            return [FAILED]
        case "race":
            return ["2", LOST, *_failed(facts)]
        case "fan":
            return [",".join(str(number + 1) for number in range(int(arguments[0]))), *_failed(facts)]
        case "flaky":
            return ["flaky", *_failed(facts)]
        case "beating":
            return [f"beaten {arguments[0]}", *_failed(facts)]
        case _:
            return ["2", *_failed(facts)]


def _failed(facts: Facts) -> list[str | None]:
    return [FAILED] if facts.failures else []
