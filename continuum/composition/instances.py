"""name → instance, for the verbs: registered by `children()`, found by every call that names it."""

from __future__ import annotations

from typing import Generic, TypeVar

from continuum.errors import ConfigurationError, InstanceNotRegistered

I = TypeVar("I")  # noqa: E741  # an instance

DEFAULT = "continuum"


class Instances(Generic[I]):
    """The instances of this process."""

    def __init__(self) -> None:
        self._by_name: dict[str, I] = {}

    def register(self, name: str, instance: I, *, is_running: bool) -> None:
        """Enter a name; a stopped instance is replaced.

        Raises:
            ConfigurationError: an instance of this name is running.
        """
        if is_running:
            raise ConfigurationError(f"instance {name!r} is running: stop it before making another one of this name")
        self._by_name[name] = instance

    def known(self, name: str) -> I | None:
        """Return the instance of this name, if there is one."""
        return self._by_name.get(name)

    def get(self, name: str) -> I:
        """Return the instance of this name.

        Raises:
            InstanceNotRegistered: there is none.
        """
        found = self._by_name.get(name)
        if found is None:
            listed = ", ".join(sorted(self._by_name)) or "none"
            how = "`async with continuum.application()`" if name == DEFAULT else f"`children(name={name!r}, engine=…)`"
            raise InstanceNotRegistered(f"no instance is named {name!r}; {how} registers it. Registered: {listed}")
        return found

    def remove(self, name: str, instance: I) -> None:
        """Take a name back."""
        if self._by_name.get(name) is instance:
            del self._by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Every registered name."""
        return tuple(sorted(self._by_name))
