"""Reading the program: what was added to it, what its loops carry, where a statement can run.

Pure analysis of source text with ``ast``; nothing here runs the user's code except `execution`.
"""
