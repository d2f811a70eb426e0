"""What Continuum costs, measured on a real PostgreSQL with full durability; `make bench` runs all of it.

Every number is the median of several repetitions in one run, printed with its command; none is a test.
"""
