"""For the Alembic environment of a host: leave Continuum's tables alone, or have them in the host's own history.

    from continuum.alembic import include_name

    context.configure(connection=connection, target_metadata=Base.metadata, include_name=include_name)

Our tables are not in a host's metadata, so that `alembic revision --autogenerate` would propose to drop them. All of them,
and nothing of a host's, are named `continuum_…`; both filters go by that, in whichever schema they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from continuum.journal.sql.migrating import migrations_directory

PREFIX = "continuum_"


def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:  # noqa: ARG001  # Alembic's
    """Leave our tables out when Alembic looks at what a database holds; for `context.configure(include_name=…)`."""
    return not (kind == "table" and _is_ours(name))


def include_object(
    item: object,  # noqa: ARG001  # Alembic's
    name: str | None,
    kind: str,
    reflected: bool,  # noqa: ARG001, FBT001  # Alembic's
    compare_to: object | None,  # noqa: ARG001  # Alembic's
) -> bool:
    """Leave our tables out when Alembic compares; for `context.configure(include_object=…)`."""
    return not (kind == "table" and _is_ours(name))


def version_location() -> str:
    """Return the folder of our migrations, to be one of a host's `version_locations`.

    In an ini file that is `continuum:migrations/versions`; this is for configuration in Python, and for a checkout.
    """
    return str(migrations_directory() / "versions")


def _is_ours(name: str | None) -> bool:
    return name is not None and name.startswith(PREFIX)
