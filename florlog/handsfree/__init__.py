"""Recording a script that never heard of florlog.

`choice` finds the loops of the training by analysis, `reading` turns a tree into the one that is run and
compared, `runtime` is what the turned code calls, `session` opens the run around it.
"""
