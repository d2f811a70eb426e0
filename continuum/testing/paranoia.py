"""Paranoid mode: after every turn the run is replayed from nothing, in other processes with other hash seeds.

Whatever a workflow takes from its process and not from its history shows there: the order of a set, a module's
variable, the time of day. Twins are interpreters that live as long as this process and are asked by one line each; they
import the workflow's module themselves, so it must be one that can be imported.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from continuum.definitions.signatures import module_of
from continuum.definitions.workflow import Workflow
from continuum.errors import ContinuumError, NondeterminismError
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.model.events import EventType
from continuum.model.writes import Commit, Landed, Start, Verdict, Write
from continuum.replay.machine import Machine
from continuum.replay.turns import RunInfo
from continuum.testing.twin import question, stance

HASH_SEEDS = ("1", "2", "3")  # two of these: a set of two has the same order under another seed half of the time
TWINS = 2
PATIENCE_SECONDS = 60.0  # an import may take long; a twin that has not answered by then never will
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from continuum.testing.twin import main; main()"

ADVICE = (
    "A workflow must do the same in every process: sort sets before going through them, ask continuum.now(), random() "
    "and uuid4() for time and chance, keep nothing in variables outside of the function."
)


class ReplayDiffers(NondeterminismError, AssertionError):
    """Another process, given the same history, did something else: the run would have been blocked one day."""


class NotReplayable(ContinuumError):
    """Another process cannot find the workflow, so nothing can be compared."""


class Twin:
    """One other interpreter, with a hash seed of its own."""

    def __init__(self, hash_seed: str) -> None:
        self.hash_seed = hash_seed
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process that writes it
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and our own code
            [sys.executable, "-c", BOOT, json.dumps([os.path.abspath(entry) for entry in sys.path])],  # noqa: PTH100
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._read = b""

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, asked: str) -> None:
        """Hand a question over."""
        line = memoryview(asked.encode() + b"\n")
        try:
            while line:
                line = line[self._in.write(line) or 0 :]
        except BrokenPipeError:
            raise self._fallen() from None

    def answer(self) -> dict[str, Any]:
        """Wait for the answer."""
        while b"\n" not in self._read:
            if not select.select([self._out], [], [], PATIENCE_SECONDS)[0]:
                self.close()
                raise ContinuumError(f"the other process of paranoid mode said nothing for {PATIENCE_SECONDS:g} s")
            some = self._out.read(1 << 16)
            if not some:
                raise self._fallen()
            self._read += some
        line, _, self._read = self._read.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        """End it."""
        self._in.close()
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._errors.close()

    def _fallen(self) -> ContinuumError:
        self._process.wait()
        self._errors.seek(0)
        last_words = self._errors.read()[-2_000:].decode(errors="replace")
        return ContinuumError(f"the other process of paranoid mode has ended:\n{last_words}")


_twins: list[Twin] = []


def twins() -> Sequence[Twin]:
    """Return this process's twins, alive."""
    if not all(twin.is_alive for twin in _twins):
        close_twins()
    if not _twins:
        own = os.environ.get("PYTHONHASHSEED")
        seeds = [seed for seed in HASH_SEEDS if seed != own][:TWINS]
        _twins.extend(Twin(seed) for seed in seeds)
    return _twins


@atexit.register
def close_twins() -> None:
    """End this process's twins; the next check begins new ones."""
    while _twins:
        _twins.pop().close()


class Paranoia:
    """What one environment checks, and what it has found."""

    def __init__(self) -> None:
        self.found: ContinuumError | None = None

    def check(self, workflow: Workflow[..., Any], run: RunInfo, records: Sequence[Any], machine: Machine) -> None:
        """Let every twin replay a history, and note the first that comes to something else than this process did."""
        if self.found is None:
            try:
                self._check(workflow, run, list(records), machine)
            except ContinuumError as error:
                self.found = error

    def _check(self, workflow: Workflow[..., Any], run: RunInfo, records: list[Any], machine: Machine) -> None:
        module = module_of(workflow.fn)
        file = getattr(sys.modules.get(workflow.fn.__module__), "__file__", None)
        asked = question(workflow, run, records, module=module, file=file)
        asked_ones = twins()
        for twin in asked_ones:
            twin.ask(asked)
        for twin, told in [(twin, twin.answer()) for twin in asked_ones]:
            what = f"{workflow!r}, run {run.run_id}, in a process with PYTHONHASHSEED={twin.hash_seed}: "
            difference = _difference(told, workflow, stance(machine), records[-1].seq)
            if difference is not None:
                raise difference(what)


def _difference(
    told: dict[str, Any], workflow: Workflow[..., Any], here: dict[str, Any], seq: int
) -> Callable[[str], ContinuumError] | None:
    match told:
        case {"drift": {"seq": number, "expected": expected, "found": found, "site": site}}:
            where = f", asked for at {site}" if site else ""
            text = f"the replay differs at event {number}: expected {expected}, found {found}{where}. {ADVICE}"
        case {"stuck": reason}:
            text = f"the replay blocks after event {seq}: {reason}"
        case {"stance": there, "more": more}:
            differing = [name for name in here if here[name] != there[name]]
            if more:
                text = f"the replay asks for {more} more command(s) after event {seq}. {ADVICE}"
            elif differing:
                name = differing[0]
                text = f"after event {seq} {name} differ: {here[name]} here, {there[name]} there. {ADVICE}"
            else:
                return None
        case {"unimportable": trace}:
            return lambda what: NotReplayable(f"{what}its module cannot be imported there:\n{trace}")
        case {"undefined": module}:
            return lambda what: NotReplayable(f"{what}{_how_to_define(workflow, module)}")
        case _:
            return lambda what: ContinuumError(f"{what}the replay broke: {told}")
    return lambda what: ReplayDiffers(f"{what}{text}")


def _how_to_define(workflow: Workflow[..., Any], module: str) -> str:
    if "<locals>" in workflow.fn.__qualname__:
        why = "it is defined inside a function, which only this process has called"
    else:
        why = f"importing {module} does not define it (is it behind `if __name__ == '__main__'`, or in a notebook?)"
    return (
        f"{why}. Paranoid mode needs it at the top level of a module; or turn it off here: environment(paranoid=False)"
    )


class WatchedJournal(MemoryJournal):
    """A journal whose commits are checked as soon as they have landed."""

    def __init__(
        self, store: MemoryStore, paranoia: Paranoia, find: Callable[[str], tuple[Workflow[..., Any], Machine] | None]
    ) -> None:
        super().__init__(store)
        self._paranoia = paranoia
        self._find = find

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Write, then check every run that took a turn."""
        verdicts = await super().write(lane, batch)
        for write, verdict in zip(batch, verdicts, strict=True):
            if isinstance(verdict, Landed) and isinstance(write, Start | Commit) and write.events:
                await self._check(write)
        return verdicts

    async def _check(self, write: Start | Commit) -> None:
        if all(event.type is EventType.CANCELLED for event in write.events):  # no code took part in that
            return
        found = self._find(write.run_id)
        if found is None:  # a run that was only inserted: whoever claims it takes its first turn
            return
        workflow, machine = found
        generation = machine.info.generation
        records = await self.history(write.run_id, generation=generation)
        self._paranoia.check(workflow, machine.info, records, machine)
