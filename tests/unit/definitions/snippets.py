"""Code in strings, defined as modules are, with source that can be read."""

from __future__ import annotations

import itertools
import linecache
import textwrap
import types
import warnings
from typing import Any

from continuum.errors import PurityError, PurityWarning

_numbers = itertools.count()


def module_of(code: str, name: str = "snippet") -> types.ModuleType:
    """Execute code as a module of its own."""
    text = textwrap.dedent(code)
    file = f"{name}_{next(_numbers)}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = types.ModuleType(name)
    module.__file__ = file
    exec(compile(text, file, "exec"), module.__dict__)
    return module


def a_flow(header: str, body: str, *, options: str = "") -> str:
    """Return the code of a workflow with this body."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return (
        f"import asyncio\nimport continuum\nfrom continuum import activity, pure, workflow\n"
        f"{textwrap.dedent(header).strip()}\n\n"
        f"@workflow({options})\nasync def flow(n: int, text: str = '') -> None:\n{lines}\n"
    )


def told(code: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings that defining this gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        errors: list[str] = []
        try:
            module_of(code)
        except PurityError as error:
            errors = list(error.findings)
    return errors, [str(one.message) for one in caught if one.category is PurityWarning]


def names(findings: list[str]) -> list[str]:
    """Return the names that were found."""
    return [finding.split(": ", 1)[1].split(" ", 1)[0] for finding in findings]


def found(header: str, body: str, **given: Any) -> tuple[list[str], list[str]]:
    """Return the names of the errors and of the warnings."""
    errors, doubts = told(a_flow(header, body, **given))
    return names(errors), names(doubts)
