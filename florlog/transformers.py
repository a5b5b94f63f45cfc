"""Hugging Face's Trainer in a script that opens its run itself.

    with florlog.transformers.record(trainer):
        trainer.train()

The Trainer's epochs, steps, accumulation groups and evaluation batches are loops of the run, and what it logs are
values of it.  ``florlog.log(...)`` in a callback or in an overridden method logs more, also afterwards.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from florlog.programs.framework_runs import recorded
from florlog.recording.run import Run


def record(trainer: Any, name: str | None = None, **options: Any) -> AbstractContextManager[Run]:
    """A run around ``trainer.train()``, whose loops are the Trainer's.

    ``trainer``: a `transformers.Trainer`, or one derived from it; ``name``: of the run, by default the script's;
    ``options``: the other arguments of `florlog.run`, such as ``resume="auto"``.

    Loops of a version of transformers that florlog does not know are recorded by its hooks: see docs/frameworks.md.
    """
    return recorded("transformers", name, options)
