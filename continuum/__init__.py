"""Continuum: durable execution for teams who already run FastAPI and SQLAlchemy."""
