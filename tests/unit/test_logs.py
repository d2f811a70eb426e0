"""How log lines are written, and that a host need do nothing but ask."""

import json
import logging
import sys
from typing import Any, Literal

import pytest

import continuum
from continuum.logs import ConsoleFormatter, ContextFilter, JsonFormatter, configure


def a_record(message: str = "shipped %s", *args: object, **known: object) -> logging.LogRecord:
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, message, args or ("7",), None)
    record.created, record.msecs = 1_767_225_600.5, 500.0
    record.__dict__.update(known)
    return record


def test_a_line_without_a_run_gets_a_dash_wherever_a_format_asks() -> None:
    record = a_record()
    assert ContextFilter().filter(record) is True
    assert logging.Formatter("%(run_id)s %(activity)s %(attempt)s %(message)s").format(record) == "- - - shipped 7"
    other = a_record()
    ContextFilter(default=None).filter(other)
    assert other.__dict__["run_id"] is None


def test_what_the_caller_says_stands() -> None:
    record = a_record(run_id="r-1", instance="orders")
    ContextFilter().filter(record)
    assert (record.__dict__["run_id"], record.__dict__["instance"], record.__dict__["workflow"]) == (
        "r-1",
        "orders",
        "-",
    )


def test_json_is_one_object_per_line_with_what_is_known() -> None:
    record = a_record(run_id="r-1", workflow="ship", attempt=2, activity="-", fields={"order": 7, "what": object})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "at": "2026-01-01T00:00:00.500+00:00",
        "level": "INFO",
        "logger": "shop",
        "message": "shipped 7",
        "run_id": "r-1",
        "workflow": "ship",
        "attempt": 2,
        "fields": {"order": 7, "what": "<class 'object'>"},
    }


def test_json_holds_the_traceback() -> None:
    record = a_record(fields="of somebody else")
    try:
        raise OSError("no")
    except OSError:
        record.exc_info = sys.exc_info()
    said = json.loads(JsonFormatter().format(record))
    assert said["error"].endswith("OSError: no")
    assert "fields" not in said


class Speechless:
    def __repr__(self) -> str:
        raise ValueError("half made")


def _around_itself() -> dict[str, object]:
    round_: dict[str, object] = {}
    round_["again"] = round_
    return round_


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({("a", 1): 2}, {"('a', 1)": 2}),
        ([float("nan"), float("inf"), 0.5], ["nan", "inf", 0.5]),
        ("\udc80 half of a pair", "\udc80 half of a pair"),
        (Speechless(), "<Speechless>"),
        (_around_itself(), {"again": "{...}"}),
        ({1, 2}, "{1, 2}"),
    ],
)
def test_json_takes_whatever_it_is_given_and_stays_json(value: object, said: object) -> None:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is no JSON")

    line = JsonFormatter().format(a_record(fields={"what": value}))
    line.encode()  # a file takes it
    assert json.loads(line, parse_constant=refuse)["fields"] == {"what": said}


def test_json_holds_the_stack_that_was_asked_for() -> None:
    record = a_record()
    record.stack_info = "Stack (most recent call last): here"
    assert json.loads(JsonFormatter().format(record))["stack"] == "Stack (most recent call last): here"


def test_json_holds_a_traceback_that_another_handler_has_written_already() -> None:
    record = a_record()
    record.exc_text = "OSError: no"  # what a formatter of a queue's sender leaves, without the exception
    assert json.loads(JsonFormatter().format(record))["error"] == "OSError: no"


def test_the_console_is_for_people() -> None:
    with_context = ConsoleFormatter().format(a_record(run_id="r-1", activity="-", fields={"order": 7}))
    assert with_context.endswith(" INFO    shop: shipped 7 [run_id=r-1 order=7]")
    assert ConsoleFormatter().format(a_record(fields={"what": Speechless()})).endswith(" [what=<Speechless>]")
    assert ConsoleFormatter().format(a_record()).endswith(" INFO    shop: shipped 7")


@pytest.mark.parametrize("form", ["console", "json"])
def test_the_configuration_is_one_that_logging_takes(
    form: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure(form, level="WARNING")
        logging.getLogger("uvicorn.error").warning("going down", extra={"instance": "orders"})
        logging.getLogger("continuum.x").info("unheard")
    finally:
        root.handlers[:], root.level = handlers, level
    (line,) = capsys.readouterr().err.splitlines()
    said: Any = json.loads(line) if form == "json" else line
    assert (
        (said["message"], said["instance"]) == ("going down", "orders")
        if form == "json"
        else "[instance=orders]" in said
    )


def test_the_library_is_quiet_unless_a_host_listens(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = logging.getLogger(continuum.__name__).handlers
    assert any(type(handler) is logging.NullHandler for handler in handlers), handlers
    logging.getLogger("continuum.nobody").warning("unheard")
    assert "unheard" not in capsys.readouterr().err
