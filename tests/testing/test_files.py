"""Histories as files: exact, readable, versioned."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import continuum
from continuum.model.events import Event, EventType
from continuum.model.failure import Failure, failure_of
from continuum.replay.turns import RunInfo
from continuum.testing import History, HistoryUnreadable, assert_replays, dump_history, environment, load_history
from continuum.testing.files import FILE_FORMAT
from tests.testing.flows import fulfil

text = st.none() | st.text(st.characters(codec="utf-8"))
moments = st.datetimes(timezones=st.just(UTC))
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
json_bytes = st.lists(values, max_size=3).map(lambda value: json.dumps(value, separators=(",", ":")).encode())
events = st.builds(
    Event,
    seq=st.integers(1, 2**63 - 1),
    type=st.sampled_from([kind for kind in EventType if not kind.value.endswith("failed")]),
    at=moments,
    command_id=st.none() | st.integers(0, 2**31 - 1),
    message_id=st.none() | st.uuids().map(str),
    name=text,
    payload=st.none() | st.binary() | json_bytes,
    key=text,
    format=st.integers(0, 2**15 - 1),
)
runs = st.builds(
    RunInfo,
    run_id=st.uuids().map(str),
    workflow=st.text(st.characters(codec="utf-8")),
    version=st.integers(1, 9),
    generation=st.integers(1, 9),
    namespace=st.just("default"),
    instance=st.just("orders"),
    started_at=moments,
    parent=text,
)


@settings(max_examples=50, deadline=None)
@given(runs, st.lists(events, max_size=5))
def test_what_was_dumped_is_loaded_again(run: RunInfo, records: list[Event]) -> None:
    loaded = load_history(dump_history(History(run, records)))
    assert (loaded.run, loaded.records) == (run, tuple(records))


def a_history(*payloads: bytes) -> History:
    run = RunInfo("r", "flow", 1, 1, "default", "continuum", AT)
    return History(run, [Event(seq, EventType.STARTED, AT, payload=payload) for seq, payload in enumerate(payloads, 1)])


AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_payloads_are_json_where_they_are_json() -> None:
    body = json.loads(dump_history(a_history(b'{"order":{"id":"o-1"}}', b'{"a": 1}', b"\xff\x00", b"NaN")))
    shown = [{key: line[key] for key in ("payload", "text", "base64") if key in line} for line in body["events"]]
    assert shown == [{"payload": {"order": {"id": "o-1"}}}, {"text": '{"a": 1}'}, {"base64": "/wA="}, {"text": "NaN"}]


def test_a_diff_shows_single_events() -> None:
    one, other = dump_history(a_history(b"1", b"2", b"3")), dump_history(a_history(b"1", b"7", b"3"))
    changed = [line for line, new in zip(one.splitlines(), other.splitlines(), strict=True) if line != new]
    assert changed == ['  {"seq": 2, "type": "started", "at": "2026-01-01T00:00:00+00:00", "payload": 2},']
    assert one.startswith(f'{{"format": {FILE_FORMAT},')


async def test_a_run_is_dumped_to_a_file_and_replays_from_it(tmp_path: Path) -> None:
    async with environment() as env:
        run = await continuum.start(fulfil, "o-1", 5)
        await run.signal("approved", True)
        result = await run.result()
        written = dump_history(await env.history(run), tmp_path / "golden.json")
    assert (tmp_path / "golden.json").read_text() == written
    for source in (tmp_path / "golden.json", str(tmp_path / "golden.json"), written):
        assert assert_replays(fulfil, load_history(source)).result == result


def failing() -> Failure:
    try:
        raise ValueError("no")
    except ValueError as error:
        return failure_of(error)


def test_tracebacks_are_left_out_unless_asked_for() -> None:
    run = RunInfo("r", "flow", 1, 1, "default", "continuum", AT)
    history = History(run, [Event(1, EventType.FAILED, AT, payload=failing().encode())])
    assert "test_files.py" not in dump_history(history)
    kept = dump_history(history, tracebacks=True)
    assert "test_files.py" in kept
    assert load_history(kept).records == history.records
    assert Failure.decode(load_history(dump_history(history)).records[0].payload or b"").message == "no"


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(dump_history(a_history(b"1"))), **changes})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{", "is no history"),
        ("{}", "is no history"),
        ('{"events": []}', "is no history"),
        (changed(format=FILE_FORMAT + 1), rf"format {FILE_FORMAT + 1}.*reads format {FILE_FORMAT}.*newer"),
        (changed(format="x"), "format 'x'"),
        (changed(run={}), "damaged"),
        (changed(run=None), "damaged"),
        (changed(events=[{"seq": 1}]), "damaged"),
        (changed(events=[{"seq": 1, "type": "no such", "at": AT.isoformat()}]), "no such"),
        (changed(events=7), "damaged"),
    ],
)
def test_what_is_no_history_is_refused(source: str, said: str, tmp_path: Path) -> None:
    """P63: current, future, garbage."""
    with pytest.raises(HistoryUnreadable, match=said):
        load_history(source)
    (tmp_path / "some.json").write_text(source)
    with pytest.raises(HistoryUnreadable, match=r"some\.json"):
        load_history(tmp_path / "some.json")


def test_what_a_newer_version_added_is_passed_over() -> None:
    body = json.loads(dump_history(a_history(b"1")))
    body["run"]["colour"] = "red"
    body["events"][0]["colour"] = "red"
    body["colour"] = "red"
    assert load_history(json.dumps(body)).records == a_history(b"1").records


def test_part_of_a_history_is_refused_with_the_way_out() -> None:
    with pytest.raises(continuum.ConfigurationError, match=r"history\.upto"):
        dump_history(a_history(b"1", b"2")[:1])
