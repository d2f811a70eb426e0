"""Prints the OpenAPI document of the HTTP API: `python -m tools.print_openapi docs/openapi.json`."""

import json
import sys
from pathlib import Path

from fastapi import FastAPI

import continuum
import continuum.http


def document() -> str:
    """Return the document of an application that mounts the router and nothing else."""
    app = FastAPI(
        title="Continuum",
        version=continuum.__version__,
        summary="Durable execution for FastAPI and SQLAlchemy.",
        description="Start, signal, cancel, await and read runs of the instances that an application hosts.",
    )
    app.include_router(continuum.http.router())
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
