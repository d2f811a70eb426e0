"""How much there is, counted for people and their dashboards: never for a decision."""

from msgspec import Struct

from continuum.model.states import RunState


class RunCount(Struct, frozen=True, gc=False, order=True):
    """How many open runs are in a state; of suspended ones, whether a timer is among what they wait for."""

    state: RunState
    waits_for: str  # "timer", "message" (an activity, a signal, a child), "" if it does not wait
    runs: int


class QueueDepth(Struct, frozen=True, gc=False, order=True):
    """How many tasks of a queue nobody has taken: `due` ones, for how long, and those of retries that wait for their time."""

    queue: str
    due: int
    delayed: int
    oldest_age_seconds: float


class Census(Struct, frozen=True):
    """Open runs and waiting tasks of one instance, on all nodes. Each kind is counted up to a limit."""

    runs: tuple[RunCount, ...] = ()
    queues: tuple[QueueDepth, ...] = ()
