"""What may name a namespace, a key, a signal or a delivery: short, on one line, fit for an index and a log. And instances."""

from __future__ import annotations

import re
from typing import TypeGuard

NAME_MAX = 200  # characters: they stand in indexes
SHORT_NAME = f"a string of 1 to {NAME_MAX} characters, none of them a control character"  # for error messages
_INSTANCE = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch  # part of owner ids, URLs and file names
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search  # control characters, and halves of characters


def is_short_name(value: object) -> TypeGuard[str]:
    """Tell whether a value is a string of 1 to 200 characters, none of them a control character."""
    return isinstance(value, str) and 0 < len(value) <= NAME_MAX and not _UNFIT(value)


def is_instance_name(value: object) -> TypeGuard[str]:
    """Tell whether a value may name an instance: 1 to 64 letters, digits, '_', '.' or '-'."""
    return isinstance(value, str) and _INSTANCE(value) is not None
