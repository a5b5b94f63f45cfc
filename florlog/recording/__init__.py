"""A run while its script executes: the loops, the records they append, the images they take.

In come the calls of the user's script.  Out come records in a log.  The same `run.Run` serves recording, resume
and replay; a replay gives it a guide from `florlog.following`.  It does not know how the script was started, or
what is asked.
"""
