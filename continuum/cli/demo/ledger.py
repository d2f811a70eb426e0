"""How often each activity's function really ran: one line per attempt, outside of the journal.

The journal says what took effect; that an attempt ran and was lost with its process, nobody there can know. So each
attempt first appends a line to a file. Lines are short and written by one `write` on a descriptor opened with O_APPEND,
so those of several processes never mix.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt at one activity; `fails` tells that it is going to fail on purpose."""

    run_id: str
    activity: str
    attempt: int
    node: int  # its process id
    fails: bool


class Ledger:
    """The file, as the nodes see it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *, run_id: str, activity: str, attempt: int, fails: bool) -> None:
        """Append a line; it is in the file when this returns."""
        entry = Entry(run_id, activity, attempt, os.getpid(), fails)
        os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_ledger(path: Path) -> list[Entry]:
    """Return every attempt that began, in order; a line that a killed process did not finish is none."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [Entry(**json.loads(line)) for line in lines]
