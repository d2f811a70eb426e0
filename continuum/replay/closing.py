"""How what still waits in a run is closed when the run leaves memory, and what it hears if it asks for more.

Its `finally:` blocks run, but the run has ended, was cancelled or lives elsewhere by now: nothing that they ask for can
be written, so nothing may be performed.
"""

import ctypes
from typing import Any

from continuum.errors import NotAllowedHere

CLOSE_TRIES = 100  # a coroutine may swallow GeneratorExit once per await in its way; beyond that it never ends


class Refusal:
    """Says to each task of a closed run that it can ask for nothing more: once, for it may try for ever.

    What it asks for after that never comes, so that it can be closed wherever it waits.
    """

    def __init__(self) -> None:
        self._told: set[object] = set()

    def tell(self, task: object) -> None:
        """Tell a task, unless it has heard it.

        Raises:
            NotAllowedHere: the first time in each task.
        """
        if task not in self._told:
            self._told.add(task)
            raise NotAllowedHere(
                "the run was cancelled, has ended or leaves memory: what its `finally:` blocks await has no effect; undo "
                "by compensations (`compensate=`, `continuum.saga()`), which a cancel may ask for"
            )


def close(coroutine: Any) -> None:
    """Close a coroutine, however often it waits again on its way out."""
    for _ in range(CLOSE_TRIES):
        try:
            coroutine.close()
        except RuntimeError:  # "coroutine ignored GeneratorExit": it waits again, so it is told again
            continue
        except BaseException:  # noqa: BLE001, S110  # whatever a finally block raises concerns nobody any more
            pass
        return
    # It would not end. Garbage collection, at the latest that of the ending interpreter, would throw GeneratorExit once
    # more, in the real world, where its loop may spin for ever or an activity be performed. So it is never collected.
    _keep_for_ever(coroutine)


_keep_for_ever = ctypes.pythonapi.Py_IncRef  # a reference that nobody holds, and so nobody lets go
_keep_for_ever.argtypes = [ctypes.py_object]
_keep_for_ever.restype = None


def forget(generator: object) -> None:
    """Finalize an asynchronous generator: not at all. The host loop's hook would run its cleanup in the real world."""
