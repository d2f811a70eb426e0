"""What a signal must be to pass the door: what `@workflow(signals={...})` says of the run's own workflow and version.

A contract is closed: it names every signal that the workflow takes. A run whose code is not known here, or says
nothing, takes any signal; its wait checks the payload. Nothing is asked of the database where no workflow at all has a
contract, or where the run lives in this process.
"""

from __future__ import annotations

from collections.abc import Mapping

from continuum.client.inputs import Json
from continuum.client.venues import Reads
from continuum.codec import Shape, shape_of
from continuum.definitions.catalog import Catalog
from continuum.errors import DefinitionError, DurableValueError, Problem, SignalInvalid, SignalUnknown, WorkflowNotFound
from continuum.journal.port import ReadJournal
from continuum.runtime.execution import Execution
from continuum.runtime.registry import Registry


class Contracts:
    """Checks and encodes what is sent to runs."""

    def __init__(self, *, catalog: Catalog, journal: ReadJournal, registry: Registry[Execution]) -> None:
        self._catalog = catalog
        self._journal = journal
        self._registry = registry

    async def encode(self, run_id: str, name: str, payload: object, reads: Reads | None = None) -> bytes:
        """Encode a payload by the run's contract, if it has one; `reads` knows runs that only a host's transaction sees.

        Raises:
            SignalUnknown: the contract does not name this signal.
            SignalInvalid: the payload does not fit, or cannot be journaled.
        """
        contract = await self._of(run_id, reads or self._journal) if self._catalog.declares_signals else None
        if contract is None:
            return encoded(None, name, payload, run_id=run_id)
        if name not in contract:
            raise _unknown(name, contract, run_id)
        return encoded(contract[name], name, payload, run_id=run_id)

    async def _of(self, run_id: str, reads: Reads) -> Mapping[str, Shape] | None:
        execution = self._registry.get(run_id)
        if execution is not None:
            known = execution.facts.workflow, execution.facts.version
        else:
            row = await reads.run(run_id)
            if row is None:  # whoever posts is told so
                return None
            known = row.workflow, row.version
        try:
            contract: Mapping[str, Shape] | None = self._catalog.workflow(*known).signals
        except WorkflowNotFound:
            return None
        return contract


def encoded(shape: Shape | None, name: str, payload: object, *, run_id: str | None) -> bytes:
    """Encode a signal's payload, by its own type where nothing is said.

    Raises:
        SignalInvalid: it does not fit, or cannot be journaled.
    """
    try:
        if isinstance(payload, Json):
            return (shape or shape_of(object)).recode(payload.body)
        return (shape or shape_of(type(payload) if payload is not None else object)).encode(payload)
    except DefinitionError as error:  # no annotation describes it: a function, a live object
        problem = Problem("", error.message)
        message = f"the payload of signal {name!r} cannot be journaled: pass plain data, not {payload!r}"
        raise SignalInvalid(message[:500], problems=[problem], run_id=run_id) from error
    except DurableValueError as error:
        problem = Problem(error.path, error.message)
        message = f"the payload of signal {name!r}: {error}"
        raise SignalInvalid(message, problems=[problem], run_id=run_id) from error


def _unknown(name: str, contract: Mapping[str, Shape], run_id: str) -> SignalUnknown:
    known = ", ".join(sorted(contract)) or "none"
    return SignalUnknown(
        f"the workflow of run {run_id} takes no signal {name!r}; it declares: {known}",
        problems=[Problem("/name", f"must be one of: {known}")],
        run_id=run_id,
    )
