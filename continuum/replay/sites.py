"""Whose code a file is: a site in somebody's library tells less than the line of the workflow that led there."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

_LIBRARIES = (
    *(f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
    f"{Path(__file__).parent.parent}{os.sep}",
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_installed(file: str) -> bool:
    """Tell whether a file belongs to the standard library, to an installed distribution or to Continuum."""
    return file.startswith(_LIBRARIES) or any(part in file for part in _INSTALLED)
