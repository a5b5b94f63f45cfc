"""Trees that are run in the place of a script's own, and the text of a notebook's program.

instrument     a script whose loops can be left, with the edits of a replay
edits          what a replay may do that the source does not say
without        a text without some of its statements
skip_signal    what is raised to leave an iteration
rewrite        an unmodified script with recorded loops and values
loop_choice    which of its loops are recorded
excerpt        the functions of a library's module that are part of a program
cell_text      the cells of a notebook as one module
"""
