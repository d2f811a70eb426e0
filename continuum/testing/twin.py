"""The other process of paranoid mode: reads a history per line, replays it from nothing, writes where it has come to.

Python's own output goes to stderr, so that nothing a module prints when it is imported disturbs the conversation.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO

from continuum.definitions.catalog import catalog
from continuum.definitions.workflow import Workflow
from continuum.errors import WorkflowNotFound
from continuum.model.events import Event
from continuum.model.packing import pack_history, unpack_history
from continuum.replay.machine import Machine
from continuum.replay.matching import Drift
from continuum.replay.offline import OfflineMachine
from continuum.replay.turns import RunInfo
from continuum.testing.replaying import stand


def question(workflow: Workflow[..., Any], run: RunInfo, records: list[Event], *, module: str, file: str | None) -> str:
    """Write what a twin is asked: where to find the code, whose history it is, and the history."""
    facts = {name: getattr(run, name) for name in RunInfo.__struct_fields__}
    body = {
        "module": module,
        "file": file,
        "workflow": workflow.name,
        "version": workflow.version,
        "run": facts,
        "history": base64.b64encode(pack_history(records)).decode(),
    }
    return json.dumps(body, default=datetime.isoformat)


def stance(machine: Machine) -> dict[str, Any]:
    """Describe where a machine stands, in words that two processes can compare."""
    return {
        "time": machine.now.isoformat(),
        "open activities": sorted(machine.open_activities),
        "next deadline": machine.deadline.isoformat() if machine.deadline is not None else None,
        "awaited signals": list(machine.waits_for),
        "outcome": type(machine.outcome).__name__ if machine.outcome is not None else None,
        "random numbers": hashlib.sha256(repr(machine.random.getstate()).encode()).hexdigest()[:16],
    }


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Replay one history and tell where that led."""
    try:
        _import(asked["module"], asked["file"])
    except Exception:  # noqa: BLE001  # whatever a module of the user's raises is told to the user
        return {"unimportable": traceback.format_exc()}
    try:
        workflow = catalog().workflow(asked["workflow"], asked["version"])
    except WorkflowNotFound:
        return {"undefined": asked["module"]}
    facts = {**asked["run"], "started_at": datetime.fromisoformat(asked["run"]["started_at"])}
    records = unpack_history(base64.b64decode(asked["history"]))
    machine = OfflineMachine(workflow, RunInfo(**facts))
    try:
        stand(machine, workflow, records)
        if machine.stuck is not None:
            return {"stuck": machine.stuck}
        return {"stance": stance(machine), "more": machine.unwritten if machine.outcome is None else 0}
    except Drift as drift:
        return {"drift": {name: getattr(drift, name) for name in ("seq", "expected", "found", "site")}}
    except Exception:  # noqa: BLE001  # a twin that falls silent tells nothing
        return {"broken": traceback.format_exc()}
    finally:
        machine.close()


def _import(module: str, file: str | None) -> None:
    """Import a module by its name, else from its file: a test runner may have names of its own for what it loads."""
    if module in sys.modules:
        return
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if file is None or not module.startswith(error.name or "/"):  # something that the module itself imports
            raise
        spec = importlib.util.spec_from_file_location(module, file)
        if spec is None or spec.loader is None:
            raise
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module] = loaded
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[module]
            raise


def main() -> None:
    """Answer until nobody asks any more."""
    out: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin.buffer:
        out.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        out.flush()
