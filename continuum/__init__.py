"""Continuum: durable execution for teams who already run FastAPI and SQLAlchemy.

@activity                                   an effect, performed at least once, journaled once
@workflow                                   an `async def` that survives its process
children(name=..., engine=...)              the components of an instance, for the host's lifespan
start, signal, cancel, await_run, ...       the verbs
"""

import logging

from continuum.client.preflight import PatchUse, Preflight, Trouble
from continuum.client.reading import History, HistoryEvent, Page
from continuum.client.versions import WorkflowVersion
from continuum.codec import PayloadCodec, PayloadContext
from continuum.composition.building import application, children
from continuum.composition.change_verbs import preflight, versions
from continuum.composition.children import Children
from continuum.composition.instance import Instance
from continuum.composition.readiness import Readiness
from continuum.composition.schedule_verbs import (
    backfill_schedule,
    delete_schedule,
    get_schedule,
    list_schedules,
    pause_schedule,
    resume_schedule,
    schedule,
    trigger_schedule,
)
from continuum.composition.verbs import (
    await_run,
    cancel,
    drain,
    get_run,
    history,
    instance,
    lifespan,
    list_runs,
    migrate,
    readiness,
    resolve,
    set_attributes,
    signal,
    start,
    start_many,
)
from continuum.definitions.activity import Activity, activity
from continuum.definitions.calls import Call
from continuum.definitions.children import ChildHandle, start_child
from continuum.definitions.compensating import compensate, compensate_all, saga
from continuum.definitions.continuing import continue_as_new
from continuum.definitions.handles import RunHandle, resolve_verbs_with
from continuum.definitions.pure import pure
from continuum.definitions.schedule_handles import ScheduleHandle
from continuum.definitions.workflow import Workflow, workflow
from continuum.errors import (
    ActivityError,
    ActivityFailed,
    ActivityTimedOut,
    ChildCancelled,
    ChildFailed,
    ConfigurationError,
    ContinuumError,
    DefinitionError,
    DuplicateDefinition,
    DurableValueError,
    IdempotencyConflict,
    InputInvalid,
    InstanceDraining,
    InstanceNotRegistered,
    InstanceNotStarted,
    JournalUnavailable,
    NondeterminismError,
    NotAllowedHere,
    NotInWorkflow,
    PayloadTooLarge,
    Problem,
    PurityError,
    PurityWarning,
    ResultTimedOut,
    RunBlocked,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotActive,
    RunNotCommitted,
    RunNotFound,
    ScheduleNotFound,
    SchemaNotReady,
    SchemaTaken,
    SessionInvalid,
    SignalInvalid,
    SignalTimedOut,
    SignalUnknown,
    WorkflowNotFound,
    WrongEventLoop,
)
from continuum.model.failure import Failure
from continuum.model.policy import Retry
from continuum.model.runs import Run
from continuum.model.schedules import FIRE_TIME, Overlap, Schedule, ScheduleState
from continuum.model.states import RunState
from continuum.replay.context import (
    in_workflow,
    info,
    log,
    now,
    patched,
    random,
    side_effect,
    today,
    uuid4,
    wait_signal,
)
from continuum.replay.matching import Drift
from continuum.replay.turns import RunInfo
from continuum.runtime.activity_context import ActivityContext, activity_context
from continuum.runtime.component import Component

resolve_verbs_with(resolve)

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what is heard of it, a host decides

__all__ = [
    "FIRE_TIME",
    "Activity",
    "ActivityContext",
    "ActivityError",
    "ActivityFailed",
    "ActivityTimedOut",
    "Call",
    "ChildCancelled",
    "ChildFailed",
    "ChildHandle",
    "Children",
    "Component",
    "ConfigurationError",
    "ContinuumError",
    "DefinitionError",
    "Drift",
    "DuplicateDefinition",
    "DurableValueError",
    "Failure",
    "History",
    "HistoryEvent",
    "IdempotencyConflict",
    "InputInvalid",
    "Instance",
    "InstanceDraining",
    "InstanceNotRegistered",
    "InstanceNotStarted",
    "JournalUnavailable",
    "NondeterminismError",
    "NotAllowedHere",
    "NotInWorkflow",
    "Overlap",
    "Page",
    "PatchUse",
    "PayloadCodec",
    "PayloadContext",
    "PayloadTooLarge",
    "Preflight",
    "Problem",
    "PurityError",
    "PurityWarning",
    "Readiness",
    "ResultTimedOut",
    "Retry",
    "Run",
    "RunBlocked",
    "RunCancelled",
    "RunExists",
    "RunFailed",
    "RunHandle",
    "RunInfo",
    "RunNotActive",
    "RunNotCommitted",
    "RunNotFound",
    "RunState",
    "Schedule",
    "ScheduleHandle",
    "ScheduleNotFound",
    "ScheduleState",
    "SchemaNotReady",
    "SchemaTaken",
    "SessionInvalid",
    "SignalInvalid",
    "SignalTimedOut",
    "SignalUnknown",
    "Trouble",
    "Workflow",
    "WorkflowNotFound",
    "WorkflowVersion",
    "WrongEventLoop",
    "activity",
    "activity_context",
    "application",
    "await_run",
    "backfill_schedule",
    "cancel",
    "children",
    "compensate",
    "compensate_all",
    "continue_as_new",
    "delete_schedule",
    "drain",
    "get_run",
    "get_schedule",
    "history",
    "in_workflow",
    "info",
    "instance",
    "lifespan",
    "list_runs",
    "list_schedules",
    "log",
    "migrate",
    "now",
    "patched",
    "pause_schedule",
    "preflight",
    "pure",
    "random",
    "readiness",
    "resume_schedule",
    "saga",
    "schedule",
    "set_attributes",
    "side_effect",
    "signal",
    "start",
    "start_child",
    "start_many",
    "today",
    "trigger_schedule",
    "uuid4",
    "versions",
    "wait_signal",
    "workflow",
]
