"""The hands: what runs in a host's process for one instance.

A run lives as an `execution` in the `registry`; the `run_supervisor` makes executions, evicts idle ones and drains them.
An activity is performed as an `attempt` that the `activity_supervisor` owns, and what comes of it travels through
`delivery`. The loops (dispatcher, activity_dispatcher, recovery, timer_wheel, signal_router, heartbeater, snapshotter,
pruner) find work and never import each other: each may be off, and everything is correct on polling alone.

    signal ─► registry: here? ─► execution.offer ─► turn ─► commit ─► effects (attempts begin, awaiters wake)
                   └ no ─► inbox row ─► nudge whoever holds the lease ─► signal_router reads it ─► execution
                                        (`wakes`: memory, else `peers` by HTTP to its `peer_door`, else a notice)
"""
