"""The verbs of one instance: what a host and its requests do with runs.

`starting` makes runs, `talking` reaches them (signal, cancel), `reading` asks about them and waits for their end.
`client` is the three together, behind the guards that every verb shares.
"""
