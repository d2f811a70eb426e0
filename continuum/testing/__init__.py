"""For the tests of those who write workflows: everything in memory, in virtual time."""

from continuum.testing.environment import Environment, environment

__all__ = ["Environment", "environment"]
