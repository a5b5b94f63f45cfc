"""Executing a plan, in this process or in several, and storing what was found next to the recording.

In comes a request with its plan.  Out comes the answer: values, each with its trust.  Other processes are started by
the one spawner of `florlog.program`, which speaks one wire format.
"""
