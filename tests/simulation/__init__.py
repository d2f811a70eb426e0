"""The whole library in one thread and in virtual time, with everything that can go wrong going wrong, from one seed.

    workflows   what runs: a script of steps
    kin         steps that reach beyond one history: children, other runs, debts, generations
    hands       what activities have at hand
    model       what the words of a script may be, told from its histories
    world       the loop, the nodes: real components over one store in memory
    adversary   lost answers, partitions, crashes, pauses, lost wakes: drawn from the seed
    plans       what clients will ask for
    timetables  which schedules there are, and who looks after them
    story       how they ask for it, and what they are told
    checker     looks at the tables after every step
    families    what must hold between parents and children
    debts       what must be undone, and how often
    clockwork   what must hold of schedules
    ending      looks at everything, once all is quiet
    telling     how a step is told in the log
    running     one seed from its first moment to its verdict

`python -m tests.simulation --seed 123 -v` runs one seed and prints its log. The same seed gives the same log, byte for
byte, in whatever process.
"""
