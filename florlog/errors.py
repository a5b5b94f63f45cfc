"""What a user of florlog can get wrong, each with one line that says what to do.

`FlorlogError` is the base of all of them.  A mistake of florlog's own is no `FlorlogError`.
"""

from __future__ import annotations

import shlex


class FlorlogError(Exception):
    """Base of all errors that florlog raises for wrong use."""


class NoRunError(FlorlogError):
    """A function of the current run was called while no run is open."""

    def __init__(self, what: str) -> None:
        super().__init__(f"florlog.{what}() was called outside a run: put it inside `with florlog.run(...):`")


class TrackError(FlorlogError):
    """An object's state cannot be captured and put back."""


class LogValueError(FlorlogError):
    """A logged value cannot be encoded."""


class LoopError(FlorlogError):
    """A loop was used in a way that cannot be recorded."""


class ChangedError(FlorlogError):
    """A replay or resume meets something else than was recorded: another loop's length, another tracked name."""


class ImageError(ChangedError):
    """An image's state cannot be put back into what the replayed code made; the plan has to do without it."""


class EarlierRunError(FlorlogError):
    """A run that was opened earlier was passed over, and did not end as it was recorded: it has to be executed."""


class StoreError(FlorlogError):
    """The store cannot be used."""


class NoSuchRunError(FlorlogError):
    """No recorded run fits what was asked for."""


class UntrustedRunError(FlorlogError):
    """Recorded code would be executed of a run that somebody else may have made."""

    def __init__(self, run: str) -> None:
        named = shlex.quote(run) if run.isprintable() else ascii(run)
        super().__init__(
            f"run {named} was not recorded on this machine by you, and this executes the code that lies in the store: "
            f"read that with `florlog inspect source`, then give --trust {named} (in Python, florlog.open(..., "
            f"trust={run!a}))"
        )
        self.run = run


class DivergedError(FlorlogError):
    """Re-execution did not give what was recorded; the message names the first difference."""


class SourceChangedError(FlorlogError):
    """The script differs from the recording in more than added statements; ``changes`` has a line for each."""

    def __init__(self, message: str, changes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.changes = changes


class OwnRunError(FlorlogError):
    """A program opens a run itself, and florlog has opened one around it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the program opens run {name!r} itself: it is recorded as it is, without florlog record or %%florlog"
        )


class RanksError(FlorlogError):
    """A question is about what several processes computed together, and a log has rank 0 alone."""

    def __init__(self, ranks: int) -> None:
        super().__init__(
            f"this is rank 0 of {ranks}: what they computed together can be read, and neither replayed nor resumed"
        )


class ChildRunError(FlorlogError):
    """A run would be executed again that was recorded in a process which the script has made."""

    def __init__(self, run: str) -> None:
        super().__init__(
            f"run {run} can be read, and neither resumed nor replayed by a command: it was recorded in a process that "
            "the script had started, as multiprocessing does, and the script itself does not open it"
        )


class OnlyReadError(FlorlogError):
    """A run would be executed again, and loops of it are known by a framework's hooks alone."""

    def __init__(self, run: str, framework: str) -> None:
        super().__init__(
            f"run {run} can be read, and neither resumed nor replayed: the loops of {framework}, a version that "
            "florlog does not know, were recorded by its hooks, without images"
        )
