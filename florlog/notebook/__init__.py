"""Notebooks: a cell is recorded and asked as a script is.

The hard part is not the cell but what it needs from the cells before it: names, imported modules, random
generators as they stand, a model half trained.  Three ways were weighed.

- A forked child of the kernel, kept asleep with the namespace as the cell began, would need no set-up again.
But   threads do not survive a fork (torch's, the kernel's own), neither does CUDA, the child costs memory for
as long as   anybody might ask, and is gone with the kernel. - Executing only the earlier cells that bind names
which the cell reads is a guess: seeds and mutations bind no names. - What is done: **the executed cells are the
program.**  The texts of all cells that ran in the session, in the order   in which they ran, with the recorded
one last, are the source that is kept with the run   (`florlog.source.edit.cell_text`).  A   replay executes
them in a fresh process: first those before, as the set-up of a script, then the recorded one along   the plan.
It needs no kernel, works after a restart, and cannot change the user's namespace.  Its set-up costs what
those cells cost.  Whether it led to the recorded state is compared, as everything a replay does.

Where the texts are not enough to repeat the set-up, the recording notes why, and a replay is refused with that
line: a magic that may change the namespace, top-level await, a cell that was interrupted.  Shell commands and
magics of the display are left out.

`history` knows what ran in the session, and makes the program of it; `execution` runs the cells of a program,
hands-free or not, in a kernel or in a replay; `magic` is ``%%florlog``.  Only `history` and `magic` import
IPython, and nothing imports them before a kernel asks.
"""
