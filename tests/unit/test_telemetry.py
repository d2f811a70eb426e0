"""One event per transition, to whoever listens, harmless to whoever emits."""

import logging
from collections.abc import Callable, Iterator

import pytest

from continuum.telemetry import Emitter, Handler, TelemetryEvent, attach, detach, emitting

emit = Emitter(instance="billing", node="n1")


@pytest.fixture(autouse=True)
def _nobody_listens() -> Iterator[None]:
    yield
    for handler in list(emitting._handlers):
        detach(handler)


def test_events_carry_instance_and_node_and_what_they_are_about() -> None:
    seen: list[TelemetryEvent] = []
    attach(seen.append)

    emit("run.started", {"delay_seconds": 1.5}, run_id="r")
    emit("run.completed")

    shared = {"instance": "billing", "node": "n1"}
    assert seen == [
        TelemetryEvent("run.started", {"delay_seconds": 1.5}, {**shared, "run_id": "r"}),
        TelemetryEvent("run.completed", {}, shared),
    ]


def test_nobody_listens_unless_attached() -> None:
    def handler(_event: TelemetryEvent) -> None: ...

    heard = [emit.is_heard]
    attach(handler)
    heard.append(emit.is_heard)
    detach(handler)
    detach(handler)
    heard.append(emit.is_heard)
    emit("run.started")

    assert heard == [False, True, False]


@pytest.mark.parametrize("names", [{"run.started"}, ["run.started"], "run.started"])
def test_a_filter_lets_only_named_events_through(names: set[str] | list[str] | str) -> None:
    seen: list[TelemetryEvent] = []
    attach(seen.append, names)

    emit("run.started")
    emit("run.completed")

    assert [event.name for event in seen] == ["run.started"]


def test_attaching_again_replaces_the_filter() -> None:
    seen: list[str] = []

    def handler(event: TelemetryEvent) -> None:
        seen.append(event.name)

    attach(handler, ["run.started"])
    attach(handler, ["run.completed"])
    emit("run.started")
    emit("run.completed")

    assert seen == ["run.completed"]


class Broken:
    def listen(self, event: TelemetryEvent) -> None:
        raise ValueError(event.name)


@pytest.mark.parametrize("make", [lambda: Broken().listen, lambda: lambda event: 1 / 0])
def test_a_failing_handler_is_reported_once_per_event_name_and_stays(
    make: Callable[[], Handler], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    handler = make()
    attach(handler)
    attach(lambda event: seen.append(event.name))

    with caplog.at_level(logging.ERROR, logger="continuum.telemetry"):
        for name in ("a", "a", "b"):
            emit(name)

    assert seen == ["a", "a", "b"]
    assert [record.getMessage().partition(" failed on ")[2] for record in caplog.records] == [
        "a; further failures stay silent",
        "b; further failures stay silent",
    ]
    assert all(record.exc_info for record in caplog.records)


def test_a_handler_that_was_detached_is_reported_anew(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    for _ in range(2):
        attach(broken.listen)  # a bound method is another object each time, and equal
        emit("a")
        detach(broken.listen)

    assert len(caplog.records) == 2


def test_a_handler_may_detach_while_it_is_called() -> None:
    seen: list[str] = []

    def once(event: TelemetryEvent) -> None:
        seen.append(event.name)
        detach(once)

    attach(once)
    emit("a")
    emit("b")

    assert seen == ["a"]
