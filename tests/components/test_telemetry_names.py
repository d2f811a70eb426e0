"""Every event that is emitted is documented with its keys, the page is up to date, and the hot path asks before it gathers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from continuum.telemetry import EVENTS, MEASUREMENTS, METADATA, Emitter, TelemetryEvent, attach, detach
from tools.print_telemetry import reference

PACKAGE = Path(__file__).resolve().parents[2] / "continuum"
TELLERS = {"emit", "_emit", "hand", "tell"}  # what a name is handed to

TOLD_OF = (["emit", "run"], ["emit", "execution"])  # what stands before the name in `telling.tell`


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def emitted_in(tree: ast.AST) -> Iterator[str]:
    for call in calls(tree):
        arguments = call.args
        if name_of(call.func) in {"partial", "callback"} and arguments and name_of(arguments[0]) in TELLERS:
            arguments = arguments[1:]
        elif name_of(call.func) not in TELLERS | {"self"}:
            continue
        match arguments[2:] if [name_of(one) for one in arguments[:2]] in TOLD_OF else arguments:
            case [ast.Constant(value=str(name)), *_]:
                yield name
            case [ast.JoinedStr(), *_]:
                raise AssertionError(f"a name is put together, where nobody finds it: {ast.unparse(call)}")
            case _:
                pass


def emitted() -> set[str]:
    """Return every name in the code that is handed to an emitter."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if "cli" in path.parts:  # the demo's nodes tell their parent in words of their own
            continue
        for name in emitted_in(ast.parse(path.read_text())):
            found.add(name)
    return found


def test_every_emitted_event_is_documented_and_every_documented_one_is_emitted() -> None:
    assert emitted() == set(EVENTS)


def test_the_telemetry_reference_is_up_to_date() -> None:
    page = PACKAGE.parent / "docs" / "telemetry.md"
    assert page.read_text() == reference(), "run: python -m tools.print_telemetry docs/telemetry.md"


def test_names_are_dotted_and_every_key_is_explained_and_used() -> None:
    measurements: set[str] = set()
    metadata: set[str] = set()
    for name, described in EVENTS.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*", name), name
        assert described.when
        measurements.update(described.measurements, described.measurements_if_known)
        metadata.update(described.metadata, described.metadata_if_known)
    assert (measurements, metadata) == (set(MEASUREMENTS), set(METADATA))


def test_every_event_carries_its_instance() -> None:
    heard: list[TelemetryEvent] = []
    attach(heard.append)
    try:
        Emitter(instance="orders", node="n")("run.started", {"n": 1}, run_id="r")
    finally:
        detach(heard.append)
    assert heard == [TelemetryEvent("run.started", {"n": 1}, {"instance": "orders", "node": "n", "run_id": "r"})]
    makers = [path for path in PACKAGE.rglob("*.py") if "TelemetryEvent(" in path.read_text()]
    assert [path.name for path in makers] == ["emitting.py"]  # so there is no event without


# What runs for every start, turn, commit, attempt and signal. Nothing there may be gathered for an event, nor a function
# be called for one, unless somebody listens.
HOT = {
    "runtime/execution.py": {"begin", "_tasks_of", "_turn", "_commit_turn", "_fly", "_settled", "_landed", "_over", "_effects", "_rest"},
    "runtime/run_supervisor.py": {"start_run", "is_idle", "is_busy", "left"},
    "runtime/activity_supervisor.py": {"begin", "_accepted", "_begin", "returned", "vacated", "settled"},
    "runtime/delivery.py": {"completed", "_answer", "offer", "_nudge"},
    "journal/group/lane.py": {"append", "_gather", "_run", "_next", "_settle"},
    "client/talking.py": {"signal", "_send"},
}  # fmt: skip
FOR_EVENTS = re.compile(r"tell|_tell_.*|emit|_emit|_begins|landed|suspended|resumed|enqueued|facts_of_.*|lasted")
RARE = {"_over": set(), "signal": {"signal.duplicate"}}  # what is told there without asking, for it is rare


def unguarded(tree: ast.AST, *, is_guarded: bool = False) -> Iterator[ast.Call]:
    """Yield the calls for events that stand under no `if ... heard`."""
    if isinstance(tree, ast.If):
        asks = any(isinstance(node, ast.Name) and node.id == "heard" for node in ast.walk(tree.test))
        for part in tree.body:
            yield from unguarded(part, is_guarded=is_guarded or asks)
        for part in tree.orelse:
            yield from unguarded(part, is_guarded=is_guarded)
        return
    if isinstance(tree, ast.Call) and FOR_EVENTS.fullmatch(name_of(tree.func)) and not is_guarded:
        yield tree
    for child in ast.iter_child_nodes(tree):
        yield from unguarded(child, is_guarded=is_guarded)


@pytest.mark.parametrize("module", HOT)
def test_the_hot_path_asks_who_listens_before_anything_is_gathered(module: str) -> None:
    functions = {
        node.name: node
        for node in ast.walk(ast.parse((PACKAGE / module).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for name in HOT[module]:
        found = [call for call in unguarded(functions[name]) if not RARE.get(name, set()) & set(emitted_in(call))]
        assert not found, f"{module}:{found[0].lineno} {ast.unparse(found[0])}"
