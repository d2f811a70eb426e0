"""Every log line says which run it comes from, in the code of activities and workflows too, and replay says nothing twice."""

import logging
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

import continuum
from continuum import activity, telemetry, workflow
from continuum.composition.instance import Instance
from continuum.logs import ContextFilter
from tests.support.eventually import eventually
from tests.support.hosting import Place, evict, instance_of

shop = logging.getLogger("shop")
KEYS = ("instance", "run_id", "workflow", "version", "activity", "attempt")


class Lines(logging.Handler):
    """Keeps records as a host's handler with the filter gets them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.addFilter(ContextFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said(self, message: str) -> list[dict[str, object]]:
        """Return what is known of the lines that say this."""
        found = [record for record in self.records if record.getMessage() == message]
        return [{key: getattr(record, key) for key in KEYS if getattr(record, key) != "-"} for record in found]

    def messages(self, *loggers: str) -> list[str]:
        return [record.getMessage() for record in self.records if record.name in loggers]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root, level = Lines(), logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@activity(name="logs.pack")
async def pack() -> None:
    shop.info("packing")


@activity(name="logs.label", retry=continuum.Retry(initial=0.0))
def label() -> None:
    shop.info("printing")
    if continuum.activity_context().attempt == 1:
        raise OSError("out of paper")


@workflow(name="logs.ship", allow=("logging",))
async def ship() -> str:
    shop.info("shipping")
    continuum.log("INFO", "taken", order=7)
    await pack()
    await label()
    try:
        word = await continuum.wait_signal("go", str)
    finally:
        shop.info("waited")
    shop.info("gone")
    continuum.log("INFO", "done")
    return word


def of_run(instance: Instance, run_id: str) -> dict[str, object]:
    return {"instance": instance.name, "run_id": run_id, "workflow": "logs.ship"}


async def test_lines_name_their_run_and_are_said_once_however_often_it_is_replayed(place: Place, lines: Lines) -> None:
    children = place.another()
    async with children:
        app = instance_of(children)
        run = await app.start(ship)
        for _ in range(2):
            await evict(app, run.run_id, waits_for="go")  # its `finally:` runs, and it is replayed when it comes back
            await run.signal("other")
            await eventually(lambda: app.wiring is not None and run.run_id in app.wiring.registry)
        await run.signal("go", "ok")
        assert await run.result(timeout=15) == "ok"
    whole = of_run(app, run.run_id)
    assert lines.said("shipping") == lines.said("waited") == lines.said("gone") == [{**whole, "version": 1}]
    assert lines.said("taken") == lines.said("done") == [{**whole, "version": 1}]
    assert [record.__dict__["fields"] for record in lines.records if record.getMessage() == "taken"] == [{"order": 7}]
    assert lines.said("packing") == [{**whole, "activity": "logs.pack", "attempt": 1}]
    assert lines.said("printing") == [
        {**whole, "activity": "logs.label", "attempt": attempt} for attempt in (1, 2)
    ]  # fmt: skip


async def test_two_instances_in_one_process_are_told_apart(place: Place, lines: Lines) -> None:
    other = Place("memory", None)  # one set of tables is one instance's
    async with place.node("here") as here, other.node("there") as there:
        for app in (here, there):
            run = await app.start(ship)
            await run.signal("go", app.name)
            await run.result(timeout=15)
    for message in ("shipping", "taken", "packing", "printing", "gone", "done"):
        assert {said["instance"] for said in lines.said(message)} == {"here", "there"}, message


caller: ContextVar[str] = ContextVar("caller", default="nobody")  # as a host keeps its request, or its user


async def test_what_one_caller_has_set_is_not_there_when_other_runs_are_told_of(lines: Lines) -> None:
    seen: list[tuple[str, str]] = []

    def note(event: telemetry.TelemetryEvent) -> None:
        seen.append((event.name, caller.get()))

    def noted(record: logging.LogRecord) -> bool:
        seen.append((record.getMessage(), caller.get()))
        return True

    telemetry.attach(note, ["run.started", "run.completed", "commit.flushed"])
    lines.addFilter(noted)
    try:
        async with Place("memory", None).node() as app:
            for name in ("first", "second"):
                caller.set(name)
                (run,) = await app.start_many([ship.bound()])
                await run.signal("go", name)
                await run.result(timeout=15)
    finally:
        telemetry.detach(note)
    told = {name for name, _ in seen}
    assert {"run.started", "run.completed", "commit.flushed", "taken", "done", "packing"} <= told
    assert {who for _, who in seen} == {"nobody"}


async def test_a_line_of_a_run_names_no_activity_that_was_performed_before_it(lines: Lines) -> None:
    place = Place("memory", None)
    async with place.node(activity_supervisor=False) as starter:
        first = await starter.start(ship)
        async with place.node() as worker:  # the first thing that it writes is what an attempt has returned
            await first.signal("go", "ok")
            await first.result(timeout=15)
            second = await worker.start(ship)
            await second.signal("go", "ok")
            await second.result(timeout=15)
    for run in (first, second):
        whole = {**of_run(starter, run.run_id), "version": 1}
        assert [said for said in lines.said("taken") if said["run_id"] == run.run_id] == [whole]


request: ContextVar[str] = ContextVar("request")


async def test_a_host_whose_logging_raises_outside_of_its_requests_stops_no_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def of_a_request(record: logging.LogRecord) -> bool:
        record.__dict__["request"] = request.get()  # LookupError
        return True

    handler, engine = logging.StreamHandler(), logging.getLogger("continuum")
    handler.addFilter(of_a_request)
    engine.addHandler(handler)
    try:
        async with Place("memory", None).node() as app:
            run = await app.start(says)
            await run.signal("go", "ok")
            assert await run.result(timeout=10) == "ok"
    finally:
        engine.removeHandler(handler)
    assert "LookupError" in capsys.readouterr().err


@workflow(name="logs.says")
async def says() -> str:
    continuum.log("WARNING", "said")
    await pack()
    continuum.log("WARNING", "said again")
    return await continuum.wait_signal("go", str)
