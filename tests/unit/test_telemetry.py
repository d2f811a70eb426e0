"""One event per transition, to whoever listens, harmless to whoever emits."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from continuum.errors import ConfigurationError
from continuum.telemetry import EVENTS, Emitter, TelemetryEvent, attach, detach, emitting, heard

emit = Emitter(instance="billing", node="n1")
SHARED = {"instance": "billing", "node": "n1"}


@pytest.fixture(autouse=True)
def _nobody_listens() -> Iterator[None]:
    yield
    for handler in list(emitting._attached):
        detach(handler)


def test_events_carry_instance_and_node_and_what_they_are_about() -> None:
    seen: list[TelemetryEvent] = []
    attach(seen.append)

    emit("run.started", {"waited_seconds": 1.5}, run_id="r")
    emit("run.completed")

    assert seen == [
        TelemetryEvent("run.started", {"waited_seconds": 1.5}, {**SHARED, "run_id": "r"}),
        TelemetryEvent("run.completed", {}, SHARED),
    ]


def test_only_what_somebody_listens_to_is_heard() -> None:
    def handler(_event: TelemetryEvent) -> None: ...

    known = [dict(heard)]
    attach(handler, ["run.started"])
    known.append(dict(heard))
    detach(handler)
    detach(handler)
    known.append(dict(heard))
    emit("run.started")

    assert known == [{}, {"run.started": (handler,)}, {}]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (["run.started"], {"run.started"}),
        ({"run.started"}, {"run.started"}),
        ("run.started", {"run.started"}),
        ("timer.*", {"timer.scheduled", "timer.fired"}),
        (["notices.*", "run.failed"], {"notices.lost", "run.failed"}),
        ("*.blocked", {"run.blocked", "loop.blocked", "commit.blocked"}),
        ("*", set(EVENTS)),
        (None, set(EVENTS)),
        ([], set()),
    ],
)
def test_handlers_choose_by_name_and_pattern(chosen: set[str] | list[str] | str | None, names: set[str]) -> None:
    seen: list[str] = []
    attach(lambda event: seen.append(event.name), chosen)

    for name in EVENTS:
        emit(name)

    assert set(seen) == names


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("run.complete", r"'run.complete'; did you mean run\.completed"),
        ("nothing.like.it", r"docs/telemetry\.md lists them all"),
        ("activity.finished.*", "did you mean"),
    ],
)
def test_a_name_that_no_event_has_is_an_error_that_says_which_are_near(wrong: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        attach(print, ["run.started", wrong])
    assert heard == {}


def test_a_handler_that_would_have_to_be_awaited_is_refused() -> None:
    async def handler(_event: TelemetryEvent) -> None: ...

    with pytest.raises(ConfigurationError, match="`async def`"):
        attach(handler)


class Awaited:
    async def __call__(self, _event: TelemetryEvent) -> None: ...


class Equal:
    __hash__ = None  # type: ignore[assignment]  # as of every class with an __eq__ of its own

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __call__(self, event: TelemetryEvent) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(Awaited(), "`async def`"), (None, "not callable"), ("print", "not callable"), (Equal(), "hash")],
)
def test_what_cannot_be_a_handler_is_refused_at_once(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        attach(wrong)
    assert heard == {}


def test_attaching_again_replaces_the_choice() -> None:
    seen: list[str] = []

    def handler(event: TelemetryEvent) -> None:
        seen.append(event.name)

    attach(handler, ["run.started"])
    attach(handler, ["run.completed"])
    emit("run.started")
    emit("run.completed")

    assert seen == ["run.completed"]


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def listen(self, event: TelemetryEvent) -> None:  # as a bound method it is another object each time, and equal
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), SystemExit(1), RecursionError()])
def test_a_handler_that_raises_is_detached_after_a_warning_and_the_others_hear_of_it(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[TelemetryEvent] = []
    broken = Broken(error)
    attach(broken.listen, ["run.*", "handler.*"])
    attach(seen.append, ["run.*", "handler.*"])

    emit("run.started")
    emit("run.completed")

    assert [event.name for event in seen] == ["handler.detached", "run.started", "run.completed"]
    assert seen[0].metadata == {
        **SHARED, "handler": repr(broken.listen), "event": "run.started", "error": repr(error),
    }  # fmt: skip
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "continuum.telemetry.emitting")
    assert "raised on run.started and was detached" in record.getMessage()
    assert record.exc_info is not None


class Speechless(Exception):
    def __repr__(self) -> str:
        raise ValueError("an error that cannot be written down")

    __str__ = __repr__


class Unwritable:
    def __call__(self, event: TelemetryEvent) -> None:
        raise Speechless

    def __repr__(self) -> str:
        raise AttributeError("half made")


def test_a_handler_that_cannot_be_named_nor_its_error_is_detached_all_the_same() -> None:
    seen: list[TelemetryEvent] = []
    attach(Unwritable(), ["run.started"])
    attach(seen.append, ["handler.*"])

    emit("run.started")
    emit("run.started")

    (event,) = seen
    assert event.metadata == {**SHARED, "handler": "<Unwritable>", "event": "run.started", "error": "<Speechless>"}


@pytest.fixture
def _a_host_whose_logging_raises() -> Iterator[None]:
    """A filter that looks for the request that a line belongs to, say."""

    def no_request(_record: logging.LogRecord) -> bool:
        raise LookupError("no request")

    there = logging.getLogger("continuum.telemetry.emitting")
    there.addFilter(no_request)
    yield
    there.removeFilter(no_request)


@pytest.mark.usefixtures("_a_host_whose_logging_raises")
def test_a_warning_that_cannot_be_logged_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    attach(Broken(ValueError("no")).listen, ["run.started"])
    attach(lambda event: seen.append(event.name), ["run.*", "handler.*"])
    emit("run.started")
    monkeypatch.setattr(emitting, "SLOW_SECONDS", -1.0)
    emit("run.completed")

    assert seen == ["handler.detached", "run.started", "run.completed"]


def test_somebody_who_wants_the_process_to_end_is_obeyed() -> None:
    attach(Broken(KeyboardInterrupt()).listen)
    with pytest.raises(KeyboardInterrupt):
        emit("run.started")


def test_a_handler_that_was_detached_may_be_attached_anew(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken(ValueError())
    for _ in range(2):
        attach(broken.listen)
        emit("run.started")

    assert len(caplog.records) == 2


def test_a_slow_handler_is_warned_of_and_again_when_it_is_twice_as_slow(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    takes = iter([0.01, 0.06, 0.1, 0.13, 0.2])

    def slow(_event: TelemetryEvent) -> None:
        nonlocal now
        now += next(takes)

    monkeypatch.setattr(emitting, "perf_counter", lambda: now)
    attach(slow)
    for _ in range(5):
        emit("run.started")

    said = [record.getMessage().partition(" took ")[2].partition(" on ")[0] for record in caplog.records]
    assert said == ["60 ms", "130 ms"]


def test_a_handler_may_detach_while_it_is_called() -> None:
    seen: list[str] = []

    def once(event: TelemetryEvent) -> None:
        seen.append(event.name)
        detach(once)

    attach(once)
    emit("run.started")
    emit("run.completed")

    assert seen == ["run.started"]
