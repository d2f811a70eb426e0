"""`python -m tools.print_options FILE`: write the option reference from its one source in code."""

from __future__ import annotations

import sys
from pathlib import Path

from continuum.composition.options import INSTANCE, PARTS, Option

HEAD = """# Options

`children(name=..., engine=..., **options)` and `application(engine_or_url, **options)` take these. Durations are seconds or
`timedelta`. An unknown or ill-typed option raises `ConfigurationError` and names the valid ones.

| option | meaning |
| --- | --- |
| `schema` | the PostgreSQL schema of the tables; default: wherever the search path finds them |
| `listen_engine` | an engine for LISTEN, when `engine` leads through a pooler that passes no notices on |
| `advertise_url` | where peers reach this process; stored with its owner row |
| `node` | this process's name in lease owners and telemetry; default: the host's name |
| `migrations` | `"check"` (default), `"upgrade"` at start, or `"off"` |
| `payload_codec` | bytes to bytes around everything stored: encryption or compression |
| `state` | handed to activities as `activity_context().state` |
| `workflows`, `activities` | what this instance serves; default: all that are imported |
| `client_only` | the verbs without workers; default False |
| `required` | False: the host starts without this instance when its database is away or behind, which is tried again; default True |
"""


def reference() -> str:
    """Return the page."""
    lines = [HEAD.rstrip()]
    lines += [_row(option) for option in INSTANCE]
    lines += ["", "## Components", "", "Each takes True (default), False, or a dict of its options.", ""]
    for part in PARTS:
        lines += [
            f"### `{part.name}`",
            "",
            f"{part.meaning[0].upper()}{part.meaning[1:]}. When off: {part.when_off}.",
            "",
        ]
        if part.options:
            lines += ["| option | meaning |", "| --- | --- |", *(_row(option) for option in part.options), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(option: Option) -> str:
    default = "" if option.default is None else f"; default {option.default!r}"
    return f"| `{option.name}` | {option.meaning}{default} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
