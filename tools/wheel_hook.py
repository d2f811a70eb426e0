"""Puts `migrations/` into the wheel as `continuum/migrations`.

A hook and not `force-include`: that one also copies the folder into site-packages of an editable install, where the copy
goes stale at the next edit. In a checkout the migrations are found where they are written.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MigrationsHook(BuildHookInterface):
    """Adds the migrations to a built wheel; leaves an editable install alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Map the folder, which must exist: a wheel without migrations cannot create its tables."""
        if version == "standard":
            build_data["force_include"]["migrations"] = "continuum/migrations"
