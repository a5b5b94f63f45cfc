"""skorch in a script that opens its run itself.

    with florlog.skorch.record(net):
        net.fit(X, y)

Its epochs and batches are loops of the run.  ``florlog.log(...)`` in a callback or in an overridden method logs
values, also afterwards.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from florlog.programs.framework_runs import recorded
from florlog.recording.run import Run


def record(net: Any, name: str | None = None, **options: Any) -> AbstractContextManager[Run]:
    """A run around ``net.fit(X, y)``, whose loops are skorch's.

    ``net``: a `skorch.NeuralNet`, or one derived from it; ``name``: of the run, by default the script's;
    ``options``: the other arguments of `florlog.run`, such as ``resume="auto"``.

    Loops of a version of skorch that florlog does not know are recorded by its hooks: see docs/frameworks.md.
    """
    return recorded("skorch", name, options)
