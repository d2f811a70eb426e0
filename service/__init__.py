"""A host of Continuum that can be deployed as it is, and read as an example: `uvicorn service.app:app`."""
