"""What goes into the journal comes out again, and what would not is refused where it was handed in."""

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, computed_field, field_serializer
from typing_extensions import TypedDict

from continuum.codec import Parameters, Shape, check_size, decode_signal, returned_by, shape_of
from continuum.errors import DefinitionError, DurableValueError, InputInvalid, PayloadTooLarge, Problem, SignalInvalid


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: int


class Order(BaseModel):
    id: str
    cents: int = Field(default=0, alias="amount")


class Invoice(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    cents: int = Field(serialization_alias="amount", validation_alias="sum")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def euros(self) -> float:
        return self.cents / 100


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    price: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> float:
        return self.price * 2


class Cat(BaseModel):
    name: str


class Dog(BaseModel):
    name: str


class Tree(BaseModel):
    children: "list[Tree]" = []


@pytest.mark.parametrize(
    ("annotation", "value", "payload"),
    [
        (str, "a\0b", rb'"a\u0000b"'),
        (str, "ümläut", '"ümläut"'.encode()),
        (int, 2**63, b"9223372036854775808"),
        (bool, True, b"true"),
        (None, None, b"null"),
        (float, 1.5, b"1.5"),
        (bytes, b"\xff\x00", b'"_wA="'),
        (Decimal, Decimal("1.10"), b'"1.10"'),
        (UUID, UUID(int=5), b'"00000000-0000-0000-0000-000000000005"'),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC), b'"2026-01-01T00:00:00Z"'),
        (date, date(2026, 1, 1), b'"2026-01-01"'),
        (timedelta, timedelta(microseconds=1), b'"PT0.000001S"'),
        (Colour, Colour.RED, b'"red"'),
        (Literal["a", 1], 1, b"1"),
        (Point, Point(1.5), b'{"x":1.5,"y":0.0}'),
        (Movie, Movie(title="a", year=1), b'{"title":"a","year":1}'),
        (Order, Order(id="a", amount=5), b'{"id":"a","cents":5}'),
        (Invoice, Invoice(sum=5), b'{"cents":5}'),  # type: ignore[call-arg]
        (Strict, Strict(price=2), b'{"price":2.0}'),
        (Tree, Tree(children=[Tree()]), b'{"children":[{"children":[]}]}'),
        (tuple[int, str], (1, "a"), b'[1,"a"]'),
        (set[int], {1}, b"[1]"),
        (dict[int, bytes], {1: b"x"}, b'{"1":"eA=="}'),
        (list[Order | None], [None, Order(id="a")], b'[null,{"id":"a","cents":0}]'),
        (Annotated[int, Field(gt=0)], 1, b"1"),
        (Any, {"a": [1, None, "x"]}, b'{"a":[1,null,"x"]}'),
    ],
)
def test_values_cross_and_come_back_equal(annotation: Any, value: object, payload: bytes) -> None:
    shape = Shape(annotation)

    assert shape.encode(value) == payload
    assert shape.decode(payload) == value
    assert type(shape.decode(payload)) is type(value)
    assert shape.recode(payload) == payload


def test_a_value_that_is_no_number_crosses_where_nothing_forbids_it() -> None:
    assert math.isnan(Shape(float).decode(Shape(float).encode(math.nan)))
    assert Shape(Any).decode(Shape(Any).encode([math.inf])) == [math.inf]


def circle() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


class Opaque:
    def __init__(self) -> None:
        self.handle = object()


class Fragile(BaseModel):
    text: str

    @field_serializer("text", mode="wrap")
    def _write(self, value: str, write: SerializerFunctionWrapHandler) -> object:
        return write(value) if value else object()


@pytest.mark.parametrize(
    ("annotation", "value", "path", "said"),
    [
        (int, "many", "", "does not fit <class 'int'> at /: Input should be a valid integer"),
        (Order, {"id": 5}, "/id", "at /id: Input should be a valid string"),
        (
            list[Strict],
            [Strict(price=1), Strict(price=math.nan)],
            "/1/price",
            "at /1/price: Input should be a valid number",
        ),
        (Strict, Strict(price=math.inf), "/price", "at /price: Input should be a valid number"),
        (dict[str, Any], {"a": {"b/c~d": object()}}, "/a/b~1c~0d", "the value at /a/b~1c~0d cannot be journaled"),
        (Any, [1, {2}, {"k": lambda: 1}], "/2/k", "pass plain data (models, dataclasses, JSON), not live objects"),
        (Any, object(), "", "the value at / cannot be journaled: Unable to serialize unknown type: <class 'object'>"),
        (Any, Opaque(), "/handle", "the value at /handle cannot be journaled"),
        (Any, Opaque, "", "the value at / cannot be journaled"),
        (str, "\ud800", "", "the value at / cannot be journaled: "),
        (Any, ["a", "\ud800"], "/1", "the value at /1 cannot be journaled"),
        pytest.param(int, 10**5_000, "", "number out of range", id="long integer"),
        (Any, [10**5_000], "", "number out of range"),
        (Any, circle(), "/0" * 32, "Circular reference"),
        (Any, deep(5_000), "/0" * 32, "depth exceeded"),
        (Any, deep(250), "", "recursion limit exceeded"),
        (Fragile, Fragile(text=""), "", "the value at / cannot be journaled"),
        (Order, Order.model_construct(id=5), "", "the value at / cannot be journaled: "),
    ],
)
def test_what_could_not_come_back_is_refused_with_its_place(
    annotation: Any, value: object, path: str, said: str
) -> None:
    with pytest.raises(DurableValueError) as caught:
        Shape(annotation).encode(value)

    assert said in str(caught.value)
    assert caught.value.path == path


def test_a_number_in_a_place_that_json_lacks_is_found() -> None:
    with pytest.raises(DurableValueError) as caught:
        Shape(Any).encode([{"a": [math.nan, object()]}])

    assert caught.value.path == "/0/a/0"


@pytest.mark.parametrize("payload", [b"{", b"", b'"x"', b"{}"])
def test_bytes_that_do_not_fit_are_refused(payload: bytes) -> None:
    with pytest.raises(DurableValueError, match="the value does not fit"):
        Shape(int).decode(payload)


def test_a_new_field_with_a_default_is_read_from_old_bytes() -> None:
    assert Shape(Order).recode(b'{"id":"a"}') == b'{"id":"a","cents":0}'


def test_fields_are_read_by_name_and_by_alias() -> None:
    assert Shape(Order).decode(b'{"id":"a","amount":5}') == Shape(Order).decode(b'{"id":"a","cents":5}')


@pytest.mark.parametrize("annotation", [Opaque, list[Opaque], object()])
def test_what_pydantic_cannot_handle_is_a_definition_error(annotation: Any) -> None:
    with pytest.raises(DefinitionError, match=r"pydantic cannot handle the annotation .*: Unable to generate"):
        shape_of(annotation)


def test_shapes_are_made_once_per_annotation() -> None:
    assert shape_of(dict[str, int]) is shape_of(dict[str, int])
    unhashable = Annotated[int, ["a list"]]
    assert shape_of(unhashable).decode(b"5") == 5


def test_unions_are_read_in_their_own_order() -> None:
    # `Cat | Dog == Dog | Cat`, with equal hashes.
    assert type(shape_of(Cat | Dog).decode(b'{"name":"a"}')) is Cat
    assert type(shape_of(Dog | Cat).decode(b'{"name":"a"}')) is Dog


def test_the_shape_of_a_result_is_its_annotation_or_plain_json() -> None:
    def quote() -> Order:
        raise AssertionError

    def local() -> "Missing":  # type: ignore[name-defined]  # noqa: F821
        raise AssertionError

    assert returned_by(quote).annotation is Order
    assert [returned_by(fn).annotation for fn in (lambda: 1, local, len, print)] == [Any, Any, Any, Any]


# --- parameters -------------------------------------------------------------------------------------------------------


def parameters_of(fn: Callable[..., Any]) -> Parameters:
    return Parameters(fn.__name__, inspect.signature(fn), typing.get_type_hints(fn, include_extras=True))


def book(order: Order, when: datetime, /, note: str = "none", *, blob: bytes = b"", price: float = 1.0) -> object:
    return (order, when, note, blob, price)


WHEN = datetime(2026, 1, 1, tzinfo=UTC)
BOOKED = b'{"order":{"id":"a","cents":0},"when":"2026-01-01T00:00:00Z","note":"none","blob":"","price":1.0}'


def test_arguments_are_stored_by_name_with_their_defaults() -> None:
    parameters = parameters_of(book)

    assert parameters.encode((Order(id="a"), WHEN), {}) == BOOKED
    assert parameters.decode(BOOKED) == {
        "order": Order(id="a"),
        "when": WHEN,
        "note": "none",
        "blob": b"",
        "price": 1.0,
    }
    assert parameters.call(book, BOOKED) == (Order(id="a"), WHEN, "none", b"", 1.0)
    assert parameters.call(lambda first, *rest, **named: (first, len(rest), len(named)), BOOKED, "session") == (
        "session",
        3,
        2,
    )


def test_all_arguments_by_position_are_bound_by_the_short_way() -> None:
    def plain(a: int, b: str) -> object:
        return (a, b)

    parameters = parameters_of(plain)

    assert parameters.encode((1, "x"), {}) == parameters.encode((), {"b": "x", "a": 1}) == b'{"a":1,"b":"x"}'


def test_a_parameter_that_is_gone_is_passed_over_and_a_new_default_is_added() -> None:
    old = b'{"order":{"id":"a"},"when":"2026-01-01T00:00:00Z","gone":1}'

    assert parameters_of(book).recode(old) == BOOKED
    assert parameters_of(book).call(book, old) == (Order(id="a"), WHEN, "none", b"", 1.0)


def test_a_parameter_that_is_missing_is_told() -> None:
    with pytest.raises(DurableValueError, match=r"does not fit the parameters of book\(\) at /when: Field required"):
        parameters_of(book).decode(b'{"order":{"id":"a"}}')


def test_arguments_that_do_not_fit_are_all_listed_with_their_pointers() -> None:
    with pytest.raises(InputInvalid) as caught:
        parameters_of(book).encode(({"id": 5}, "soon"), {"price": "x"})

    assert [problem.pointer for problem in caught.value.problems] == ["/order/id", "/when", "/price"]
    assert caught.value.path == "/order/id"
    assert str(caught.value).startswith(
        "the arguments do not fit book(): /order/id: Input should be a valid string; /when: "
    )


def test_arguments_that_cannot_be_bound_say_so() -> None:
    with pytest.raises(
        InputInvalid, match=r"book\(\) was given wrong arguments: missing a required argument: 'when'"
    ) as caught:
        parameters_of(book).encode((Order(id="a"),), {})

    assert caught.value.problems == (Problem("", "missing a required argument: 'when'"),)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [object()]}, "/value/a/0"),
        ("\ud800", "/value"),
        ([10**5_000], ""),
        pytest.param(10**5_000, "", id="long integer"),
    ],
)
def test_arguments_that_could_not_come_back_are_refused_with_their_place(value: object, path: str) -> None:
    def anything(value: Any) -> None: ...

    with pytest.raises(DurableValueError) as caught:
        parameters_of(anything).encode((value,), {})

    assert caught.value.path == path


def test_a_number_that_json_lacks_is_refused_in_a_model_among_the_arguments() -> None:
    def price(item: Strict) -> None: ...

    with pytest.raises(DurableValueError) as caught:
        parameters_of(price).encode((Strict(price=math.nan),), {})

    assert caught.value.path == "/item/price"


def test_arguments_are_named_when_they_are_unknown() -> None:
    def none() -> None: ...

    with pytest.raises(
        InputInvalid, match=r"book\(\) has no parameter 'a/b'; it has: order, when, note, blob, price"
    ) as caught:
        parameters_of(book).encode_named({"order": Order(id="a"), "when": WHEN, "a/b": 1, "c": 2})
    assert [problem.pointer for problem in caught.value.problems] == ["/a~1b", "/c"]
    with pytest.raises(InputInvalid, match=r"none\(\) has no parameter 'x'; it has: none"):
        parameters_of(none).encode_named({"x": 1})


def test_arguments_may_arrive_as_json() -> None:
    body = b'{"order":{"id":"a","amount":5},"when":"2026-01-01T00:00:00Z","blob":"_w=="}'

    assert parameters_of(book).call(book, parameters_of(book).encode_json(body)) == (
        Order(id="a", amount=5),
        WHEN,
        "none",
        b"\xff",
        1.0,
    )


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b'{"order":{"id":5},"when":"soon"}', ["/order/id", "/when"]),
        (b'{"order":{"id":"a"}}', ["/when"]),
        (b'{"order":{"id":"a"},"when":0,"nope":1,"neither":2}', ["/nope", "/neither"]),
        (b"[]", [""]),
        (b"{", [""]),
        (b"", [""]),
    ],
)
def test_json_that_does_not_fit_is_refused_with_pointers(body: bytes, pointers: list[str]) -> None:
    with pytest.raises(InputInvalid) as caught:
        parameters_of(book).encode_json(body)

    assert [problem.pointer for problem in caught.value.problems] == pointers


def test_aliases_of_models_among_the_arguments_do_not_matter() -> None:
    def bill(invoice: Invoice) -> None: ...

    payload = parameters_of(bill).encode((Invoice(sum=5),), {})  # type: ignore[call-arg]

    assert payload == b'{"invoice":{"cents":5}}'
    assert parameters_of(bill).decode(payload) == {"invoice": Invoice(sum=5)}  # type: ignore[call-arg]


# --- signals, sizes ---------------------------------------------------------------------------------------------------


def test_a_signal_s_payload_is_none_unless_it_was_given() -> None:
    assert decode_signal(Shape(int | None), "n", None, run_id="r") is None
    assert decode_signal(Shape(int | None), "n", b"5", run_id="r") == 5


def test_a_signal_that_does_not_fit_says_where() -> None:
    with pytest.raises(SignalInvalid) as caught:
        decode_signal(Shape(Order), "n", b'{"id":5}', run_id="r")

    assert (caught.value.path, caught.value.run_id) == ("/id", "r")
    assert str(caught.value).startswith("signal 'n' does not fit what the workflow waits for: the value does not fit")


def test_a_payload_over_the_limit_says_what_to_do() -> None:
    assert check_size(b"123", 3, "the input") == b"123"
    with pytest.raises(
        PayloadTooLarge, match="the input takes 4 bytes, more than payload_max=3: store the bulk elsewhere"
    ):
        check_size(b"1234", 3, "the input")
