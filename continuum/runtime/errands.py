"""Carries the messages that workflows send to other runs, and brings back what came of each.

A workflow's `signal` and `cancel` are commands: the turn's commit journals them, then they are carried here, and what
came of it is the command's answer. A process that dies in between leaves the run `running`, so whoever resumes it
carries the same message again under the same id, which its receiver knows by then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from uuid import UUID, uuid5

from continuum.errors import JournalUnavailable
from continuum.journal.port import Contended
from continuum.model.failure import failure_of
from continuum.model.messages import Message, MessageKind
from continuum.replay.machine import RAISED
from continuum.replay.turns import Errand, RunInfo

PASSING = (JournalUnavailable, Contended)  # what the database says of itself, not of the message

Carry = Callable[[Errand, str], Coroutine[object, None, str]]
"""Sends a message, once however often it is tried under its label; returns a word, or raises what the workflow hears."""


async def nobody_carries(errand: Errand, label: str) -> str:
    """Stand in until the composition has plugged in what sends messages."""
    raise AssertionError(f"nobody carries {errand} ({label})")


async def carried(errand: Errand, facts: RunInfo, carry: Carry) -> Message:
    """Carry a message for a run; return what it hears of it.

    Raises:
        JournalUnavailable, Contended: nobody knows what came of it; carry it again.
    """
    label = f"{facts.generation}/{errand.command_id}"
    name: str | None = None
    try:
        payload = json.dumps(await carry(errand, f"{facts.run_id}/{label}")).encode()
    except PASSING:
        raise
    except Exception as refusal:  # noqa: BLE001  # a validator of the host's, too: without an answer the run would stay
        name, payload = RAISED, failure_of(refusal).encode()
    return Message(
        message_id=str(uuid5(UUID(facts.run_id), label)),
        run_id=facts.run_id,
        kind=MessageKind.MESSAGE_ANSWERED,
        name=name,
        payload=payload,
        generation=facts.generation,
        command_id=errand.command_id,
    )
