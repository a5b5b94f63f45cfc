"""Whether the program of a run can be executed again."""

from __future__ import annotations

from florlog_recovery import RunTree

from florlog.errors import ChildRunError, OnlyReadError, RanksError
from florlog.program.environment import CHILD


def check_executable(tree: RunTree) -> None:
    """Raise `RanksError`, `OnlyReadError` or `ChildRunError` for a run that can only be read."""
    if tree.begin.world_size > 1:
        raise RanksError(tree.begin.world_size)
    if tree.hooked:
        raise OnlyReadError(tree.run, tree.hooked)
    if tree.begin.environment.get(CHILD):
        raise ChildRunError(tree.run)
