"""What the simulation asks of the interpreter."""

import sys

import pytest

OLD_TIMEOUT = (
    "asyncio.timeout of this Python raises CancelledError instead of TimeoutError in a task that has survived a "
    "cancellation before, as random workflows do; 3.11.4 and later do not"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the stories out where they would find a bug of Python's."""
    if sys.version_info < (3, 11, 4):
        for item in items:
            if "tests/simulation/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=OLD_TIMEOUT))
