"""For the tests of those who write workflows: everything in memory, in virtual time; histories that are kept and replayed.

`environment()` runs workflows; `replay()` and `assert_replays()` try code against a history that `dump_history()` has
written; `environment(paranoid=True)` replays every turn in other processes.
"""

from continuum.client.reading import History
from continuum.testing.environment import Environment, environment
from continuum.testing.files import HistoryUnreadable, dump_history, load_history
from continuum.testing.paranoia import NotReplayable, ReplayDiffers
from continuum.testing.replaying import Replayed, Waiting, assert_replays, replay
from continuum.testing.standstill import Standstill

__all__ = [
    "Environment",
    "History",
    "HistoryUnreadable",
    "NotReplayable",
    "ReplayDiffers",
    "Replayed",
    "Standstill",
    "Waiting",
    "assert_replays",
    "dump_history",
    "environment",
    "load_history",
    "replay",
]
