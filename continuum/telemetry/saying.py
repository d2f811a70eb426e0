"""Logging that goes no further: a host's filters and handlers are called wherever the engine has something to say.

`logging` reports what a handler raises while it writes, but not what a filter raises: one that looks for the request that
a line belongs to, say, where there is none. That would end a loop, or leave what a commit caused undone.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any


def say(
    logger: logging.Logger,
    level: int,
    message: str,
    *args: object,
    exc_info: BaseException | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Log a line; what the host's logging raises is reported on standard error, as `logging` itself does."""
    try:
        logger.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=2)
    except Exception:  # noqa: BLE001  # whatever it is: who logs must not decide what becomes of a run
        if logging.raiseExceptions:
            traceback.print_exc()
