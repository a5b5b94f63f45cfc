"""Frameworks whose own loops are recorded: which functions of which of their modules, in the versions that are known.

A framework's loops are plain ``for`` statements in its source.  An entry names the functions that have them, for texts
that were read and tried: they are known by their digests, because a version's number does not say what was changed in
an installed copy.  In a text that is not known nothing is recorded (``specs/adoption.md``).

A new version of a framework is a line here, after ``tests/frameworks`` have passed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopManifest:
    """One module of a framework."""

    framework: str  # its distribution
    module: str
    classes: frozenset[str]
    """A program uses the module if it has a name that ends so."""
    imported_by: frozenset[str]
    """Top-level modules from which a program gets these classes."""
    functions: Mapping[str, Sequence[str]]
    """Qualified name -> the names of its loops, in the order of the text."""
    clocks: tuple[str, ...]
    """How the keys end under which the framework keeps what it read from the clock: they differ in each process.

    The key of an attribute is its name with a dot before it.
    """
    known: Mapping[str, str]
    """The xxh3-128 of the module's bytes -> the version that it is of."""


REFUSED = {
    "fastai": (
        "its Learner holds functions that plum dispatches, which no image can put back, and keeps the clock as text"
    ),
}
"""Frameworks whose loops cannot be recorded: their top-level module -> why."""

MANIFESTS = (
    LoopManifest(
        framework="transformers",
        module="transformers.trainer",
        classes=frozenset({"Trainer"}),
        imported_by=frozenset({"transformers", "trl", "setfit", "sentence_transformers"}),
        functions={
            "Trainer.train": (),
            "Trainer._inner_training_loop": ("epoch",),
            "Trainer._run_epoch": ("step", "micro"),
            "Trainer.training_step": (),
        },
        clocks=("_runtime", "_per_second", "_preparation_time"),
        known={"3963922ff03708e1d960b416cb11220d": "5.24.0"},
    ),
    LoopManifest(
        framework="skorch",
        module="skorch.net",
        classes=frozenset({"Net", "Classifier", "Regressor"}),
        imported_by=frozenset({"skorch"}),
        functions={
            "NeuralNet.fit_loop": ("epoch",),
            "NeuralNet.run_single_epoch": ("batch",),
            "NeuralNet.train_step": (),
            "NeuralNet.train_step_single": (),
            "NeuralNet.partial_fit": (),
            "NeuralNet.fit": (),
        },
        clocks=("dur", "epoch_start_time_"),
        known={"3f38335198d58045602f73ee5317b6f5": "1.4.0"},
    ),
    LoopManifest(
        framework="pytorch-ignite",
        module="ignite.engine.engine",
        classes=frozenset({"Engine", "create_supervised_trainer"}),
        imported_by=frozenset({"ignite"}),
        functions={
            "Engine._internal_run_as_gen": ("epoch",),
            "Engine._run_once_on_dataset_as_gen": ("step",),
        },
        clocks=(".start_time", "._t0"),
        known={"b5818b943c70d3c801beb8c7267814a4": "0.5.5"},
    ),
    LoopManifest(
        framework="keras",
        module="keras.src.backend.torch.trainer",
        classes=frozenset({"Model", "Sequential"}),
        imported_by=frozenset({"keras"}),
        functions={
            "TorchTrainer.fit": ("epoch", "step"),
            "TorchTrainer.evaluate": ("val",),
            "TorchTrainer.train_step": (),
        },
        clocks=(
            "._start",
            "_start_time",
            "._last_update",
            "._time_at_epoch_start",
            "._time_after_first_step",
        ),
        known={"5c6afdb437ca813d732e55a48c50f959": "3.15.1"},
    ),
)
"""``epoch``; ``step``: a step of the optimizer; ``micro``: a batch of the step's accumulation group."""
