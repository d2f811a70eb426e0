"""Which activities this process serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continuum.definitions.activity import Activity


class ActivityFinder:
    """Finds the code of an activity; a test replaces some of it."""

    def __init__(self, find: Any, names: Any, fakes: Mapping[str, Activity[..., Any]] | None = None) -> None:
        self._find = find
        self._names = names
        self._fakes = dict(fakes or {})

    def get(self, name: str) -> Activity[..., Any] | None:
        """Return the activity of this name, or None if this process does not serve it."""
        found: Activity[..., Any] | None = self._fakes.get(name) or self._find(name)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Every activity that this process serves."""
        names: tuple[str, ...] = self._names()
        return tuple(sorted({*names, *self._fakes})) if self._fakes else names
