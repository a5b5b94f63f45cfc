"""pytorch-ignite in a script that opens its run itself.

    with florlog.ignite.record(engine):
        engine.run(loader, max_epochs=5)

The epochs and steps of each engine are loops of the run.  ``florlog.log(...)`` in a handler or in the step function
logs values, also afterwards.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from florlog.programs.framework_runs import recorded
from florlog.recording.run import Run


def record(engine: Any, name: str | None = None, **options: Any) -> AbstractContextManager[Run]:
    """A run around ``engine.run(loader, max_epochs=5)``, whose loops are ignite's.

    ``engine``: an `ignite.engine.Engine`; ``name``: of the run, by default the script's; ``options``: the other
    arguments of `florlog.run`, such as ``resume="auto"``.

    Loops of a version of ignite that florlog does not know are recorded by its hooks: see docs/frameworks.md.
    """
    return recorded("pytorch-ignite", name, options)
