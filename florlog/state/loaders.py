"""What a DataLoader keeps between two passes: the random generators that its order comes from, and worker processes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

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


def keeps_workers(loader: Any) -> bool:
    """Whether a loader's workers stay from pass to pass."""
    stays = isinstance(loader, DataLoader) and loader.persistent_workers and loader.num_workers > 0
    return stays and not has_state_dict(loader)


class LoaderAdapter:
    """The state of a DataLoader between two passes: its generators', and its data set's if that is stateful.

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
        }

    def restore(self, tree: StateTree) -> None:
        for generator, state in zip(loader_generators(self.loader), tree["generators"], strict=True):
            generator.set_state(state)
        if tree["dataset"] is not None:
            self.loader.dataset.load_state_dict(tree["dataset"])
