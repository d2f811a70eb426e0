"""How a step is told in the log: one line, the same in every process."""

from __future__ import annotations

import hashlib
from typing import Any

from continuum.model.writes import Commit

TOLD = frozenset(
    {"write", "claim_runs", "claim_tasks", "sweep", "declare_dead", "register", "renew", "retire", "release_run"}
)


def touched(name: str, args: tuple[Any, ...], answer: Any) -> list[str]:
    """Return the runs that a step was about, if somebody could be curious about them."""
    if name == "claim_runs":
        return [claim.run_id for claim in answer.runs]
    return [write.run_id for write in args[-1] if isinstance(write, Commit)] if name == "write" else []


def line_of(name: str, args: tuple[Any, ...], answer: Any) -> str | None:
    """Return the line of a step; None if nothing happened."""
    match name:
        case "write":
            pairs = zip(args[-1], answer, strict=True)
            return "write " + "; ".join(f"{_short(write)} = {type(verdict).__name__}" for write, verdict in pairs)
        case "claim_runs":
            taken = ", ".join(f"{claim.run_id[-6:]}@{claim.token}" for claim in answer.runs)
            return f"claim {taken}" if taken else None
        case "claim_tasks":
            taken = ", ".join(_attempt(task.attempt) for task in answer)
            return f"tasks {taken}" if taken else None
        case "sweep":
            return f"sweep {answer}" if answer.runs or answer.tasks or answer.exhausted or answer.blocked else None
        case "declare_dead":
            return f"dead {answer}" if answer else None
        case "renew":
            return None if answer else f"renew {args[-1]}: lost"
        case "register":
            return f"register {args[-1].owner}"
        case _:
            return f"{name} {args[1:]} = {answer}"


def _attempt(attempt: Any) -> str:
    return f"{attempt.key.run_id[-6:]}/{attempt.key.command_id}#{attempt.attempt}"


def _short(write: Any) -> str:
    digest = hashlib.sha256(repr(write).encode()).hexdigest()[:8]
    kind = type(write).__name__
    if hasattr(write, "attempt"):
        return f"{kind} {_attempt(write.attempt)} {digest}"
    if hasattr(write, "message"):
        return f"{kind} {write.message.run_id[-6:]} {write.message.kind.value} {digest}"
    if hasattr(write, "events"):
        what = ",".join(f"{event.type.value}{event.command_id or ''}" for event in write.events)
        seq = write.base_seq if hasattr(write, "base_seq") else 0
        token = write.token if hasattr(write, "token") else (1 if write.owner else 0)
        state = write.state.value if write.state else "-"
        return f"{kind} {write.run_id[-6:]}@{token}+{seq} {state} [{what}] {digest}"
    return f"{kind} {digest}"
