"""The views of a run that ``florlog inspect`` prints: records, iterations, values, images, source and plan.

In comes a store and a selection.  Out come lines of text or JSON.  It does not know a terminal's screen.
"""
