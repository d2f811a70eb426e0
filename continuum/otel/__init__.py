"""Traces and metrics by OpenTelemetry; needs the extra `otel`, and an SDK of the host's choice.

import continuum.otel
continuum.otel.setup()     # once, where the host sets up its SDK; continuum.otel.shutdown() undoes it

Short spans: `continuum.run_attempt` while there is something to do for a run in this process (a run that waits has none,
so no span lasts for days), and `continuum.activity_attempt` for each try at an activity, whose own spans are its children.
Each links to the span in which the run was started. Nothing is traced while a history is replayed.
"""

try:
    from continuum.otel.setting_up import setup, shutdown
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        "continuum.otel needs the OpenTelemetry API: pip install 'continuum-durable[otel]'", name=error.name
    ) from error

__all__ = ["setup", "shutdown"]
