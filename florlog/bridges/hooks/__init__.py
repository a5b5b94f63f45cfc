"""Frameworks whose loops are recorded by their public hooks, where their source is not known (``specs/adoption.md``).

A module for each.  It attaches hooks to an object for the duration of one call, and says what each hook is to
`florlog.bridges.hooked_loops`.  No module here imports its framework before that.
"""

from __future__ import annotations

from collections.abc import Mapping

from florlog.bridges.hooks import ignite, keras, lightning, skorch, transformers
from florlog.bridges.hooks.attaching import Hooks

HOOKS: Mapping[str, Hooks] = {
    "transformers": Hooks("transformers.trainer", "Trainer", ("train", "evaluate"), transformers.attached),
    "lightning": Hooks(
        "lightning.pytorch.trainer", "Trainer", ("fit", "validate", "test"), lightning.attached
    ),
    "pytorch_lightning": Hooks(
        "pytorch_lightning.trainer", "Trainer", ("fit", "validate", "test"), lightning.attached
    ),
    "skorch": Hooks("skorch.net", "NeuralNet", ("fit_loop",), skorch.attached),
    "pytorch-ignite": Hooks("ignite.engine", "Engine", ("run",), ignite.attached),
    "keras": Hooks("keras", "Model", ("fit", "evaluate"), keras.attached),
}
"""By the framework's distribution, as in `florlog.bridges.manifests`."""
