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

    framework: str  # its distribution, and its top-level module
    module: str
    classes: frozenset[str]
    """A program uses the module if it has a name that ends so."""
    imported_by: frozenset[str]
    """Top-level modules from which a program gets these classes."""
    functions: Mapping[str, Sequence[str]]
    """Qualified name -> the names of its loops, in the order of the text; "" for one that is not recorded."""
    clocks: tuple[str, ...]
    """How the keys end under which the framework keeps what it read from the clock: they differ in each process."""
    told: Mapping[str, tuple[str, str]]
    """Where it tells its callbacks values: qualified name -> what is called, and the variable with their mapping."""
    known: Mapping[str, str]
    """The xxh3-128 of the module's bytes -> the version that it is of."""


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
            "Trainer.evaluation_loop": ("eval", ""),
            "Trainer.log": (),
        },
        clocks=("_runtime", "_per_second", "_preparation_time"),
        told={"Trainer.log": ("self.callback_handler.on_log", "logs")},
        known={"3963922ff03708e1d960b416cb11220d": "5.24.0"},
    ),
)
"""``epoch``; ``step``: a step of the optimizer; ``micro``: a batch of the step's accumulation group; ``eval``: a batch
of an evaluation."""
