"""Frameworks whose own loops are recorded: which functions of which of their modules, in the versions that are known.

A framework's loops are plain ``for`` and ``while`` statements in its source.  An entry names the functions that have
them, for texts that were read and tried: they are known by their digests, because a version's number does not say what
was changed in an installed copy.  In a text that is not known nothing is recorded (``specs/adoption.md``).

A new version of a framework is a line here, after ``tests/frameworks`` have passed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LoopModule:
    """One module of a framework."""

    name: str
    functions: Mapping[str, Sequence[str]]
    """Qualified name -> the names of its loops, in the order of the text; "" for one that is not recorded."""
    known: Mapping[str, str]
    """The xxh3-128 of the module's bytes -> the version that it is of."""
    told: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Where it tells its callbacks values: qualified name -> what is called, and the variable with their mapping."""


@dataclass(frozen=True, slots=True)
class LoopManifest:
    """The loops of a framework: all of its modules here are recorded, or none."""

    framework: str  # its top-level module, under whose name its distribution is found
    classes: frozenset[str]
    """A program uses the framework if it has a name that ends so."""
    imported_by: frozenset[str]
    """Top-level modules from which a program gets these classes."""
    modules: tuple[LoopModule, ...]
    clocks: tuple[str, ...]
    """How the keys and attributes end under which the framework keeps what it read from the clock."""


def _lightning(package: str, version: str, *digests: str) -> LoopManifest:
    """Lightning is on the index under two names, with the same text but for the package that it imports.

    ``package``: where its Trainer is; ``digests``: of the modules below, in their order.
    """
    framework = package.partition(".")[0]
    functions: Mapping[str, Mapping[str, Sequence[str]]] = {
        "fit_loop": {"_FitLoop.run": ("epoch",), "_FitLoop.advance": ()},
        "training_epoch_loop": {"_TrainingEpochLoop.run": ("step",), "_TrainingEpochLoop.on_advance_end": ()},
        "evaluation_loop": {"_EvaluationLoop.run": ("val",)},
    }
    return LoopManifest(
        framework=framework,
        classes=frozenset({"Trainer", "LightningCLI"}),
        imported_by=frozenset({framework}),
        modules=tuple(
            LoopModule(f"{package}.loops.{name}", functions[name], {digest: version})
            for name, digest in zip(functions, digests, strict=True)
        ),
        clocks=("_last_val_time", "_train_start_time", "_last_time_checked"),
    )


MANIFESTS = (
    LoopManifest(
        framework="transformers",
        classes=frozenset({"Trainer"}),
        imported_by=frozenset({"transformers", "trl", "setfit", "sentence_transformers"}),
        modules=(
            LoopModule(
                "transformers.trainer",
                {
                    "Trainer.train": (),
                    "Trainer._inner_training_loop": ("epoch",),
                    "Trainer._run_epoch": ("step", "micro"),
                    "Trainer.training_step": (),
                    "Trainer.evaluation_loop": ("eval", ""),
                    "Trainer.log": (),
                },
                {"3963922ff03708e1d960b416cb11220d": "5.24.0"},
                told={"Trainer.log": ("self.callback_handler.on_log", "logs")},
            ),
        ),
        clocks=("_runtime", "_per_second", "_preparation_time"),
    ),
    _lightning(
        "lightning.pytorch",
        "2.6.6",
        "8a3d095457bbc7777760cc028cbb6ce0",
        "ca9199a02d6d109f605164a468c46455",
        "8968dcaae502d0a0fa98042558c3cddb",
    ),
    _lightning(
        "pytorch_lightning",
        "2.6.6",
        "ade7e5dd9ebffcb688830b2c342e8390",
        "fe6d11c93ca12b61a703c1aa894e5358",
        "cd9a2bd54fcca240f3bc0ea108a274ad",
    ),
)
"""transformers: ``epoch``; ``step``: a step of the optimizer; ``micro``: a batch of the step's accumulation group;
``eval``: a batch of an evaluation.

Lightning: ``epoch``; ``step``: a batch; ``val``: a batch of an evaluation, that of a test as well.
"""
