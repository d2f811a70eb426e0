"""What activities of the simulation have at hand: the node that performs them."""

from __future__ import annotations

from typing import Protocol

from continuum import ActivityContext, Retry, activity_context
from continuum.clock import Clock

PATIENT = Retry(max_attempts=8, initial=0.1, max_delay=1.0)


class Hands(Protocol):
    """What activities get from the node that performs them, as `activity_context().state`."""

    clock: Clock

    def began(self, context: ActivityContext) -> None:
        """Take note of an attempt."""
        ...


def hands() -> Hands:
    """Return the node's hands, which have taken note of this attempt."""
    context = activity_context()
    found: Hands = context.state
    found.began(context)
    return found
