"""How each kind of program is executed: a script, a hands-free script, the cells of a notebook, a recorded source.

In comes a program and, for a replay, the guide that it follows.  Out comes its execution, with its files in a
sandbox where it is a replay.  It does not know what is asked of the program.
"""
