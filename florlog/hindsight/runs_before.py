"""What becomes of the runs that the program opened before the one that is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from florlog_recovery import Loop, RunTree
from florlog_wal import RunLog

from florlog.following.earlier_runs import EarlierRun, Usable, earlier_runs, other_text
from florlog.hindsight.added_code import AddedCode
from florlog.hindsight.compared_files import Compared
from florlog.hindsight.left_out import enterable
from florlog.hindsight.usable_images import usable_images
from florlog.source.reach.regions import ProgramAnalysis
from florlog.source.skip.skipping import Skipping


def runs_before(
    log: RunLog,
    tree: RunTree,
    files: Sequence[Compared],
    analysis: ProgramAnalysis,
    code: AddedCode,
    skipping: Skipping,
    *,
    changed: bool,
) -> tuple[EarlierRun, ...]:
    """Those of a run; ``changed``: whether recorded code is not what it was.

    Added statements run in the earlier ones too, so images that lack what those read are not used there either.
    """
    texts: Mapping[str, str] = {file.recorded: file.old for file in files}

    def usable(earlier: RunLog, its: RunTree) -> Usable:
        if changed or other_text(earlier, its, texts):
            return Usable(obstacle="the program is not what it was")
        entered: frozenset[Loop] = enterable(its, analysis, code, skipping)
        found = usable_images(earlier, its, files, entered)
        return Usable(found.unusable.images, found.enterable)

    return earlier_runs(log, tree, usable)
