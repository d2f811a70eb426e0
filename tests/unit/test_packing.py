import json
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continuum.model.events import Event, EventType
from continuum.model.packing import SNAPSHOT_FORMAT, pack_history, unpack_history

AT = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)

text = st.none() | st.text(st.characters(codec="utf-8"))
events = st.builds(
    Event,
    seq=st.integers(1, 2**63 - 1),
    type=st.sampled_from(EventType),
    at=st.datetimes(timezones=st.just(UTC)),
    command_id=st.none() | st.integers(0, 2**31 - 1),
    message_id=st.none() | st.uuids().map(str),
    name=text,
    payload=st.none() | st.binary(),
    key=text,
    format=st.integers(0, 2**15 - 1),
)


@given(st.lists(events))
def test_what_was_packed_comes_out_again(history: list[Event]) -> None:
    assert unpack_history(pack_history(history)) == tuple(history)


def test_payloads_that_are_text_stay_text_in_the_blob() -> None:
    packed = json.loads(zlib.decompress(pack_history([Event(1, EventType.STARTED, AT, payload=b'{"a":1}')])))
    assert packed["format"] == SNAPSHOT_FORMAT
    assert '{"a":1}' in packed["events"][0]


def test_a_long_history_takes_a_tenth_of_its_size() -> None:
    history = [
        Event(seq, EventType.ACTIVITY_COMPLETED, AT, command_id=seq, payload=b'{"status":"ok","items":[1,2,3]}')
        for seq in range(1, 1001)
    ]
    assert len(pack_history(history)) < 1_000 * 10


# P63
@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"not zlib",
        zlib.compress(b"not json"),
        zlib.compress(b"[]"),
        zlib.compress(b'{"format":2,"events":[]}'),
        zlib.compress(b'{"format":1,"events":[[1]]}'),
        zlib.compress(b'{"format":1,"events":[[1,"no such type",0,null,null,null,null,null,1]]}'),
        zlib.compress(b'{"format":1,"events":[[1,"started",0,null,null,null,[],null,1]]}'),
    ],
)
def test_what_is_no_packed_history_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_history(blob)
