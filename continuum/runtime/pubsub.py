"""In-process topics: who waits for a run's end hears of it at once, if it ends here.

Only hints: whoever waits also polls, so a lost notice costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from continuum.model.runs import Ending

Listener = Callable[[Ending], object]


class PubSub:
    """Topics by run id."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def subscribe(self, run_id: str, listener: Listener) -> None:
        """Call `listener` with the run's ending, or when it is blocked."""
        self._listeners.setdefault(run_id, []).append(listener)

    def unsubscribe(self, run_id: str, listener: Listener) -> None:
        """Stop calling; leaves nothing behind."""
        listeners = self._listeners.get(run_id)
        if listeners is not None and listener in listeners:
            listeners.remove(listener)
            if not listeners:
                del self._listeners[run_id]

    def publish(self, ending: Ending) -> None:
        """Tell everyone who waits for this run."""
        for listener in tuple(self._listeners.get(ending.run_id, ())):
            listener(ending)

    @property
    def topics(self) -> tuple[str, ...]:
        """The runs that somebody waits for, in the order in which the waiting began."""
        return tuple(self._listeners)


class NoPubSub(PubSub):
    """Publishes nothing: everyone polls."""

    def publish(self, ending: Ending) -> None:
        """Do nothing."""
