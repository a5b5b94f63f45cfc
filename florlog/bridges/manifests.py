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

    framework: str  # its distribution
    classes: frozenset[str]
    """A program uses the framework if it has a name that ends so."""
    imported_by: frozenset[str]
    """Top-level modules from which a program gets these classes."""
    modules: tuple[LoopModule, ...]
    clocks: tuple[str, ...]
    """How the keys end under which the framework keeps what it read from the clock: they differ in each process.

    The key of an attribute is its name with a dot before it.
    """


def _lightning(package: str, version: str, *digests: str) -> LoopManifest:
    """Lightning is on the index under two names, with the same text but for the package that it imports.

    ``package``: where its Trainer is; ``digests``: of the modules below, in their order.
    """
    framework = package.partition(".")[0]
    functions: Mapping[str, Mapping[str, Sequence[str]]] = {
        "fit_loop": {"_FitLoop.run": ("epoch",), "_FitLoop.advance": ()},
        "training_epoch_loop": {"_TrainingEpochLoop.run": ("step",), "_TrainingEpochLoop.on_advance_end": ()},
        "evaluation_loop": {"_EvaluationLoop.run": ("val",)},
        "prediction_loop": {"_PredictionLoop.run": ("predict",)},
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


REFUSED = {
    "fastai": (
        "its Learner holds functions that plum dispatches, which no image can put back, and keeps the clock as text"
    ),
}
"""Frameworks whose loops cannot be recorded: their top-level module -> why."""

MANIFESTS: tuple[LoopManifest, ...] = (
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
        "9515789a57203221c95fcf406f5ea69f",
    ),
    _lightning(
        "pytorch_lightning",
        "2.6.6",
        "ade7e5dd9ebffcb688830b2c342e8390",
        "fe6d11c93ca12b61a703c1aa894e5358",
        "cd9a2bd54fcca240f3bc0ea108a274ad",
        "833a6039e042250e69a961538d58c140",
    ),
    LoopManifest(
        framework="skorch",
        classes=frozenset({"Net", "Classifier", "Regressor"}),
        imported_by=frozenset({"skorch"}),
        modules=(
            LoopModule(
                "skorch.net",
                {
                    "NeuralNet.fit_loop": ("epoch",),
                    "NeuralNet.run_single_epoch": ("batch",),
                    "NeuralNet.train_step": (),
                    "NeuralNet.train_step_single": (),
                    "NeuralNet.partial_fit": (),
                    "NeuralNet.fit": (),
                },
                {"3f38335198d58045602f73ee5317b6f5": "1.4.0"},
            ),
        ),
        clocks=("dur", "epoch_start_time_"),
    ),
    LoopManifest(
        framework="pytorch-ignite",
        classes=frozenset({"Engine", "create_supervised_trainer"}),
        imported_by=frozenset({"ignite"}),
        modules=(
            LoopModule(
                "ignite.engine.engine",
                {
                    "Engine._internal_run_as_gen": ("epoch",),
                    "Engine._run_once_on_dataset_as_gen": ("step",),
                },
                {"b5818b943c70d3c801beb8c7267814a4": "0.5.5"},
            ),
        ),
        clocks=(".start_time", "._t0"),
    ),
    LoopManifest(
        framework="keras",
        classes=frozenset({"Model", "Sequential"}),
        imported_by=frozenset({"keras"}),
        modules=(
            LoopModule(
                "keras.src.backend.torch.trainer",
                {
                    "TorchTrainer.fit": ("epoch", "step"),
                    "TorchTrainer.evaluate": ("val",),
                    "TorchTrainer.train_step": (),
                },
                {"5c6afdb437ca813d732e55a48c50f959": "3.15.1"},
            ),
        ),
        clocks=(
            "._start",
            "_start_time",
            "._last_update",
            "._time_at_epoch_start",
            "._time_after_first_step",
        ),
    ),
)
"""transformers: ``epoch``; ``step``: a step of the optimizer; ``micro``: a batch of the step's accumulation group;
``eval``: a batch of an evaluation.

Lightning: ``epoch``; ``step``: a batch; ``val``: a batch of an evaluation, that of a test as well; ``predict``: one of
a prediction.  skorch: ``epoch``; ``batch``, of the training and then of the validation.  ignite: ``epoch``, ``step`` of
each engine.  Keras: ``epoch``; ``step``; ``val``: a batch of an evaluation.
"""
