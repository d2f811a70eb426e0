"""Makes `.venv` and installs Continuum, editable, with one dependency group: `python tools/bootstrap.py test|dev`.

Needs nothing but the standard library. uv does the work when it is on PATH, pip otherwise. Groups (PEP 735) are resolved
here, because the pip that comes with Python 3.11-3.13 does not know them yet. A stamp per group, newer than
pyproject.toml and constraints.txt, makes the second call free; the Makefile compares the times.
"""

import os
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PROJECT = ".[all,demo]"
GROUPS = ("test", "dev")  # each contains the ones before it


def main(group: str) -> None:
    """Bring `.venv` up to date with `group`."""
    began = time.monotonic()
    uv = shutil.which("uv")
    if not _works(needs_pip=uv is None):
        _create(uv)
    if uv:
        installer = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(PYTHON)]
    else:
        installer = [str(PYTHON), "-m", "pip", "install", "-qq"]  # errors only
    print(f"==> installing {PROJECT} and the dependency group '{group}' with {'uv' if uv else 'pip'}", flush=True)
    _run([*installer, "--constraint", "constraints.txt", "--editable", PROJECT, *requirements(group)])
    for contained in GROUPS[: GROUPS.index(group) + 1]:
        (VENV / f".installed-{contained}").touch()
    print(f"==> .venv is ready after {time.monotonic() - began:.1f} s", flush=True)


def requirements(group: str) -> list[str]:
    """List the requirements of a dependency group, with the groups that it includes."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    found: list[str] = []
    for entry in groups[group]:
        found += requirements(entry["include-group"]) if isinstance(entry, dict) else [entry]
    return found


def _works(*, needs_pip: bool) -> bool:
    """Tell whether `.venv` can be used: its base may have been removed, the checkout moved, and uv makes it without pip."""
    if not PYTHON.exists():
        return False
    check = f"import sys; {'import pip; ' if needs_pip else ''}sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([str(PYTHON), "-c", check], check=False, capture_output=True).returncode == 0


def _create(uv: str | None) -> None:
    print(f"==> making .venv with Python {sys.version.split()[0]}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if uv:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(VENV)])
    else:
        venv.create(VENV, with_pip=True, symlinks=True)


def _run(command: list[str]) -> None:
    # A missing interpreter is this project's own message to give, not a download to start.
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment)
    if done.returncode:
        sys.exit(f"==> this failed with exit code {done.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in GROUPS:
        sys.exit(f"usage: bootstrap.py {'|'.join(GROUPS)}")
    main(sys.argv[1])
