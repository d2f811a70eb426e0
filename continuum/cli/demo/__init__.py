"""`continuum demo`: twenty orders on two nodes, one of which is killed half-way.

    places    a fresh SQLite file, or a PostgreSQL server of our own
    processes the nodes, seen from their parent: started, listened to, killed, drained
    node      a node, seen from inside: a process with one `continuum.application`
    orders    the workflow and its activities, and what is expected of each order
    ledger    how often each activity really ran, written outside of the journal
    standing  what the journal says about all orders at one moment
    story     the course of events: start, half-way, SIGKILL, take-over, the end
    verify    whether everything came out as it should, from the evidence alone
    screen    what is shown of it, on a terminal and elsewhere
    command   all of it together, and what remains afterwards

The parent is a client of the same database: it runs neither workflows nor activities.
"""
