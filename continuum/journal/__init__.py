"""The journal: the truth about every run, in the team's own database.

`port` says what a journal must do, `memory` does it without I/O and is the executable specification, `sql` does it on
SQLite and PostgreSQL, `group` gathers the writes of all runs into few statements. One conformance suite runs on all.
"""
