"""How values cross the journal: pydantic's adapters made from annotations, JSON as bytes, problems with their place.

A `Shape` is one annotation, `Parameters` a function's arguments by name. Encoding validates, writes and reads back, so
that what cannot return is refused where it was handed in and not at the replay a week later. `PayloadCodec` is the
host's hook behind it: bytes to bytes, for encryption or compression.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NotRequired, Protocol

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import CoreConfig, PydanticSerializationError, SchemaSerializer, from_json, to_json
from typing_extensions import TypedDict

from continuum.errors import DefinitionError, DurableValueError, InputInvalid, PayloadTooLarge, Problem, SignalInvalid

PAYLOAD_MAX = 1 << 20  # bytes; the default of the option `payload_max`

_CONFIG = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")
_CORE_CONFIG = CoreConfig(ser_json_inf_nan="constants", ser_json_bytes="base64")


# An adapter is asked through its `validator` and `serializer`: its own methods name twenty options to them at each call,
# which takes longer than reading most values.
#
# What pydantic is told when it writes: by name, whatever the model says (only then can it be read whatever the aliases
# are), so that it can be read again, and to raise where a value is not what its annotation says. What was just validated
# as one of `_EXACT` cannot be anything else, and asking for the error costs more than the writing.
_WARILY: dict[str, Any] = {"by_alias": False, "round_trip": True, "warnings": "error"}
_LIGHTLY: dict[str, Any] = {"by_alias": False}
_EXACT = frozenset({int, str, bool, type(None)})
SHORT = 1_000  # bytes up to which what was written of these is surely read again: of numbers, some thousand digits are


class Shape:
    """One annotation: values in, bytes out, and back."""

    __slots__ = ("_adapter", "_how", "annotation")

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._adapter = _adapter(annotation, f"the annotation {annotation!r}")
        self._how = _how_to_write((annotation,))

    def encode(self, value: Any) -> bytes:
        """Validate and write a value.

        Raises:
            DurableValueError: it does not fit the annotation, or cannot be written as JSON and read again.
        """
        try:
            valid = self._adapter.validator.validate_python(value)
            payload = self._adapter.serializer.to_json(valid, **self._how)
            if self._how is not _LIGHTLY or len(payload) > SHORT:
                self._read(payload)
        except ValidationError as error:
            raise _unfit(error, self.annotation) from error
        except (PydanticSerializationError, RecursionError, UnicodeEncodeError) as error:
            raise _unwritable(value, error) from error
        return payload

    def decode(self, payload: bytes) -> Any:
        """Read what `encode` wrote.

        Raises:
            DurableValueError: the bytes do not fit today's annotation.
        """
        try:
            return self._read(payload)
        except ValidationError as error:
            raise _unfit(error, self.annotation) from error

    def recode(self, payload: bytes) -> bytes:
        """Read old bytes and write them with today's types."""
        return self.encode(self.decode(payload))

    def _read(self, payload: bytes) -> Any:
        return self._adapter.validator.validate_json(payload, by_alias=True, by_name=True)


@lru_cache(maxsize=4_096)
def _cached_shape(annotation: Any, _written: str) -> Shape:
    return Shape(annotation)


def shape_of(annotation: Any) -> Shape:
    """Return the shape of an annotation, made once."""
    try:
        # `A | B` equals `B | A`, but which of two similar models is read depends on the order.
        return _cached_shape(annotation, repr(annotation))
    except TypeError:  # an unhashable annotation, such as Annotated[int, [..]]
        return Shape(annotation)


def returned_by(fn: Callable[..., Any]) -> Shape:
    """Return the shape of what `fn` returns, from its annotation; without one, plain JSON."""
    try:
        annotation = typing.get_type_hints(fn, include_extras=True).get("return", Any)
    except (NameError, TypeError, AttributeError):  # lambdas, partials, builtins, names of another scope
        annotation = Any
    return shape_of(annotation)


class Parameters:
    """A function's arguments, stored by name."""

    __slots__ = ("_adapter", "_all_positional", "_defaults", "_how", "_positional", "_signature", "_writer", "function")

    def __init__(self, function: str, signature: inspect.Signature, annotations: Mapping[str, Any]) -> None:
        fields: dict[str, Any] = {}
        for name, parameter in signature.parameters.items():
            has_default = parameter.default is not inspect.Parameter.empty
            fields[name] = NotRequired[annotations[name]] if has_default else annotations[name]
        self.function = function
        self._signature = signature
        self._defaults = {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        self._positional = tuple(
            name for name, parameter in signature.parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY
        )
        self._all_positional = len(self._positional) == len(signature.parameters)
        make: Any = TypedDict  # for type checkers it is no function
        arguments = make("Arguments", fields)
        arguments.__pydantic_config__ = _CONFIG  # a TypedDict brings its own configuration
        self._adapter = _adapter(arguments, f"the parameters of {function}()")
        if not self._adapter.pydantic_complete:
            raise NameError(f"a model among the parameters of {function}() uses a type that is not defined")
        # pydantic's adapter of a TypedDict reads that configuration, but does not write by it.
        self._writer = SchemaSerializer(self._adapter.core_schema, _CORE_CONFIG)
        self._how = _how_to_write(annotations[name] for name in signature.parameters)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Bind, validate and write arguments, defaults included.

        Raises:
            InputInvalid: they do not fit the parameters; `problems` says where.
            DurableValueError: a value cannot be written as JSON and read again.
        """
        return self._write(self._bind(args, kwargs))

    def encode_named(self, arguments: Mapping[str, Any]) -> bytes:
        """Write arguments given by name; see `encode`."""
        self._refuse_unknown(arguments)
        return self._write(arguments)

    def _write(self, arguments: Mapping[str, Any]) -> bytes:
        named = {**self._defaults, **arguments} if self._defaults else arguments
        try:
            valid = self._adapter.validator.validate_python(named, by_alias=True, by_name=True)
            payload = self._writer.to_json(valid, **self._how)
            if self._how is not _LIGHTLY or len(payload) > SHORT:
                self._read(payload)
        except ValidationError as error:
            raise _misfit(error, self.function) from error
        except (PydanticSerializationError, RecursionError, UnicodeEncodeError) as error:
            raise _unwritable(named, error) from error
        return payload

    def encode_json(self, body: bytes) -> bytes:
        """Validate arguments that arrive as a JSON object; see `encode`."""
        try:
            arguments = self._read(body)
        except ValidationError as error:
            raise _misfit(error, self.function) from error
        self._refuse_unknown(from_json(body))  # reading passes them over, for the sake of old histories
        return self.encode_named(arguments)

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Read what `encode` wrote.

        Raises:
            DurableValueError: the bytes do not fit today's parameters.
        """
        try:
            return self._read(payload)
        except ValidationError as error:
            raise _unfit(error, f"the parameters of {self.function}()") from error

    def recode(self, payload: bytes) -> bytes:
        """Read old bytes and write them with today's parameters and defaults."""
        return self.encode_named(self.decode(payload))

    def call(self, fn: Callable[..., Any], payload: bytes, *first: Any) -> Any:
        """Call `fn` with decoded arguments, after those in `first`."""
        arguments = {**self._defaults, **self.decode(payload)} if self._defaults else self.decode(payload)
        positional = map(arguments.pop, self._positional)
        return fn(*first, *positional, **arguments)

    def _read(self, payload: bytes) -> dict[str, Any]:
        arguments: dict[str, Any] = self._adapter.validator.validate_json(payload, by_alias=True, by_name=True)
        return arguments

    def _refuse_unknown(self, arguments: Mapping[str, Any]) -> None:
        unknown = [name for name in arguments if name not in self._signature.parameters]
        if unknown:
            known = ", ".join(self._signature.parameters) or "none"
            problems = [Problem(_pointer((name,)), "no such parameter") for name in unknown]
            raise InputInvalid(f"{self.function}() has no parameter {unknown[0]!r}; it has: {known}", problems=problems)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        if not kwargs and self._all_positional and len(args) == len(self._positional):
            return dict(zip(self._positional, args))  # noqa: B905  # the common call, five times faster than bind
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            problem = Problem("", str(error))
            raise InputInvalid(f"{self.function}() was given wrong arguments: {error}", problems=[problem]) from error


def decode_signal(shape: Shape, name: str, payload: bytes | None, *, run_id: str) -> Any:
    """Read a signal's payload.

    Raises:
        SignalInvalid: it does not fit the type that is waited for.
    """
    try:
        return shape.decode(payload or b"null")
    except DurableValueError as error:
        problem = Problem(error.path, error.message)
        message = f"signal {name!r} does not fit what the workflow waits for: {error.message}"
        raise SignalInvalid(message, problems=[problem], run_id=run_id) from error


def check_size(payload: bytes, limit: int, what: str, name: str = "") -> bytes:
    """Return the payload; `what` of which `name` it is goes into the error.

    Raises:
        PayloadTooLarge: it has more than `limit` bytes.
    """
    if len(payload) > limit:
        raise PayloadTooLarge(
            f"{what} {name}".rstrip() + f" takes {len(payload)} bytes, more than payload_max={limit}: "
            "store the bulk elsewhere and pass a reference, or raise the option"
        )
    return payload


# --- the host's hook --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PayloadContext:
    """What a payload belongs to; an encrypting codec authenticates it, so that payloads cannot be swapped."""

    run_id: str  # for a schedule's arguments: the schedule's id
    kind: str  # the event's or message's type, "heartbeat" or "schedule"
    name: str | None = None


class PayloadCodec(Protocol):
    """Bytes to bytes, around everything that is stored: encryption or compression. Synchronous and quick."""

    def encode(self, payload: bytes, context: PayloadContext) -> bytes:
        """Return what is stored."""
        ...

    def decode(self, payload: bytes, context: PayloadContext) -> bytes:
        """Return what was stored; raise any exception if that cannot be: the run is blocked, not failed."""
        ...


# --- inside -----------------------------------------------------------------------------------------------------------


def _adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    try:
        try:
            return TypeAdapter(annotation, config=_CONFIG)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":  # models and dataclasses bring their own configuration
                raise
            return TypeAdapter(annotation)
    except PydanticUserError as error:
        raise DefinitionError(f"pydantic cannot handle {what}: {error.message}") from error


def _how_to_write(annotations: Iterable[Any]) -> dict[str, Any]:
    return _LIGHTLY if all(type(one) is type and one in _EXACT for one in annotations) else _WARILY


def _pointer(location: tuple[int | str, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _problems(error: ValidationError) -> list[Problem]:
    return [
        Problem(_pointer(item["loc"]), f"{item['msg']}{_forgotten(item['input'])}")
        for item in error.errors(include_url=False)
    ]


def _forgotten(value: object) -> str:
    return "; this is a coroutine, was its `await` forgotten?" if inspect.iscoroutine(value) else ""


def _misfit(error: ValidationError, function: str) -> InputInvalid:
    problems = _problems(error)
    listed = "; ".join(f"{problem.pointer or '/'}: {problem.message}" for problem in problems)
    return InputInvalid(f"the arguments do not fit {function}(): {listed}", problems=problems)


def _unfit(error: ValidationError, what: Any) -> DurableValueError:
    first = _problems(error)[0]
    return DurableValueError(
        f"the value does not fit {what} at {first.pointer or '/'}: {first.message}", path=first.pointer
    )


def _unwritable(value: Any, error: Exception) -> DurableValueError:
    path = _culprit(value, (), 0)
    return DurableValueError(
        f"the value at {_pointer(path) or '/'} cannot be journaled: {error}; "
        "pass plain data (models, dataclasses, JSON), not live objects",
        path=_pointer(path),
    )


_DEPTH_MAX = 32  # a longer pointer helps nobody; a circle has no end


def _culprit(value: Any, path: tuple[int | str, ...], depth: int) -> tuple[int | str, ...]:
    """Find the innermost part that JSON refuses; only walked when something was refused."""
    parts: list[tuple[int | str, Any]] = []
    if isinstance(value, Mapping):
        parts = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(enumerate(value))
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        parts = list(vars(value).items())
    for key, part in parts if depth < _DEPTH_MAX else ():
        if isinstance(part, float) and not math.isfinite(part):
            return (*path, key)
        try:
            to_json(part)
        except (PydanticSerializationError, ValueError, RecursionError):
            return _culprit(part, (*path, key), depth + 1)
    return path
