"""What a DataLoader keeps between two passes: the random generators that its order comes from, and worker processes.

Persistent workers draw a seed when they are started, and their own generators go on from pass to pass.  Those live in
other processes: no image has them.  `start_workers` only brings the main process to where the recording was.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from florlog.program.terminal import warn
from florlog.state.iterables import innermost
from florlog.state.stateful import has_state_dict
from florlog.state.tree import StateTree


def loader_generators(iterable: Any) -> list[torch.Generator]:
    """The generators that DataLoaders in an iterable draw their order from, other than torch's default."""
    found: list[torch.Generator] = []
    for leaf in innermost(iterable):
        sampler = getattr(leaf, "_index_sampler", None)  # of a loader, or of its iterator
        sources = [leaf, getattr(leaf, "sampler", None), sampler, getattr(sampler, "sampler", None)]
        for source in sources:
            generator = getattr(source, "generator", None)
            if isinstance(generator, torch.Generator) and all(generator is not known for known in found):
                found.append(generator)
    return found


def keeps_workers(iterable: Any) -> bool:
    """Whether a loader in an iterable has workers that an earlier pass started: another pass draws no seed for them."""
    return any(loader._iterator is not None for loader in _with_persistent_workers(iterable))


def start_workers(iterable: Any) -> None:
    """Start the persistent workers of an iterable's loaders, as an earlier pass did.

    Nothing is drawn and no item is loaded.  Warns where the workers' own random numbers will differ.
    """
    for loader in _with_persistent_workers(iterable):
        if loader._iterator is not None:
            continue
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        sampler, generator = getattr(loader, name), loader.generator
        vars(loader)[name], loader.generator = [], torch.Generator()
        try:
            iterator: Any = iter(loader)
        finally:
            vars(loader)[name], loader.generator = sampler, generator
        iterator._index_sampler = sampler
        if draws_at_random(loader.dataset):
            warn(
                f"the persistent workers that load a {type(loader.dataset).__name__} were started anew, and their "
                "random numbers are not those that the recording drew; with persistent_workers=False they are"
            )


def _with_persistent_workers(iterable: Any) -> Iterator[Any]:
    for leaf in innermost(iterable):
        if isinstance(leaf, DataLoader) and leaf.persistent_workers and not has_state_dict(leaf):
            yield leaf


def draws_at_random(dataset: Any) -> bool:
    """Whether a data set seems to draw random numbers, by the words in its class's code and its transforms."""
    kind: Any = type(dataset)
    transforms = (repr(getattr(dataset, name, "")) for name in ("transform", "transforms"))
    if any(re.search("rand|noise|choice|shuffle", text, re.I) for text in (_code(kind), *transforms)):
        return True
    inner = getattr(dataset, "dataset", None)  # of a subset
    return inner is not None and inner is not dataset and draws_at_random(inner)


@functools.cache
def _code(kind: type) -> str:
    """The code of a class; a loop asks each time it is entered, and finding it takes milliseconds."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


class LoaderAdapter:
    """The state of a DataLoader between two passes: its generators', its data set's if that is stateful, its workers.

    Its place within a pass is the loop's (`florlog.state.cursors`).  torchdata's loader is not asked for its
    ``state_dict``: before its first pass it would begin one, and draw random numbers that it would have drawn later.
    Not captured: attributes of samplers and of a data set that is not stateful.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader: Any = loader

    def capture(self) -> StateTree:
        dataset = self.loader.dataset
        return {
            "generators": [generator.get_state() for generator in loader_generators(self.loader)],
            "dataset": dataset.state_dict() if has_state_dict(dataset) else None,
            "workers": keeps_workers(self.loader),
        }

    def restore(self, tree: StateTree) -> None:
        for generator, state in zip(loader_generators(self.loader), tree["generators"], strict=True):
            generator.set_state(state)
        if tree["dataset"] is not None:
            self.loader.dataset.load_state_dict(tree["dataset"])
        if tree["workers"]:
            start_workers(self.loader)
