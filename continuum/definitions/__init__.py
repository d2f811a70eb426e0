"""The pen: what users write. Decorated functions, their names and versions, and the catalog that finds them.

`signatures` reads a function once and refuses what could never be journaled; `workflow` and `activity` are the two kinds
of definition; `calls` captures a definition with its arguments; `handles` is what a started run is held by.
"""
