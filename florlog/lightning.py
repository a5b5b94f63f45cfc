"""PyTorch Lightning in a script that opens its run itself.

    with florlog.lightning.record(trainer):
        trainer.fit(module, loader)

Lightning's epochs, steps and batches of an evaluation are loops of the run.  ``florlog.log(...)`` in a hook or a
callback logs values, also afterwards.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from florlog.programs.framework_runs import recorded
from florlog.recording.run import Run

_OTHER_NAME = "pytorch_lightning"
"""Lightning is on the index under two names."""


def record(trainer: Any, name: str | None = None, **options: Any) -> AbstractContextManager[Run]:
    """A run around ``trainer.fit(...)``, whose loops are Lightning's.

    ``trainer``: a `lightning.pytorch.Trainer`, or a `pytorch_lightning.Trainer`; ``name``: of the run, by default the
    script's; ``options``: the other arguments of `florlog.run`, such as ``resume="auto"``.

    Loops of a version of Lightning that florlog does not know are recorded by its hooks: see docs/frameworks.md.
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(trainer).__mro__}
    return recorded(_OTHER_NAME if _OTHER_NAME in packages else "lightning", name, options)
