"""Reading code: the lowest room.

In comes the text of a program.  Out come facts about it: which loops and log calls it has, what was added to
it, what a loop carries from one iteration to the next, where in an iteration a statement can run, and edited
trees that are run instead of the text.  Nothing here executes the user's code, and nothing here knows a run,
a store or torch.

Its own rooms, each importing only those below it:

    diff/     what was added or changed between two texts, and where a statement of one goes in the other
    edit/     trees that are run instead of a script's own: with exits, with loops that are recorded
    reach/    in which segments of an iteration a statement can run
    skip/     code on which nothing that is asked for depends
    carry/    the names that a loop carries, and what an iteration may change
    graph/    functions and loops of a program, and what calls what
    names/    syntax, scopes, florlog's calls, facts about libraries
"""
