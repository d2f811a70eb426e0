"""Every statement of the SQL journals: one module per subject, each statement built once, with a name.

A statement is a template in the words of `continuum.journal.sql.dialects`; where the dialects need different SQL
altogether it has two. `Book` holds them rendered for one dialect and schema.

    {runs} {events} {inbox} {tasks} {owners} {snapshots} {schedules} {instances} …   table names
    {now}   {later:seconds}                                             the database's time
    {among:ids uuid}                                                    = one of the values of the list :ids
    {within:SELECT id FROM ok}                                          = one of what a query gives, asked once
    {rows:w(of_run uuid, token bigint)}                                 a table w made of the rows in the parameter w
    {merged:attributes, patch}                                          attributes after changes (null removes)
    {lock:r}                                                            row locks, passing over locked rows
"""
