"""Where the transactions of an instance's transactional activities come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from continuum.composition.options import Settings
from continuum.definitions.catalog import catalog
from continuum.errors import ConfigurationError
from continuum.journal.port import Journal
from continuum.journal.sql import HostTransactions
from continuum.runtime.transactional import NoTransactions, Transactions

MakeTransactions = Callable[[Journal, Settings], Transactions]


def no_transactions(_journal: Journal, _settings: Settings) -> Transactions:
    """Return what an instance without a database has."""
    return NoTransactions()


def transactions_on(engine: AsyncEngine) -> MakeTransactions:
    """Return how to make them on a host's engine."""

    def make(journal: Journal, settings: Settings) -> Transactions:
        if not settings.on("activity_supervisor"):
            return NoTransactions()
        concurrency = settings.part("activity_supervisor")["transactional_concurrency"]
        made = HostTransactions(engine, journal, concurrency=concurrency)
        name = _one_of(settings)
        if made.trouble is not None and name is not None:
            raise ConfigurationError(f"activity {name} is transactional. {made.trouble}")
        return made

    return make


def _one_of(settings: Settings) -> str | None:
    """Return the name of a transactional activity that an instance serves, if there is one."""
    chosen = settings.values["activities"]
    served: list[Any] = [catalog().activity(name) for name in catalog().activities] if chosen is None else chosen
    return next((activity.name for activity in served if activity.session_class is not None), None)
