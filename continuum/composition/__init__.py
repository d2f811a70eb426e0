"""The wiring: parts of an instance, their options, their order, and the names under which instances are found.

`options` is the one source of every option and its default. `wiring` builds the parts of one instance around a journal.
`parts` starts and stops them in order. `instance` is the object with the verbs; `instances` finds it by name; `defaults`
owns the one named "continuum".
"""
