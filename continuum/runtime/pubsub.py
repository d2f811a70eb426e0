"""Who hears at once of a run's end (or that it is blocked), if it ends here.

Each listener hears of every run and looks into a register of its own. Only hints: whoever waits also polls, so a lost
notice costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from continuum.model.runs import Ending

Listener = Callable[[Ending], object]


class PubSub:
    """The listeners of one instance, which stay for as long as it does."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with the ending of every run."""
        self._listeners.append(listener)

    def publish(self, ending: Ending) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            listener(ending)


class NoPubSub(PubSub):
    """Publishes nothing: everyone polls."""

    def publish(self, ending: Ending) -> None:
        """Do nothing."""
