"""The whole library in one thread and in virtual time, with everything that can go wrong going wrong, from one seed.

    workflows   what runs, and what its results must be
    world       the loop, the nodes: real components over one store in memory
    adversary   lost answers, partitions, crashes, pauses, lost wakes: drawn from the seed
    plans       what clients will ask for
    story       how they ask for it, and what they are told
    checker     looks at the tables after every step
    ending      looks at everything, once all is quiet
    telling     how a step is told in the log
    running     one seed from its first moment to its verdict

`python -m tests.simulation --seed 123 -v` runs one seed and prints its log. The same seed gives the same log, byte for
byte, in whatever process.
"""
