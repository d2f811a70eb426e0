"""Which databases there are, for whoever migrates or hosts all of them: a name, a URL, and on PostgreSQL a schema.

They are written once, where the host, `alembic -x tenant=…` and `continuum migrate --all-tenants` read them:

    [tool.continuum.tenants]                                       # in the nearest pyproject.toml
    orders = "postgresql+asyncpg://db/orders"
    billing = { url = "postgresql+asyncpg://db/shared", schema = "billing" }

    CONTINUUM_TENANTS__orders=postgresql+asyncpg://db/orders       # in the environment, which wins
    CONTINUUM_TENANTS__billing__url=postgresql+asyncpg://db/shared
    CONTINUUM_TENANTS__billing__schema=billing
    CONTINUUM_TENANTS={"orders": "…", "billing": {"url": "…", "schema": "billing"}}

Names out of the environment are in small letters, whatever case the variable has: that is how pydantic-settings reads
them, with which `service/` and many hosts do. A tenant of the environment replaces the file's of the same name whole.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continuum.errors import ConfigurationError
from continuum.model.names import is_instance_name

VARIABLE = "CONTINUUM_TENANTS"
DELIMITER = "__"
HOW = f"write [tool.continuum.tenants] into pyproject.toml, or set {VARIABLE}{DELIMITER}<name>=<url>"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A database, or a schema of one, that belongs to one instance."""

    name: str
    url: str = field(repr=False)  # it may hold a password
    schema: str | None = None


def configured(environ: Mapping[str, str] | None = None, *, folder: Path | None = None) -> dict[str, Tenant]:
    """Return all tenants, by name in the order of names.

    Args:
        environ: the environment's variables; by default this process's.
        folder: where to look for a pyproject.toml, and then in the folders above; by default the current one.

    Raises:
        ConfigurationError: an entry cannot be read; the message says which, and what one looks like.
    """
    found = {**_of_file(folder or Path.cwd()), **of_environment(os.environ if environ is None else environ)}
    return dict(sorted(found.items()))


def tenant(name: str, environ: Mapping[str, str] | None = None, *, folder: Path | None = None) -> Tenant:
    """Return the tenant of this name; arguments as for `configured`.

    Raises:
        ConfigurationError: there is none; the message lists those that there are.
    """
    known = configured(environ, folder=folder)
    if name not in known:
        raise ConfigurationError(f"no tenant is named {name!r}. Known: {', '.join(known) or 'none'}; {HOW}")
    return known[name]


def of_environment(environ: Mapping[str, str]) -> dict[str, Tenant]:
    """Return the tenants that the environment names.

    Raises:
        ConfigurationError: an entry cannot be read.
    """
    entries: dict[str, Any] = {}
    for variable, name, part, value in _variables(environ):
        if name is None:
            entries = {**_of_json(variable, value), **entries}
        elif part is None:
            entries[name] = value
        else:
            begun = entries.setdefault(name, {})
            if not isinstance(begun, dict):
                raise ConfigurationError(
                    f"tenant {name!r} is given twice, by {variable} and by {VARIABLE}{DELIMITER}{name}: "
                    f"with a schema its URL is {VARIABLE}{DELIMITER}{name}{DELIMITER}url"
                )
            begun[part] = value
    return of_entries(entries, "the environment")


def of_entries(entries: object, where: str) -> dict[str, Tenant]:
    """Return the tenants that a table means: a name → a URL, or a table with `url` and perhaps `schema`.

    Raises:
        ConfigurationError: an entry is something else; the message says of `where`.
    """
    return {name: _tenant(name, entry, where) for name, entry in _table(entries, where).items()}


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None, str]]:
    """Yield our variables, the shorter names first: which one, the tenant's name, what of it, the value."""
    for variable in sorted(environ, key=lambda variable: (variable.count(DELIMITER), variable)):
        prefix, *rest = variable.lower().split(DELIMITER, 2)
        if prefix == VARIABLE.lower() and environ[variable]:
            name, part = [*rest, None, None][:2]
            yield variable, name, part, environ[variable]


def _of_json(variable: str, text: str) -> dict[str, Any]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{variable} is not JSON ({error}); {HOW}") from error
    return _table(entries, variable)


def _of_file(folder: Path) -> dict[str, Tenant]:
    path = next((place / "pyproject.toml" for place in (folder, *folder.parents) if _is_file(place)), None)
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    entries = content.get("tool", {}).get("continuum", {}).get("tenants", {})
    return of_entries(entries, str(path))


def _is_file(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file()


def _table(entries: Any, where: str) -> dict[str, Any]:
    if not isinstance(entries, dict):
        raise ConfigurationError(f"{where} must map tenants' names to URLs, not be {type(entries).__name__}")
    return entries


def _tenant(name: str, entry: Any, where: str) -> Tenant:
    given = {"url": entry} if isinstance(entry, str) else entry
    is_whole = isinstance(given, dict) and {"url"} <= set(given) <= {"url", "schema"}
    if not is_whole or not all(isinstance(value, str) and value for value in given.values()):
        raise ConfigurationError(f"tenant {name!r} of {where} must be a URL, or have a url and perhaps a schema")
    if not is_instance_name(name):
        raise ConfigurationError(
            f"tenant {name!r} of {where}: a name has 1 to 64 letters, digits, '_', '.' or '-', like an instance's"
        )
    return Tenant(name, given["url"], given.get("schema"))
