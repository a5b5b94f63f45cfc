"""The signal with which a replayed loop leaves the rest of the enclosing iteration's body.

A redo plan often needs only the first part of an iteration: the code before the second inner loop, say.
The replayed loop that comes after that part raises `SkipRest`; an instrumented ``for`` loop catches it
around each pass of its body and goes on with its next planned iteration, and ``run.iteration`` swallows
it on leaving its ``with`` block.

It derives from BaseException so that a training script's ``except Exception`` does not stop it.  A bare
``except:`` or ``except BaseException`` that does not raise again does stop it; the replayed loops notice that, because
the iteration was not left.
"""

from __future__ import annotations


class SkipRest(BaseException):
    """Raised by a replayed loop to leave the enclosing iteration's body early."""
