"""What is done in place of a piece of code that a replay skips.  `florlog.source.skip.remains` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Mode:
    """``of`` is put into training mode or out of it.  ``training`` None: into the mode that it had before the piece.

    ``first``: this happens before anything that may call a model.
    """

    of: str
    training: bool | None
    first: bool


@dataclass(frozen=True)
class Items:
    """``of`` is iterated.  ``whole``: exactly once and to its end.  Otherwise this is unknown."""

    of: str
    whole: bool


Act: TypeAlias = Mode | Items
