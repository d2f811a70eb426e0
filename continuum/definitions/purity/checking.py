"""Checks a definition: its function, and everything of your own code that it calls, however deep.

A helper that nobody marked is read too, so it cannot smuggle in what its caller may not do. `@pure` marks one that is
checked where it stands; it is not read again for each of its callers. The code of other distributions is not read.

What is certain to break a replay is an error, wherever it stands. What a replay only repeats (a log line) is an error
in the workflow itself and in marked helpers, and a warning in unmarked ones, which others may call too. Doubtful
constructs are warnings.
"""

from __future__ import annotations

import os
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from continuum.definitions.purity.naming import recognise_what_is_loaded
from continuum.definitions.purity.rules import Kind, covers
from continuum.definitions.purity.sources import Source, source_of
from continuum.definitions.purity.walking import Finding, Read, read
from continuum.errors import ConfigurationError, DefinitionError, PurityError, PurityWarning
from continuum.replay.sites import is_installed

Purity = Literal["error", "warn", "off"]
LEVELS: tuple[str, ...] = get_args(Purity)
DEFAULT_FROM = "CONTINUUM_PURITY"  # an environment variable: a way out that needs no new code
MARK = "__continuum_pure__"


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and how the code gets there: empty for the definition's own function."""

    finding: Finding
    path: tuple[str, ...]

    @property
    def is_certain(self) -> bool:
        """Whether it is an error."""
        kind = self.finding.rule.kind
        return kind is Kind.DIVERGES or (kind is Kind.REPEATS and not self.path)

    def __str__(self) -> str:
        finding = self.finding
        through = f" (called through {' → '.join(self.path)})" if self.path else ""
        return f"{finding.name} {finding.rule.why}: {finding.rule.hint}{through}"


def check(fn: Callable[..., Any], what: str, *, purity: Purity | None, allow: Sequence[str]) -> None:
    """Check a function and what it calls.

    Raises:
        PurityError: something in it breaks replays for certain, and `purity` is "error".
        DefinitionError: `purity` or `allow` is not what it must be.
    """
    assert isinstance(fn, types.FunctionType), "the decorators let nothing else through"
    level = _level(what, purity)
    if isinstance(allow, str) or not all(isinstance(name, str) for name in allow):
        raise DefinitionError(f"{what}: allow takes a tuple of names, such as ('logging', 'time.monotonic'): {allow!r}")
    if level == "off":
        return
    recognise_what_is_loaded()
    allowance = _Allowance(allow)
    found = list(_all_found(fn, allowance))
    errors = [one for one in found if one.is_certain and level == "error"]
    for one in found:
        if one not in errors:
            _warn(f"{what}: {one}", one.finding.file, one.finding.line, fn)
    for name in allowance.unused if source_of(fn) is not None else ():
        _warn(f"{what}: allow={name!r} allows nothing that is done here", *_place(fn), fn)
    if errors:
        raise PurityError(_told(what, errors), findings=[_line(one) for one in errors])


def _level(what: str, purity: str | None) -> str:
    if purity is not None and purity not in LEVELS:
        raise DefinitionError(f'{what}: purity must be "error", "warn" or "off", not {purity!r}')
    level = purity or os.environ.get(DEFAULT_FROM) or "error"
    if level not in LEVELS:
        raise ConfigurationError(f"{DEFAULT_FROM} must be error, warn or off, not {level!r}")
    return level


class _Allowance:
    """The names that were allowed explicitly, and which of them were needed."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._used: set[str] = set()

    def covers(self, name: str) -> bool:
        known = covers(self._names, name)
        if known is not None:
            self._used.add(known)
        return known is not None

    @property
    def unused(self) -> list[str]:
        return [name for name in self._names if name not in self._used]


def _all_found(fn: types.FunctionType, allowance: _Allowance) -> Iterator[Found]:
    waiting: list[tuple[types.FunctionType, tuple[str, ...]]] = [(fn, ())]
    seen = {fn.__code__}
    while waiting:
        function, path = waiting.pop(0)
        source = source_of(function)
        was_read = _read(source, fn) if source is not None else None
        if source is None or was_read is None:
            continue
        for finding in was_read.findings:
            if not allowance.covers(finding.name):
                yield Found(finding, path)
        for use in was_read.uses:
            helper = use.function
            if helper.__code__ not in seen and _is_yours(helper, fn) and not hasattr(helper, MARK):
                seen.add(helper.__code__)
                if not allowance.covers(f"{helper.__module__}.{helper.__qualname__}"):
                    waiting.append((helper, (*path, f"{helper.__qualname__} at {_short(source.file)}:{use.line}")))


def _read(source: Source, fn: types.FunctionType) -> Read | None:
    try:
        return read(source)
    except Exception as error:  # noqa: BLE001  # code that is right must not fail to import because its checker is wrong
        place = f"{source.node.name} ({source.file}:{source.node.lineno})"
        _warn(f"{place} could not be checked, please report it: {error!r}", source.file, source.node.lineno, fn)
        return None


def _is_yours(helper: types.FunctionType, fn: types.FunctionType) -> bool:
    """Tell whether a helper belongs to the same package, or at least to no installed distribution."""
    home, away = str(fn.__module__), str(helper.__module__)
    top = away.partition(".")[0]
    if top == "continuum":
        return home == away
    return home.partition(".")[0] == top or not is_installed(helper.__code__.co_filename)


def _warn(message: str, file: str, line: int, fn: Callable[..., Any]) -> None:
    warnings.warn_explicit(message, PurityWarning, file, line, module=fn.__module__)


def _place(fn: types.FunctionType) -> tuple[str, int]:
    return fn.__code__.co_filename, fn.__code__.co_firstlineno


def _short(file: str) -> str:
    return Path(file).name


def _line(found: Found) -> str:
    return f"{found.finding.file}:{found.finding.line}: {found}"


def _told(what: str, errors: Sequence[Found]) -> str:
    lines = "\n".join(f"  {_line(one)}" for one in errors)
    names = ", ".join(dict.fromkeys(repr(one.finding.name) for one in errors))
    return (
        f"{what} would not replay:\n{lines}\n"
        f'Mend it, or say that it is meant: allow=({names},) for these names, purity="warn" or "off" for all of it.'
    )
