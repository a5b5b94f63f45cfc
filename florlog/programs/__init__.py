"""How each kind of program is executed: a script, a hands-free script, the cells of a notebook, a recorded source.

In comes a program and, for a replay, the guide that it follows and the edits of its code.  Out comes its execution,
with its files in a sandbox where it is a replay.  It does not know what is asked of the program.

    kinds               which kind a program is, and how each is recorded, resumed and replayed
    scripts             a script as ``python SCRIPT`` runs it
    hands_free          a run around an unmodified script; announcement, program_files: what was found in it
    adoption            functions of frameworks' modules that are run as a part of the program
    framework_runs      runs that a script opens around a framework's training
    notebook_cells      the cells of a notebook; live_functions: new code for functions that exist already
    recorded_program    the program of a run as it was recorded
    guided_run          a replay along a guide; isolation: its random numbers
    finders             local modules, instrumented
    source_mirror       a directory with the recorded source
    permission          whether recorded code may be executed
"""
