"""What is counted and measured: by OpenTelemetry and for Prometheus, under one set of names."""

import asyncio
import importlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
import continuum.http
import continuum.otel
from continuum import ConfigurationError, Retry, RunFailed, activity, telemetry, workflow
from continuum.composition import gauges as reading
from continuum.http import scraping
from continuum.http.scraping import Exporter
from continuum.model.census import Census
from continuum.otel import meters
from continuum.runtime import census as taking
from continuum.telemetry import EVENTS, Emitter, TelemetryEvent
from continuum.telemetry.metrics import (
    INCIDENT_EVENTS,
    INSTRUMENTS,
    OTHER,
    READY,
    RULES,
    RUN_DURATION,
    RUNS_ACTIVE,
    RUNS_FINISHED,
    RUNS_STARTED,
    SERIES_MAX,
    Instrument,
    Kind,
    Record,
    Recorder,
)
from tests.http.hosts import caller
from tests.otel.looking import Seen
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of

tries: list[int] = []


@activity(name="metrics.flaky", retry=Retry(initial=0.01, jitter=0.0))
async def flaky() -> None:
    tries.append(1)
    if len(tries) == 1:
        raise ConnectionError


@workflow(name="metrics.works")
async def works() -> None:
    await flaky()
    await asyncio.sleep(0.01)
    await continuum.wait_signal("go", object)


@workflow(name="metrics.fails")
async def fails() -> None:
    raise ValueError


@activity(name="metrics.elsewhere", queue="nobody's")
async def elsewhere() -> None: ...


@workflow(name="metrics.stuck")
async def stuck() -> None:
    await elsewhere()


class Scrape:
    """A page, parsed."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.families: Mapping[str, Metric] = {one.name: one for one in text_string_to_metric_families(page)}

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the sample with these labels, or the sum of several."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


@pytest.fixture(autouse=True)
def _a_first_try_and_a_machine_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    tries.clear()
    monkeypatch.setattr(reading, "PATIENCE_SECONDS", 20.0)
    monkeypatch.setattr(taking, "FRESH_SECONDS", 3_600.0)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    host = FastAPI()
    host.include_router(continuum.http.router())
    async with caller(host, "http://host/continuum") as client:
        yield client


async def scraped(http: httpx.AsyncClient) -> Scrape:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return Scrape(answer.text)


async def test_prometheus_scrapes_what_has_happened_and_what_there_is(place: Place, http: httpx.AsyncClient) -> None:
    name = f"measured-{place.kind}"
    children = place.children(name, activities=[flaky])  # so that a task of another one stays where it is
    async with children:
        app = instance_of(children)
        run = await app.start(works)
        await app.start(stuck)
        failed = await app.start(fails)
        with pytest.raises(RunFailed):
            await failed.result(timeout=20)
        mine = {"continuum_instance": name}

        async def has_slept() -> Scrape | None:
            page = await scraped(http)
            return page if page.value("continuum_timer_lag_seconds_count", **mine) == 1 else None

        seen = await eventually(has_slept)
        assert seen is not None
        assert seen.value("continuum_runs_started_total", **mine, workflow="metrics.works") == 1
        assert seen.value("continuum_runs_finished_total", **mine, workflow="metrics.fails", state="failed") == 1
        assert seen.value("continuum_run_duration_seconds_count", **mine, state="failed") == 1
        assert seen.value("continuum_activity_duration_seconds_count", **mine, outcome="retried") == 1
        assert seen.value("continuum_activity_duration_seconds_count", **mine, outcome="completed") == 1
        assert (seen.value("continuum_activity_schedule_to_start_seconds_count", **mine) or 0) >= 2
        assert (seen.value("continuum_commit_writes_total", **mine) or 0) >= 5
        assert seen.value("continuum_runs_active", **mine) == 2
        assert seen.value("continuum_queue_depth", **mine, queue="nobody's") == 1
        assert (seen.value("continuum_queue_oldest_age_seconds", **mine, queue="nobody's") or 0) > 0
        assert seen.value("continuum_ready", **mine) == 1
        assert run.run_id not in seen.page
        await run.signal("go")
        await run.result(timeout=20)
        seen = await scraped(http)
        assert seen.value("continuum_runs_active", **mine) == 2, "the census is kept for a while"
        assert app.wiring is not None
        app.wiring.client.census._taken_at = None  # the while is over
        assert (await scraped(http)).value("continuum_runs_active", **mine) == 1
    children.forget()


async def test_the_hosts_dependencies_stand_before_the_page_and_other_instances_are_not_on_it() -> None:
    async def refuse() -> None:
        raise HTTPException(403)

    guarded, served = FastAPI(), FastAPI()
    guarded.include_router(continuum.http.router(dependencies=[Depends(refuse)]))
    served.include_router(continuum.http.router(instances=["one"]))
    one, two = (Place("memory", None).children(name) for name in ("one", "two"))
    async with (
        one,
        two,
        caller(guarded, "http://host/continuum") as shut,
        caller(served, "http://host/continuum") as http,
    ):
        for name in ("one", "two"):
            with pytest.raises(RunFailed):
                await (await continuum.start(fails, instance=name)).result(timeout=20)
        assert (await shut.get("/metrics")).status_code == 403
        seen = await scraped(http)
        assert seen.value("continuum_runs_started_total", continuum_instance="one") == 1
        assert seen.value("continuum_ready", continuum_instance="one") == 1
        assert seen.value("continuum_runs_started_total", continuum_instance="two") is None
        assert seen.value("continuum_ready", continuum_instance="two") is None
    one.forget()
    two.forget()


async def test_a_scraper_may_ask_for_open_metrics(http: httpx.AsyncClient) -> None:
    async with continuum.application() as app:
        with pytest.raises(RunFailed):
            await (await app.start(fails)).result(timeout=20)
        answer = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics.text_string_to_metric_families(answer.text)}  # type: ignore[no-untyped-call]
    assert {one.prometheus_name.removesuffix("_total") for one in INSTRUMENTS} <= names


async def test_old_numbers_are_not_shown_while_the_database_does_not_answer(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(**_limits: Any) -> Any:
        await asyncio.Event().wait()

    async with continuum.application() as app:
        assert (await scraped(http)).value("continuum_runs_active") == 0
        assert app.wiring is not None
        monkeypatch.setattr(app.wiring.journal, "census", never)
        monkeypatch.setattr(reading, "PATIENCE_SECONDS", 0.05)
        app.wiring.client.census._taken_at = None
        for scrape in ("that asks", "that is answered by what the last one found"):
            seen = await scraped(http)
            assert seen.value("continuum_runs_active") is None, scrape
            assert seen.value("continuum_ready") == 1, scrape


async def test_a_reader_that_cannot_await_asks_all_databases_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that is away would take all its patience, one after the other: with fifty tenants, for a minute."""
    second_is_asked = asyncio.Event()

    async def first(**_limits: Any) -> Census:
        await second_is_asked.wait()
        return Census()

    async def second(**_limits: Any) -> Census:
        second_is_asked.set()
        return Census()

    monkeypatch.setattr(reading, "PATIENCE_SECONDS", 2.0)
    one, two = (Place("memory", None).children(name) for name in ("one", "two"))
    async with one, two:
        for children, census in ((one, first), (two, second)):
            wiring = instance_of(children).wiring
            assert wiring is not None
            monkeypatch.setattr(wiring.journal, "census", census)
        read = await asyncio.to_thread(reading.latest_gauges)
    assert {labels[0] for gauge, _, labels in read if gauge is RUNS_ACTIVE} == {"one", "two"}
    one.forget()
    two.forget()


async def test_an_instance_that_waits_for_its_database_is_not_ready(http: httpx.AsyncClient, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")  # no migration has made its tables
    late = continuum.children(name="late", engine=engine, required=False)
    never_entered = continuum.children(name="elsewhere", engine=engine)
    async with late:
        assert instance_of(late).wiring is None
        seen = await scraped(http)
        assert seen.value("continuum_ready", continuum_instance="late") == 0
        assert seen.value("continuum_ready", continuum_instance="elsewhere") is None
        assert {labels for one, _, labels in reading.latest_gauges() if one is READY} == {("late",)}
    assert (await scraped(http)).value("continuum_ready", continuum_instance="late") is None
    late.forget()
    never_entered.forget()
    await engine.dispose()


async def test_what_should_not_happen_is_counted_from_nothing(http: httpx.AsyncClient, seen: Seen) -> None:
    """Prometheus does not see that a series has grown if its first value is 1: the first incident would alert nobody."""
    children = Place("memory", None).children("untroubled")
    async with children:
        app = instance_of(children)
        page = await scraped(http)
        for event in INCIDENT_EVENTS:
            assert page.value("continuum_incidents_total", continuum_instance=app.name, event=event) == 0, event
        assert page.value("continuum_lease_lost_total", continuum_instance=app.name) == 0
        assert len(seen.values()["continuum.incidents"]) == len(INCIDENT_EVENTS)
        assert app.wiring is not None
        app.wiring.membership.lost()
        labels = {"continuum_instance": app.name, "event": "owner.lost"}
        assert (await scraped(http)).value("continuum_incidents_total", **labels) == 1
    children.forget()


async def test_a_long_page_is_written_beside_the_loop(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[threading.Thread] = []

    def choose(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
        encode, media_type = choose_encoder(accept)

        def noted(registry: CollectorRegistry) -> bytes:
            written.append(threading.current_thread())
            return encode(registry)

        return noted, media_type

    monkeypatch.setattr(scraping, "choose_encoder", choose)
    for _ in range(2):
        await scraped(http)
    assert written[0] is written[1]
    assert written[0] is not threading.main_thread()
    assert written[0].daemon, "it keeps no process from ending"


async def test_the_page_can_be_left_out_and_must_be_installed_to_be_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module

    def nothing(name: str) -> Any:
        if name == "continuum.http.scraping":
            raise ModuleNotFoundError("No module named 'prometheus_client'", name="prometheus_client")
        return found(name)

    without, missing = FastAPI(), FastAPI()
    without.include_router(continuum.http.router(metrics=False))
    monkeypatch.setattr(importlib, "import_module", nothing)
    missing.include_router(continuum.http.router())
    for host in (without, missing):
        async with caller(host, "http://host/continuum") as http:
            assert (await http.get("/metrics")).status_code == 404
    with pytest.raises(ConfigurationError, match=r"continuum-durable\[prometheus\]"):
        continuum.http.router(metrics=True)


async def test_open_telemetry_measures_the_same(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    async with continuum.application() as app:
        run = await app.start(works)
        await eventually(lambda: len(tries) == 2)
        await run.signal("go")
        await run.result(timeout=20)
        values = await asyncio.to_thread(seen.values)  # as an exporter reads them: from a thread of its own
        labels = {"continuum.instance": "continuum"}

        def value(name: str, **more: str) -> float:
            wanted = (labels | more).items()
            return sum(value for key, value in values[name].items() if wanted <= dict(key).items())

        assert value("continuum.runs.finished", workflow="metrics.works", state="completed") == 1
        assert value("continuum.activity.duration", outcome="retried") == 1
        assert value("continuum.ready") == 1
        assert value("continuum.runs.active") == 0
        await app.start(works)
        assert app.wiring is not None
        app.wiring.client.census._taken_at = None
        monkeypatch.setattr(meters, "SHARED_SECONDS", 0.0)
        values = seen.values()  # on the loop of the instance nobody can wait
        assert value("continuum.runs.active") == 0
        census = app.wiring.client.census
        await eventually(lambda: census._asked is not None and census._asked.done())
        values = seen.values()
        assert value("continuum.runs.active") == 1
    assert run.run_id not in str(values)


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_rule_takes_what_its_event_is_documented_to_carry() -> None:
    for name, rules in RULES.items():
        event = EVENTS[name]
        for rule in rules:
            if rule.measurement is not None:
                assert rule.measurement in {*event.measurements, *event.measurements_if_known}, name
            assert len(rule.labels) == len(rule.instrument.labels), name
            for label in rule.labels:
                assert label[0] == "=" or label in {*event.metadata, *event.metadata_if_known}, name


def test_no_label_is_an_id_and_every_instrument_is_fed() -> None:
    fed = {rule.instrument for rules in RULES.values() for rule in rules}
    assert fed == {one for one in INSTRUMENTS if one.kind is not Kind.GAUGE}
    for one in INSTRUMENTS:
        assert not {"run_id", "command_id", "owner", "node", "namespace"} & {*one.labels}


def test_a_metric_has_a_bounded_number_of_series() -> None:
    recorded: dict[tuple[str, ...], float] = {}

    class Counting:
        def series(self, _instrument: Instrument, labels: tuple[str, ...]) -> Record:
            def add(value: float) -> None:
                recorded[labels] = recorded.get(labels, 0.0) + value

            return add

    recorder = Recorder(Counting())
    for turn in range(2):
        for number in range(SERIES_MAX + 50):
            recorder.hear(TelemetryEvent("run.started", {}, {"instance": "i", "workflow": f"w{number}"}))
        assert len(recorded) == SERIES_MAX + 1, turn
    assert recorded["i", OTHER] == 100
    recorder.hear(TelemetryEvent("run.started", {}, {"instance": "another", "workflow": "its own"}))
    assert recorded["another", "its own"] == 1, "a tenant that makes up names leaves the others theirs"
    assert recorded["i", "w0"] == 2
    assert RUNS_STARTED.labels == ("workflow",)


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_the_page_shows_what_the_librarys_own_counters_would(accept: str) -> None:
    labels, values = ("orders", "w", "completed"), [0.0, 0.01, 0.0100001, 0.3, 59.9, 60.0, 2_592_000.0, 1e9]
    registry, exporter = CollectorRegistry(), Exporter()
    names = ("continuum_instance", "workflow", "state")
    runs = Counter("continuum_runs_finished_total", RUNS_FINISHED.meaning, names, registry=registry)
    seconds = Histogram(
        "continuum_run_duration_seconds", RUN_DURATION.meaning, names, registry=registry, buckets=RUN_DURATION.buckets
    )
    for value in values:
        runs.labels(*labels).inc()
        exporter.series(RUNS_FINISHED, labels)(1.0)
        seconds.labels(*labels).observe(value)
        exporter.series(RUN_DURATION, labels)(value)
    encode, media_type = choose_encoder(accept)
    page, our_type = exporter.page(accept, [], None)()
    theirs = {line for line in encode(registry).decode().splitlines() if "_created" not in line}
    assert our_type == media_type
    assert theirs <= set(page.decode().splitlines())
    assert len([line for line in theirs if line.startswith("continuum_run_duration_seconds")]) == 18


def fed_page() -> Scrape:
    """A page of an exporter that has heard of every event in the rules, and of gauges of every kind."""
    exporter = Exporter()
    exporter.listen()
    try:
        _emit_all()
    finally:
        telemetry.detach(exporter._recorder.hear)
    gauges = [(one, 1.0, ("orders", *one.labels)) for one in INSTRUMENTS if one.kind is Kind.GAUGE]
    return Scrape(exporter.page("", gauges, None)()[0].decode())


def _emit_all() -> None:
    emit = Emitter(instance="orders", node="n")
    for name in RULES:
        event = EVENTS[name]
        numbers = dict.fromkeys((*event.measurements, *event.measurements_if_known), 0.5)
        emit(name, numbers, **dict.fromkeys((*event.metadata, *event.metadata_if_known), "x"))


def test_both_exports_have_the_same_names_and_labels() -> None:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client.exposition import generate_latest

    registry = CollectorRegistry()
    provider = MeterProvider(
        [PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=registry)]
    )
    continuum.otel.setup(meter_provider=provider)
    try:
        _emit_all()
        by_otel = Scrape(generate_latest(registry).decode())
    finally:
        continuum.otel.shutdown()
        provider.shutdown()
    ours = fed_page()
    gauges = {one.prometheus_name for one in INSTRUMENTS if one.kind is Kind.GAUGE}  # no instance runs here
    assert _shape(by_otel) == {name: labels for name, labels in _shape(ours).items() if name not in gauges}
    counters = {one.prometheus_name.removesuffix("_total") for one in INSTRUMENTS}
    assert set(_shape(ours)) == counters


def _shape(scrape: Scrape) -> dict[str, frozenset[str]]:
    return {
        name: frozenset(label for sample in family.samples for label in sample.labels)
        for name, family in scrape.families.items()
        if not name.endswith("_created")
    }
