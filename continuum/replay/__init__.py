"""The mind: history in, turns out. No database, no wall clock, no dice, no host event loop.

    history ──► Machine.replay ──► (the workflow stands where it stood) ──► Machine.turn(answers) ──► Turn

A workflow is plain asyncio on a loop of ours (`loop`). The machine (`machine`) delivers one answer at a time, lets the
loop run until nothing more can happen, and so turns history into the one order in which everything is decided. Each
command that the code asks for goes through one match-or-append (`matching`): while history lasts it must be the
journaled one, afterwards it is new. `context` is what workflow code can ask for besides activities.
"""
