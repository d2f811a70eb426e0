"""What cannot be a workflow or an activity is refused at the decorator, with the way out."""

import dataclasses
import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from continuum.definitions.activity import activity
from continuum.definitions.workflow import workflow
from continuum.errors import ConfigurationError, DefinitionError, InputInvalid
from continuum.model.policy import Retry
from tests.unit.definitions import later


class Service:
    async def method(self, x: int) -> int:
        return x

    @classmethod
    async def of_class(cls, x: int) -> int:
        return x

    async def __call__(self, x: int) -> int:
        return x


async def unannotated(order) -> None: ...  # type: ignore[no-untyped-def]
async def variadic(*orders: int) -> None: ...
async def keywords(**orders: int) -> None: ...
async def pages(n: int) -> AsyncIterator[int]:
    yield n


def numbers(n: int) -> Iterator[int]:
    yield n


class Opaque:
    pass


async def opaque(x: Opaque) -> None: ...
async def no_type(x: 5) -> None: ...  # type: ignore[valid-type]
async def no_syntax(x: "not a type") -> None: ...  # type: ignore[valid-type]  # noqa: F722


@pytest.mark.parametrize("decorate", [workflow, activity])
@pytest.mark.parametrize(
    ("fn", "way_out"),
    [
        (
            Service.method,
            "parameter 'self' needs a type annotation, it is stored by it; for a method's work define a function",
        ),
        ("orders.fulfil", r"takes a name by keyword: @\w+\(name='orders.fulfil'\)"),
        (Service().method, "decorates functions, not .*; wrap it in a function with annotations"),
        (Service.of_class, "decorates functions, not .*; wrap it in a function"),
        (Service(), "decorates functions, not .*; wrap it in a function"),
        (Service, "decorates functions, not .*; wrap it in a function"),
        (functools.partial(unannotated, 1), "decorates functions, not .*; wrap it in a function"),
        (staticmethod(variadic), "decorates functions, not .*; wrap it in a function"),
        (lambda: None, "needs a name to find the code by: turn the lambda into a function"),
        (pages, "pages is a generator: return a list instead of yielding"),
        (numbers, "numbers is a generator: return a list instead of yielding"),
        (unannotated, "parameter 'order' needs a type annotation, it is stored by it$"),
        (variadic, r"\*args and \*\*kwargs cannot be stored by name; take a list or dict instead"),
        (keywords, r"\*args and \*\*kwargs cannot be stored by name; take a list or dict instead"),
        (
            opaque,
            r"pydantic cannot handle the parameters of opaque\(\): Unable to generate pydantic-core schema for .*Opaque",
        ),
        (no_type, r"pydantic cannot handle the parameters of no_type\(\): Unable to generate .* for 5"),
        (no_syntax, "no_syntax: an annotation is no type"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(decorate: Callable[..., Any], fn: Any, way_out: str) -> None:
    with pytest.raises(DefinitionError, match=way_out):
        decorate(fn)


def test_a_workflow_is_an_async_def() -> None:
    def blocking() -> None: ...

    with pytest.raises(DefinitionError, match="must be an `async def`; blocking work is for activities"):
        workflow(blocking)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signals", "way_out"),
    [
        (["go"], "signals maps names to payload types"),
        ({"": int}, "'' cannot name a signal: write 1 to 200 characters"),
        ({"a\nb": int}, "none of them a control character"),
        ({7: int}, "7 cannot name a signal"),
        ({"go": Opaque}, "pydantic cannot handle the annotation .*Opaque"),
    ],
)
def test_a_contract_that_nobody_could_keep_is_refused(signals: Any, way_out: str) -> None:
    async def flow() -> None: ...

    with pytest.raises(DefinitionError, match=way_out):
        workflow(signals=signals)(flow)


def test_an_activity_may_be_a_plain_def() -> None:
    def blocking() -> None: ...

    assert not activity(blocking).is_async


async def test_annotations_may_name_what_is_defined_further_down() -> None:
    order = later.Order(items=[later.Item(name="a")])

    payload = later.buy.signature.parameters.encode((order,), {})
    assert payload == b'{"order":{"items":[{"name":"a"}]},"note":"none"}'
    assert later.buy.signature.parameters.decode(payload) == {"order": order, "note": "none"}
    assert later.price.signature.result.decode(b'{"cents":1}') == later.Receipt(cents=1)
    assert await later.price(order) == later.Receipt(cents=1)


def test_annotations_may_name_local_classes() -> None:
    @dataclasses.dataclass
    class Order:
        id: str

    @activity
    async def book(order: "Order") -> "Order":
        return order

    assert book.signature.parameters.encode((Order("a"),), {}) == b'{"order":{"id":"a"}}'
    assert book.signature.result.decode(b'{"id":"a"}') == Order("a")
    assert book.signature._scope is None  # the caller's variables are not kept alive


def test_a_name_that_never_comes_is_told_at_the_first_use() -> None:
    @activity
    async def book(order: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    @activity
    async def look(order: "sys.Missing") -> None: ...  # type: ignore[name-defined]

    @activity
    async def result() -> "list[Missing]": ...  # type: ignore[name-defined,empty-body]  # noqa: F821

    for made, reason in ((book, "name 'Missing' is not defined"), (look, "has no attribute 'Missing'")):
        with pytest.raises(
            DefinitionError, match=f"its annotations use something that is not defined: .*{reason}.*; define or import"
        ):
            _ = made.signature.parameters
    with pytest.raises(DefinitionError, match="not defined"):
        _ = result.signature.result


def test_annotations_may_carry_constraints() -> None:
    @activity
    async def book(cents: Annotated[int, Field(gt=0)], tags: Annotated[list[str], Field(max_length=1)]) -> None: ...

    with pytest.raises(InputInvalid) as caught:
        book.signature.parameters.encode((0, ["a", "b"]), {})
    assert [problem.pointer for problem in caught.value.problems] == ["/cents", "/tags"]


# --- options ----------------------------------------------------------------------------------------------------------


async def act(cents: int) -> int:
    return cents


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout=0 would never let an attempt finish; None means no limit"),
        ({"timeout": -1}, "timeout must be a finite duration of at least 0"),
        ({"timeout": float("nan")}, "timeout must be a finite duration"),
        ({"timeout": "5"}, "timeout must be seconds or a timedelta"),
        ({"heartbeat_timeout": float("inf")}, "heartbeat_timeout must be a finite duration"),
        ({"heartbeat_timeout": True}, "heartbeat_timeout must be seconds or a timedelta"),
        ({"queue": ""}, "queue must be a name"),
        ({"queue": 5}, "queue must be a name"),
        ({"priority": 32_768}, "priority must be an integer, at most ±32767"),
        ({"priority": -32_768}, "priority must be an integer"),
        ({"priority": True}, "priority must be an integer"),
        ({"priority": 1.0}, "priority must be an integer"),
        ({"retry": 3}, "retry must be a continuum.Retry"),
    ],
)
def test_impossible_options_are_refused_at_the_decorator_and_at_the_call(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        activity(**options)(act)
    with pytest.raises(ConfigurationError, match=message):
        activity(act).options(**options)


def test_a_fixed_key_in_the_decorator_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"takes a function of the arguments; `.options\(\)` takes a fixed key"):
        activity(idempotency_key="k")(act)  # type: ignore[call-overload]


def test_a_retention_is_a_duration() -> None:
    async def flow() -> None: ...

    assert workflow(retention=5)(flow).retention_seconds == 5.0
    assert workflow(flow).retention_seconds is None
    with pytest.raises(ConfigurationError, match="retention must be"):
        workflow(retention=-1)(flow)


def test_declared_signals_have_shapes() -> None:
    async def flow() -> None: ...

    declared = workflow(signals={"n": int})(flow).signals
    assert declared is not None
    assert declared["n"].decode(b"5") == 5
    assert workflow(signals={})(flow).signals == {}
    assert workflow(flow).signals is None


def test_retry_is_a_value() -> None:
    assert activity(retry=Retry(max_attempts=1))(act).task_options.retry == Retry(max_attempts=1)


def test_a_model_whose_parts_never_come_is_told_at_the_first_use() -> None:
    class Order(BaseModel):
        item: "Missing"  # type: ignore[name-defined]  # noqa: F821

    @activity
    async def book(order: Order) -> None: ...

    with pytest.raises(
        DefinitionError, match=r"not defined: a model among the parameters of .*book\(\) uses a type that"
    ):
        _ = book.signature.parameters
