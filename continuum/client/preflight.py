"""Would the open runs go on with the code at hand? Their histories are replayed against it, and nothing is touched.

Nothing is claimed and nothing written: runs are listed newest first, their histories loaded in pages (from snapshots where
there are any) and replayed by a machine that causes nothing, the next page on its way meanwhile. A history is what it was
at one moment; what the run does afterwards belongs to the next look.

A run is clean if the code asks for what its history holds. Otherwise it has trouble, and runs that stumble over the same
line for the same reason are one `Trouble`:

    drift        the code asks for something else
    stuck        the code cannot go on: a bug, an input that today's types cannot read
    fails        the code fits, and then raises at once: the run would fail when it is next looked at
    unreadable   the history itself cannot be read here: a payload codec, a newer format
    missing      there is no code for the workflow and version
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from continuum.errors import InputInvalid, Problem
from continuum.journal.port import CodeJournal, LoadedRun, RunJournal
from continuum.model.events import EVENT_FORMAT
from continuum.model.states import RunState
from continuum.model.versions import OpenRun
from continuum.replay.endings import report
from continuum.replay.matching import Drift
from continuum.replay.offline import OfflineMachine
from continuum.replay.turns import Body, Failed
from continuum.runtime.decisions import facts_of

Kind = Literal["drift", "stuck", "fails", "unreadable", "missing"]
Watch = Callable[[int, int], object]  # how many runs are done, of how many
Find = Callable[[str, int], Body | None]  # the code of a workflow and version, if it is here

LISTED = 1_000  # open runs that are listed by one query
PAGE_RUNS, PAGE_EVENTS = (
    100,
    20_000,
)  # of the histories that are in memory at once, twice; one that is longer comes alone
EXAMPLES = 5  # run ids that are named of runs with the same trouble


class PreflightJournal(CodeJournal, RunJournal, Protocol):
    """What a preflight reads."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What `runs` open runs stumble over; `seq`, `expected` and `found` are those of the first of `examples`.

    `site` is `file:line in function`, where there is one; `found` is the reason where nothing was expected.
    """

    kind: Kind
    workflow: str
    version: int
    site: str | None
    seq: int | None
    expected: str | None
    found: str
    runs: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PatchUse:
    """How many open runs of a version have decided to take a patch, and how many to go without.

    `without` is None where it is not known: then at most `undecided` runs may still need the old way.
    """

    workflow: str
    version: int
    patch: str
    taken: int
    without: int | None
    undecided: int

    @property
    def is_needed(self) -> bool | None:
        """Whether an open run needs the code of before the patch; None: nobody knows without looking at the code."""
        if self.without is None:
            return None if self.undecided else False
        return self.without > 0


@dataclass(frozen=True, slots=True)
class Preflight:
    """What replaying the open runs came to.

    `open_runs` is how many there were, `runs` how many of them were looked at, `events` how long their histories are,
    `mended` how many runs are blocked now and fit this code.
    """

    open_runs: int
    runs: int
    events: int
    clean: int
    mended: int
    troubles: tuple[Trouble, ...]
    patches: tuple[PatchUse, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every run that was looked at would go on."""
        return not self.troubles


@dataclass(frozen=True, slots=True)
class Stumble:
    """What became of one run: `kind` None is clean."""

    kind: Kind | None
    site: str | None = None
    seq: int | None = None
    expected: str | None = None
    found: str = ""


def examine(loaded: LoadedRun, workflow: Body, instance: str) -> tuple[Stumble, dict[str, bool]]:
    """Replay one run; return what it stumbled over, and which patches it takes as far as it was asked."""
    if loaded.unreadable is not None:
        return Stumble("unreadable", found=loaded.unreadable), {}
    if any(event.format > EVENT_FORMAT for event in loaded.history):
        return Stumble("unreadable", found="the history was written by a newer version of Continuum"), {}
    # Depth was checked when the children were started: the instance may allow more than the default.
    machine = OfflineMachine(workflow, facts_of(loaded.row, instance), depth_max=sys.maxsize)
    try:
        machine.replay(loaded.history)
    except Drift as drift:
        return Stumble("drift", drift.site, drift.seq, drift.expected, drift.found), {}
    except Exception as error:  # noqa: BLE001  # whatever it is, it says something of this run and nothing of the others
        return Stumble("unreadable", found=f"its history cannot be replayed: {report(error)}"), {}
    else:
        return _stance(machine), machine.patches
    finally:
        machine.close()


def _stance(machine: OfflineMachine) -> Stumble:
    if machine.stuck is not None:
        return Stumble("stuck", _last_line(machine.stuck), found=machine.stuck)
    match machine.outcome:
        case Failed(failure):
            found = f"{failure.type}: {failure.message}\n{failure.traceback or ''}".rstrip()
            return Stumble("fails", _last_line(found), found=found)
        case _:
            return Stumble(None)


def _last_line(reason: str) -> str | None:
    """Return the innermost line that a traceback names."""
    lines = re.findall(r'File "(.+)", line (\d+), in (\S+)', reason)
    return "{}:{} in {}".format(*lines[-1]) if lines else None


async def preflight(
    journal: PreflightJournal,
    find: Find,
    instance: str,
    *,
    workflow: str | None = None,
    sample: int | None = None,
    watch: Watch | None = None,
) -> Preflight:
    """Replay the open runs of an instance against the code at hand.

    Args:
        find: where the code is.
        workflow: only runs of this workflow.
        sample: at most so many runs of each workflow and version, from the oldest to the newest of them.
        watch: is told how far it is.

    Raises:
        InputInvalid: `sample` is no number of runs.
        JournalUnavailable: the database does not answer.
    """
    if sample is not None and (type(sample) is not int or sample < 1):
        message = f"sample must be an integer of at least 1, not {sample!r}"
        raise InputInvalid(message, problems=[Problem("/sample", "must be at least 1")])
    listed = await _open_runs(journal, workflow)
    chosen = _sampled(listed, sample)
    tally = _Tally(listed, is_sample=len(chosen) < len(listed))
    tell = watch or (lambda _done, _total: None)
    here = []
    for run in chosen:
        if find(run.workflow, run.version) is None:
            found = f"there is no code for workflow {run.workflow!r} version {run.version} here: import its module"
            tally.count(run.workflow, run.version, run.run_id, Stumble("missing", found=found), {})
        else:
            here.append(run)
    tell(tally.runs, len(chosen))
    async for loaded in _loaded(journal, here):
        row = loaded.row
        code = find(row.workflow, row.version)  # a run may have continued as another version since
        if not row.state.has_ended and code is not None:
            stumble, patches = examine(loaded, code, instance)
            tally.events += len(loaded.history)
            tally.count(row.workflow, row.version, row.run_id, stumble, patches)
            tally.mended += row.state is RunState.BLOCKED and stumble.kind is None
            await asyncio.sleep(0)  # who replays thousands of histories lets others live
        tell(tally.runs, len(chosen))
    return tally.told()


async def _open_runs(journal: CodeJournal, workflow: str | None) -> list[OpenRun]:
    listed: list[OpenRun] = []
    before: tuple[datetime, str] | None = None
    while page := await journal.open_runs(workflow=workflow, limit=LISTED, before=before):
        listed += page
        before = page[-1].created_at, page[-1].run_id
    return listed


def _sampled(runs: Sequence[OpenRun], sample: int | None) -> list[OpenRun]:
    """Choose evenly among the runs of each version: drift shows in old runs, and in those that stand where few do."""
    if sample is None:
        return list(runs)
    groups: dict[tuple[str, int], list[OpenRun]] = defaultdict(list)
    for run in runs:
        groups[run.workflow, run.version].append(run)
    chosen: list[OpenRun] = []
    for group in groups.values():
        count = min(sample, len(group))
        last = max(count - 1, 1)
        chosen += [group[number * (len(group) - 1) // last] for number in range(count)]
    return chosen


def _pages(runs: Iterable[OpenRun]) -> Iterator[list[str]]:
    page: list[str] = []
    events = 0
    for run in runs:
        if page and (len(page) == PAGE_RUNS or events + run.last_seq > PAGE_EVENTS):
            yield page
            page, events = [], 0
        page.append(run.run_id)
        events += run.last_seq
    if page:
        yield page


async def _loaded(journal: RunJournal, runs: Sequence[OpenRun]) -> Any:
    """Yield the runs with their histories; the next page is on its way while one is looked at."""
    pages = _pages(runs)
    loading = _next(journal, pages)
    try:
        while loading is not None:
            page, loading = await loading, None
            loading = _next(journal, pages)
            for loaded in page:
                yield loaded
    finally:
        if loading is not None:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)


def _next(journal: RunJournal, pages: Iterator[list[str]]) -> asyncio.Task[Sequence[LoadedRun]] | None:
    page = next(pages, None)
    return None if page is None else asyncio.ensure_future(journal.load_runs(page))


class _Tally:
    """Counts, and puts together what belongs together."""

    def __init__(self, listed: Sequence[OpenRun], *, is_sample: bool) -> None:
        self.open_runs = len(listed)
        self._versions = Counter((run.workflow, run.version) for run in listed)
        self.is_sample = is_sample
        self.runs = self.events = self.clean = self.mended = 0
        self._troubles: dict[tuple[object, ...], tuple[Stumble, list[str]]] = {}
        self._patches: dict[tuple[str, int, str], list[int]] = {}

    def count(self, workflow: str, version: int, run_id: str, stumble: Stumble, patches: dict[str, bool]) -> None:
        """Take note of one run."""
        self.runs += 1
        for patch, is_taken in patches.items():
            self._patches.setdefault((workflow, version, patch), [0, 0])[is_taken] += 1
        if stumble.kind is None:
            self.clean += 1
            return
        alike = (stumble.kind, workflow, version, stumble.site, _alike(stumble.expected), _alike(stumble.found))
        self._troubles.setdefault(alike, (stumble, []))[1].append(run_id)

    def told(self) -> Preflight:
        """Return what it came to, the most frequent trouble of each version first."""
        troubles = [
            Trouble(
                kind=stumble.kind or "drift",
                workflow=str(alike[1]),
                version=int(str(alike[2])),
                site=stumble.site,
                seq=stumble.seq,
                expected=stumble.expected,
                found=stumble.found,
                runs=len(run_ids),
                examples=tuple(run_ids[:EXAMPLES]),
            )
            for alike, (stumble, run_ids) in self._troubles.items()
        ]
        troubles.sort(key=lambda one: (one.workflow, one.version, -one.runs, one.site or ""))
        patches = [self._use(*key, *counts) for key, counts in sorted(self._patches.items())]
        return Preflight(
            self.open_runs, self.runs, self.events, self.clean, self.mended, tuple(troubles), tuple(patches)
        )

    def _use(self, workflow: str, version: int, patch: str, without: int, taken: int) -> PatchUse:
        """Say who takes a patch: that nobody goes without is known only where all runs were looked at, and had no trouble."""
        has_trouble = any(alike[1:3] == (workflow, version) for alike in self._troubles)
        is_known = without > 0 or not (has_trouble or self.is_sample)
        undecided = max(self._versions[workflow, version] - taken - without, 0)  # one may have come since it was listed
        return PatchUse(workflow, version, patch, taken, without if is_known else None, undecided)


def _alike(text: str | None) -> str | None:
    """Leave out what differs between runs that stumble over the same thing: the number of the command, and its values."""
    if text is None:
        return None
    first = text.partition("\n")[0]
    return re.sub(r"\(command \d+\)|[0-9a-f]{8}-[0-9a-f-]{27}", "", first.partition(" with b'")[0])
