"""From a changed script to what has to be executed for it.

In come a recorded run and the present text of its script.  Out come the request (which statements, in which
iterations), the plan that answers it, and the plan as a person reads it.  Nothing is executed here.
"""
