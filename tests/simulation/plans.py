"""What clients will ask for, drawn from the seed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from random import Random
from uuid import UUID

from tests.simulation.world import LEASE_TTL

STORY_SECONDS = 20.0  # in which everything is asked for, and everything goes wrong
SIGNALS = ("note", "ping")
MODES = ("wait", "wait", "wait", "leave", "signal", "cancel", "undo", "brief")  # what a parent does with a child
DEPTH_MAX = 2  # children have children, but no grandchildren


@dataclass(frozen=True, slots=True)
class Late:
    """A host's transaction that a verb takes part in: how long it goes on after that, and how it ends."""

    seconds: float
    commits: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """One to be sent: again and again with the same delivery id, if it has one."""

    at: float
    name: str
    delivery_id: str | None
    times: int
    late: Late | None = None


@dataclass(slots=True)
class Run:
    """A run as a client plans it, and what it was told about it."""

    nonce: str
    steps: list[str]
    at: float
    key: str | None
    delay: float | None  # of `start_at`
    chosen: str | None = None  # its id, if the client chooses it
    signals: list[Signal] = field(default_factory=list)
    cancel_at: float | None = None
    undoes: bool = False  # its cancel compensates
    awaiters: int = 0
    run_id: str | None = None
    late: Late | None = None
    cancel_late: Late | None = None


def stories_of(seed: int) -> list[list[Run]]:
    """Draw the runs of a seed: most are started alone, some together."""
    draw = Random(f"{seed}/story")
    chosen: list[str] = []  # run ids that scripts may know of
    runs = [_run(draw, f"n{number}", chosen) for number in range(draw.randint(3, 10))]
    if draw.random() < 0.5:  # somebody asks for the same with the same key
        twin = next((run for run in runs if run.key is not None), None)
        if twin is not None:
            runs.append(Run(twin.nonce, twin.steps, draw.uniform(0, STORY_SECONDS / 2), twin.key, twin.delay))
    together = [_run(draw, f"m{number}", chosen) for number in range(draw.randint(2, 4))] if draw.random() < 0.3 else []
    return [*([run] for run in runs), *([together] if together else []), *([run] for run in _hosted(seed))]


def _hosted(seed: int) -> list[Run]:
    """Draw what hosts ask for in transactions of their own: in every other seed, from a sequence of its own."""
    draw = Random(f"{seed}/hosts")
    runs = []
    for number in range(draw.choice((0, 0, 1, 2, 3))):
        run = _run(draw, f"h{number}", [])
        run.key = run.chosen = None
        run.late, run.cancel_late = _late(draw, 0.7), _late(draw, 0.5)
        run.signals = [
            replace(signal, late=_late(draw, 0.6), delivery_id=None, times=1) if signal.delivery_id is None else signal
            for signal in run.signals
        ]
        runs.append(run)
    return runs


def _late(draw: Random, share: float) -> Late | None:
    late = Late(draw.choice((0.0, draw.uniform(0, 1), draw.uniform(0, 8))), draw.random() < 0.75)
    return late if draw.random() < share else None


def _run(draw: Random, nonce: str, chosen: list[str]) -> Run:
    run = Run(
        nonce=nonce,
        steps=_script(draw, chosen),
        at=draw.uniform(0, STORY_SECONDS * 0.7),
        key=f"key-{nonce}" if draw.random() < 0.3 else None,
        delay=draw.uniform(0.1, 6.0) if draw.random() < 0.15 else None,
        chosen=str(UUID(int=draw.getrandbits(128), version=4)) if draw.random() < 0.3 else None,
        cancel_at=draw.uniform(0, STORY_SECONDS / 2) if draw.random() < 0.25 else None,
        undoes=draw.random() < 0.6,
        awaiters=draw.choice((0, 1, 1, 2)),
    )
    if run.key is not None:
        run.chosen = None
    if run.chosen is not None:
        chosen.append(run.chosen)
    for number in range(draw.choice((0, 1, 2, 4, 6))):
        is_named = draw.random() < 0.4
        run.signals.append(
            Signal(
                at=draw.uniform(0, STORY_SECONDS * draw.choice((0.05, 0.5))),
                name=draw.choice(SIGNALS),
                delivery_id=f"d{number}" if is_named else None,
                times=draw.randint(1, 3) if is_named else 1,
            )
        )
    return run


def _script(draw: Random, chosen: list[str], *, depth: int = 0) -> list[str]:
    """Draw a script: of single effects, of families, of generations that ask for the same again, of debts."""
    steps = [_step(draw) for _ in range(draw.randint(1, 4 - depth))]
    mood = draw.random()
    if mood < 0.45:
        steps += _family(draw, chosen, depth)
    if 0.3 < mood < 0.65:
        steps += _debts(draw)
    if chosen and draw.random() < 0.2:
        run_id = draw.choice(chosen)
        steps.append(f"tell:{run_id}:{draw.choice(SIGNALS)}" if draw.random() < 0.7 else f"kill:{run_id}:{_how(draw)}")
    if mood < 0.8:
        draw.shuffle(steps)
        for _ in range(draw.choice((0, 0, 1, 1, 2))):
            steps.insert(draw.randint(1, len(steps)), draw.choice(("next:", "next:open")))
    if draw.random() < 0.15:  # the same command in one generation after the other, and the result of none but its own
        steps += ["next:open", "next:open", "book:0.5"]
    return steps


def _family(draw: Random, chosen: list[str], depth: int) -> list[str]:
    if depth >= DEPTH_MAX:
        return []
    scripts = {key: json.dumps(_script(draw, chosen, depth=depth + 1)) for key in ("", "a", "b")[: 3 - depth]}
    keys = [draw.choice(("", "a", "a", "b")[: 4 - depth]) for _ in range(draw.randint(1, 3 - depth))]
    return [f"child:{key}:{draw.choice(MODES)}:{scripts[key]}" for key in keys]


def _debts(draw: Random) -> list[str]:
    seconds = f"{draw.uniform(0.05, 1.0):.2f}"
    kinds = ("book", "book", "hold", "drop", "saga", "undo")
    rest = {"saga": "2", "undo": draw.choice(("one", "all", "parallel"))}
    return [f"{kind}:{rest.get(kind, seconds)}" for kind in draw.choices(kinds, k=draw.randint(1, 4))]


def _how(draw: Random) -> str:
    return draw.choice(("cancel", "undo"))


def _step(draw: Random) -> str:
    seconds = f"{draw.uniform(0.05, 2.5):.2f}"
    return draw.choice(
        (
            f"add:{seconds}",
            f"add:{LEASE_TTL * 1.5}",
            f"frail:{seconds}",
            f"flaky:{draw.randint(1, 3)}",
            "doomed",
            "brief",
            f"beating:{draw.randint(1, 12)}",
            f"nap:{seconds}",
            f"nap:{LEASE_TTL * 1.2}",
            f"fan:{draw.randint(1, 6)}",
            f"group:{draw.randint(1, 4)}",
            f"race:{seconds}",
            f"hear:{draw.choice(SIGNALS)}",
            f"both:{draw.choice(SIGNALS)}",
            f"either:{draw.choice(SIGNALS)}:{seconds}",
            f"hear:{draw.choice(SIGNALS)}:{seconds}",
            f"hear:{draw.choice(SIGNALS)}:{seconds}",
            "effect",
            "effect",
            "raise" if draw.random() < 0.2 else "effect",
        )
    )
