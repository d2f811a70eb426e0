"""Columns of a batch travel as PostgreSQL's text for arrays: what is written is what PostgreSQL reads.

Mostly it is JSON in other brackets. Where JSON would escape something, or cannot write it, it is written one by one: both
ways must say the same.
"""

import datetime as dt
import json
import string
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continuum.ids import uuid7
from continuum.journal.sql.dialects import postgres
from continuum.model.events import EventType
from tests.support.postgres import connect

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Write: TypeAlias = Callable[[Sequence[Any]], str]
EAST = dt.timezone(dt.timedelta(hours=5, minutes=45))
NOON = dt.datetime(2026, 3, 1, 12, 0, 0, 123456, dt.UTC)


class Text(str):
    """A host's own kind of text."""

    __slots__ = ()


COLUMNS: list[tuple[str, list[Any]]] = [
    ("text", ["orders", "default", None, "NULL", "null", "", " ", "{}", "{a,b}", ",", "ü", "\U0001f600", "'"]),
    ("text", ['say "hi"', "back\\slash", "two\nlines", "tab\t", "\x01", "\x7f", '"', "\\", '\\"', None]),
    ("text", [Text("its own"), "plain", Text('with "quotes"')]),
    ("text", [EventType.STARTED, EventType.COMPLETED, None]),
    ("text", [json.dumps({"customer": "c\\3", "a": ['"', "ä"]}), None]),
    ("text", list(string.printable)),
    ("text", []),
    ("uuid", [uuid7(), None, uuid7()]),
    ("smallint", [1, None, -3, 32_767]),
    ("bigint", [2**63 - 1, -(2**63), 0, None]),
    ("boolean", [True, False, None]),
    ("double precision", [0.1, 1e300, -0.0, float("nan"), float("inf"), None, 3.0]),
    ("timestamptz", [NOON, NOON.astimezone(EAST), None, NOON.replace(microsecond=0), dt.datetime.max.replace(tzinfo=dt.UTC)]),
    ("timestamptz", [dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(1970, 1, 1, tzinfo=dt.UTC)]),
]  # fmt: skip


@pytest.fixture
async def host(postgres_url: str) -> AsyncIterator[Connection]:
    connection = await connect(postgres_url)
    yield connection
    await connection.close()


async def read(host: Connection, type_: str, written: str) -> list[Any]:
    values: list[Any] = await host.fetchval(f"SELECT CAST(CAST($1 AS text) AS {type_}[])", written)
    return [value and str(value) for value in values] if type_ == "uuid" else values


@pytest.mark.parametrize(("type_", "values"), COLUMNS)
@pytest.mark.parametrize("way", ["as it is chosen", "one by one"])
async def test_postgres_reads_what_was_to_be_written(host: Connection, type_: str, values: list[Any], way: str) -> None:
    write: Write = postgres._WRITERS[type_] if way == "as it is chosen" else postgres._written_one_by_one
    found = await read(host, type_, write(tuple(values)))
    assert list(map(repr, found)) == [repr(plain(value)) for value in values]


def plain(value: Any) -> Any:
    """A value as asyncpg returns it."""
    match value:
        case str():
            return str.__str__(value)
        case dt.datetime():
            return value.astimezone(dt.UTC)
        case _:
            return value


def test_json_is_used_for_what_is_written_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_written_one_by_one", lambda _: pytest.fail("one by one"))
    for values in (["orders", None], [1, None], [True, False], [uuid7()], [NOON], [EventType.STARTED]):
        postgres._written(values)


@settings(max_examples=300)
@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_both_ways_say_the_same_of_any_texts(values: list[str | None]) -> None:
    assert elements(postgres._written(values)) == elements(postgres._written_one_by_one(values)) == values


def elements(written: str) -> list[str | None]:
    """Read a text array by PostgreSQL's rules: quotes, a backslash before what is taken as it is, NULL."""
    assert (written[0], written[-1]) == ("{", "}")
    found, rest = list[str | None](), written[1:-1]
    while rest:
        if rest[0] != '"':
            word, _, rest = rest.partition(",")
            assert word.upper() == "NULL"
            found.append(None)
            continue
        value, place = "", 1
        while rest[place] != '"':
            place += rest[place] == "\\"
            value, place = value + rest[place], place + 1
        found.append(value)
        rest = rest[place + 2 :]
    return found


@pytest.mark.parametrize("value", ["a lone \ud800 surrogate", "a\x00NUL"])
async def test_what_no_text_may_hold_is_refused_by_driver_or_server(host: Connection, value: str) -> None:
    with pytest.raises((UnicodeEncodeError, asyncpg.DataError)):
        await read(host, "text", postgres._written([value]))
