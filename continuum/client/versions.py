"""Which versions of workflows there are: how many open runs need each, and which living nodes carry it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from continuum.client.preflight import PatchUse
from continuum.journal.port import CodeJournal
from continuum.model.states import RunState


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """A version of a workflow: its open runs by state, the nodes that carry it (one name per process), its patches."""

    workflow: str
    version: int
    open_runs: Mapping[RunState, int]
    nodes: tuple[str, ...]
    patches: tuple[PatchUse, ...] = ()

    @property
    def runs(self) -> int:
        """How many runs are open."""
        return sum(self.open_runs.values())

    @property
    def is_stranded(self) -> bool:
        """Whether runs wait that no living node can run."""
        return self.runs > 0 and not self.nodes

    @property
    def is_removable(self) -> bool:
        """Whether no open run needs it, so that its code may go once nothing starts it any more."""
        return self.runs == 0


async def versions(journal: CodeJournal) -> tuple[WorkflowVersion, ...]:
    """Return every version that an open run needs or a living node carries."""
    counts: dict[tuple[str, int], dict[RunState, int]] = defaultdict(dict)
    for one in await journal.open_counts():
        counts[one.workflow, one.version][one.state] = one.runs
    nodes: dict[tuple[str, int], list[str]] = defaultdict(list)
    for carrier in await journal.carriers():
        nodes[carrier.workflow, carrier.version].append(carrier.node)
    patches: dict[tuple[str, int], list[PatchUse]] = defaultdict(list)
    for mark in await journal.patch_marks():
        runs = sum(counts[mark.workflow, mark.version].values())
        undecided = max(runs - mark.runs, 0)  # the counts are of two moments
        use = PatchUse(mark.workflow, mark.version, mark.patch, mark.runs, None, undecided)
        patches[mark.workflow, mark.version].append(use)
    return tuple(
        WorkflowVersion(*key, counts.get(key, {}), tuple(nodes.get(key, ())), tuple(patches.get(key, ())))
        for key in sorted({*counts, *nodes})
    )


def with_patches(known: Iterable[WorkflowVersion], found: Iterable[PatchUse]) -> tuple[WorkflowVersion, ...]:
    """Return the versions with what a preflight of all their runs found out about patches."""
    exact: dict[tuple[str, int], dict[str, PatchUse]] = defaultdict(dict)
    for use in found:
        exact[use.workflow, use.version][use.patch] = use
    return tuple(
        replace(
            one,
            patches=tuple(
                use
                for _, use in sorted(
                    {**{use.patch: use for use in one.patches}, **exact[one.workflow, one.version]}.items()
                )
            ),
        )
        for one in known
    )
