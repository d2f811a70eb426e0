"""The pytest plugin of Continuum: definitions of a test vanish after it, and a whole suite can be paranoid.

It stands beside the package and not inside, because pytest loads plugins in every run: this file imports nothing of
Continuum, and so neither SQLAlchemy nor pydantic, before a test does. It needs no other plugin; an async test may run
under pytest-asyncio or anyio, `continuum.testing.environment()` is an async context manager and knows neither.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

PARANOID = "CONTINUUM_PARANOID"  # what continuum.testing.environment() looks at
CATALOG = "continuum.definitions.catalog"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--continuum-paranoid` and the ini option `continuum_paranoid`."""
    group = parser.getgroup("continuum")
    group.addoption(
        "--continuum-paranoid",
        action="store_true",
        default=False,
        help="replay every run of continuum.testing.environment() in other processes with other hash seeds",
    )
    parser.addini("continuum_paranoid", "as --continuum-paranoid, always", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "continuum_paranoid(on=True): environments of this test are paranoid, or are not, whatever the option",
    )


@pytest.fixture
def continuum_environment() -> Callable[..., Any]:
    """Give what makes environments, `continuum.testing.environment`, to be entered with `async with`."""
    environment: Callable[..., Any] = importlib.import_module("continuum.testing").environment
    return environment


@pytest.fixture(autouse=True)
def _continuum_scope(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forget what a test defines; make its environments paranoid if they shall be."""
    with _scoped_catalog(), _paranoia(_is_paranoid(request)):
        yield


def _is_paranoid(request: pytest.FixtureRequest) -> bool | None:
    marker = request.node.get_closest_marker("continuum_paranoid")
    if marker is not None:
        return bool(marker.args[0] if marker.args else marker.kwargs.get("on", True))
    config = request.config
    return True if config.getoption("continuum_paranoid") or config.getini("continuum_paranoid") else None


def _scoped_catalog() -> AbstractContextManager[None]:
    module = sys.modules.get(CATALOG)
    scope: AbstractContextManager[None] = module.catalog().scope() if module is not None else nullcontext()
    return scope


@contextmanager
def _paranoia(on: bool | None) -> Iterator[None]:
    if on is None:  # nobody has said anything: the environment variable stands
        yield
        return
    before = os.environ.get(PARANOID)
    os.environ[PARANOID] = "1" if on else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARANOID]
        else:
            os.environ[PARANOID] = before
