"""What the set-up of a resumed run does not see of the files that the run itself has made."""

from __future__ import annotations

from collections.abc import Sequence

from florlog_recovery import RunTree
from florlog_wal import RunLog

from florlog.following.failed_images import images_of_others
from florlog.following.files_made import files_made, files_of_loops
from florlog.following.hidden_files import HiddenFiles
from florlog.recording.resuming import went_back

MIN_PROOF_SECONDS = 10.0
"""What a resume may always re-execute to be proven: a person who resumes waits for the set-up anyway."""


def hidden_files(log: RunLog, tree: RunTree, directories: Sequence[str]) -> HiddenFiles:
    """What hides files below ``directories`` from the set-up of a resume.

    A run that is executed again from its beginning depends on its set-up's random numbers, and making a cache may draw
    some.  So it makes again what its set-up had made.  Otherwise an image puts back what the set-up would have left.
    """
    unusable = went_back(tree.run, log, tree).images(tree) | images_of_others(log, tree)
    images = any((loop, index) not in unusable for loop in tree.loops() for index in loop.images)
    brief = sum(sum(loop.seconds) for loop in tree.root.loops) <= MIN_PROOF_SECONDS
    find = files_made if brief or not images else files_of_loops
    return HiddenFiles(find(log, tree, directories))
