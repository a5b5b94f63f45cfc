"""Values that a replay finds, and how far each can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from florlog_wal import Path

PROVEN, CONSISTENT, UNVERIFIED, DIVERGED = "PROVEN", "CONSISTENT", "UNVERIFIED", "DIVERGED"


@dataclass(slots=True)
class FoundValue:
    """A value that the recording does not have."""

    file: str
    line: int
    qualname: str
    name: str
    path: Path
    value: Any
    trust: str = UNVERIFIED
    detail: str = ""
    closed: int = 0  # comparisons of the whole state or iteration before it
    steady: bool = True  # nothing but the state and the items decide what it is
    received: bool = True  # the items were compared
    segment: int = 0  # loops of its iteration that had ended


def where(path: Path) -> str:
    """An iteration's address as text: ``epoch=3, step=17``."""
    return ", ".join(f"{name}={index}" for name, index in path) or "the run's start"
