"""The purity check: what a workflow's code must not do, found where it is written, before it ever runs.

A workflow is replayed: what it reads must be the same every time, what it causes must go through the journal. `rules`
is the table of what breaks that, with the way out; `things` and `naming` say what an expression stands for and by which
names the table knows it; `resolving` follows names through aliases, imports, globals and closures; `walking` reads one
function; `checking` goes on into the helpers that it calls and decides what is an error and what a warning.

Only source is read, nothing is called. Where there is none (`python -c`, an `exec`, a module shipped as bytecode) there
is nothing to check. What this check cannot see (a receiver whose class is not known, the code of other distributions)
the guard does (`continuum.replay.guard`).
"""
