"""Images of a run thinned while its writer goes on, so that they fit a budget.

The order is that of gc: first the CheckpointEnd of each dropped image, after the remaining images are durable; then
the pages that only dropped images needed.  A crash in between leaves pages too many, which gc finds.  The caller makes
sure that nothing puts pages meanwhile: a page that was put and is not yet named would look as if nobody needed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from florlog_wal import pages
from florlog_wal.gc import _read, _remove, _sweep, _thin
from florlog_wal.run_log import RunLog


@dataclass(frozen=True, slots=True)
class Thinned:
    """What `thin` left of a run's images."""

    dropped: int
    images: int
    bytes: int  # of the pages that only these images need
    apart: float  # least recorded seconds between neighbours, except the first and the last


def thin(store: RunLog, run: str, budget: float) -> Thinned:
    """Drop images of a run, evenly over its time, until the pages that only its images need fit ``budget`` bytes.

    The last image stays, and so do those from which a session continues, whether they fit or not.  The first is the
    last to be dropped.
    """
    store.sync()
    contents = _read(store, lambda entry: ())
    mine = [image for image in contents.images if image.run == run]
    if not mine:
        return Thinned(0, 0, 0, 0.0)
    others = [image.digests for image in contents.images if image.run != run]
    shared = pages.closure(store._pages, set().union(*contents.fixed.values(), *others))
    sizes = pages.sizes(store._pages)

    def alone(images: list[Any]) -> set[bytes]:
        return pages.closure(store._pages, set().union(*(image.digests for image in images))) - shared

    def size(digests: set[bytes]) -> int:
        return sum(sizes.get(digest, 0) for digest in digests)

    kept, seconds = mine, 0.0
    longest = max(image.redo for image in mine)
    for finer in range(12, -1, -1):  # bounds that double, up to one that keeps only the first and last
        if size(alone(kept)) <= budget:
            break
        seconds = 1.01 * longest / 2**finer
        kept = _thin(mine, seconds, contents.resumed)
    if size(alone(kept)) > budget:
        kept = [image for image in kept if image is mine[-1] or image.begin in contents.resumed]
    keep = {image.lsn for image in kept}
    dropped = [image for image in mine if image.lsn not in keep]
    needed = alone(kept)
    gone = alone(dropped) - needed
    for image in dropped:
        _remove(store, image.session, image.lsn)
    _sweep(store, list(gone))
    return Thinned(len(dropped), len(kept), size(needed), seconds)
