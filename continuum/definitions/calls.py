"""A definition with its arguments, captured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[R_co]):
    """What `.bound(*args, **kwargs)` returns; `definition` is the workflow or activity."""

    definition: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
