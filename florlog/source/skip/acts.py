"""What is done in the place of a piece of code that a replay passes over (`florlog.source.skip.remains` finds it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Mode:
    """``of`` is put into a mode, None: that which it had; ``first``: before anything that may call a model."""

    of: str
    training: bool | None
    first: bool


@dataclass(frozen=True)
class Items:
    """``of`` is iterated: ``whole``: once and to its end; else perhaps, as often and as far as nobody knows."""

    of: str
    whole: bool


Act: TypeAlias = Mode | Items
