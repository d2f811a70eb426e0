"""Identities: run ids, message ids, boot ids.

Run and message ids are UUIDv7 (RFC 9562), whose order in time keeps index inserts on the newest page; random keys made
the same runs 15 % slower as tables grew. The source is injected, so that a simulation draws the same ids every time.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from random import Random

import uuid_utils

IdSource = Callable[[], str]


def uuid7() -> str:
    """Return a new UUIDv7 as text."""
    return str(uuid_utils.uuid7())


def seeded_ids(draw: Random) -> IdSource:
    """Return a source of UUIDs (version 7 by shape, ordered by call) that depends on `draw` alone."""
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        value = count << 80 | 0x7 << 76 | draw.getrandbits(12) << 64 | 0b10 << 62 | draw.getrandbits(62)
        return str(uuid.UUID(int=value))

    return make


_SCHEDULED = uuid.UUID("5d9f5a0e-5c46-5a0c-9e0a-3f6f0a7f2c11")  # the namespace of the ids below; never to be changed


def scheduled_run_id(schedule_id: str, microseconds: int) -> str:
    """Return the id of the run that a schedule starts for a fire time (microseconds since 1970): the same everywhere."""
    return str(uuid.uuid5(_SCHEDULED, f"{microseconds}@{schedule_id}"))


def canonical(run_id: str | uuid.UUID) -> str:
    """Return a run id as lower-case text with hyphens.

    Raises:
        ValueError: it is not a UUID.
    """
    if type(run_id) is str and _is_canonical(run_id):  # the common case: we made it ourselves
        return run_id
    return str(run_id if isinstance(run_id, uuid.UUID) else uuid.UUID(run_id))


_is_canonical = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
