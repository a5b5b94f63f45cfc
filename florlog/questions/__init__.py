"""Questions that are made of other questions: bisection over iterations, one question to many versions of a
script.

In come runs and a condition or a script.  Out come the answers, put together from those that `florlog.redo`
gives.
"""
