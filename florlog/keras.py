"""Keras on torch in a script that opens its run itself.

    with florlog.keras.record(model):
        model.fit(x, y)

Its epochs, steps and batches of an evaluation are loops of the run.  ``florlog.log(...)`` in a callback, in
``train_step`` or in ``call`` logs values, also afterwards.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from florlog.programs.framework_runs import recorded
from florlog.recording.run import Run


def record(model: Any, name: str | None = None, **options: Any) -> AbstractContextManager[Run]:
    """A run around ``model.fit(x, y)``, whose loops are Keras'.

    ``model``: a `keras.Model`; ``name``: of the run, by default the script's; ``options``: the other
    arguments of `florlog.run`, such as ``resume="auto"``.

    Loops of a version of Keras that florlog does not know are recorded by its hooks: see docs/frameworks.md.
    """
    return recorded("keras", name, options)
