"""The group committer: the writes of all runs that are ready travel as one batch.

There is no timer. While one batch is on the wire the next one gathers, so an idle system writes at once and a busy one
writes much at a time. `submit` only appends to a queue and never waits; one task per lane takes from it.

Lane 1 carries what may have to wait for somebody's open transaction (a start with a key or a chosen id, a message with
a delivery id), sorted by key so that two committers never wait for each other; lane 0 carries all the rest, whose rows
the journal locks in the order of runs, and never stands behind it. No run has two commits under way: in one batch its
row would be updated once and both histories written.

What can go wrong, and what is done:

* contended: nothing happened. The same batch again after a pause, from the second time on in halves, alone for as long
  as it takes, while others go past. Nothing is ever lost to a lock.
* bad data: nothing happened. In halves until the culprit fails alone, and only it is told.
* ambiguous: each write may have landed. The batch is frozen: each commit, start and message is judged by what the journal
  holds, and only what did not arrive is sent again, as it was. The first sending may still be under way in the database, so
  that a refusal of the second is judged once more. What is harmless to repeat (it names its ids) is simply repeated.
* a bug in the journal: as bad data, but what it left behind is frozen, because nobody promised that nothing happened.
* unavailable: nothing was sent. Again, for as long as it takes; the bounded queue holds the callers back meanwhile.
"""

from continuum.journal.group.batch import Settled
from continuum.journal.group.committer import GroupCommitter

__all__ = ["GroupCommitter", "Settled"]
