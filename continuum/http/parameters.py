"""Parameters that several routes take."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Path

from continuum.http.shapes import RUN_ID

ABSENT: Any = None  # of a parameter that may be left out and, whatever Python calls its absence, cannot be null

InstanceName = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="The name of an instance.", examples=["orders"])
]
RunId = Annotated[UUID, Path(description="The run's id.", examples=[RUN_ID])]
