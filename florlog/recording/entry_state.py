"""The random generators from which a loop draws the order of its items when it starts."""

from __future__ import annotations

from typing import Any

from florlog.state.loaders import keeps_workers, loader_generators
from florlog.state.random_generators import Randomness

EntryState = dict[str, Any]


def entry_state(iterable: Any, random: Randomness) -> EntryState:
    """Their state now."""
    generators = loader_generators(iterable)
    return {
        "rng": random.capture(),
        "generators": [generator.get_state() for generator in generators],
        "workers": keeps_workers(iterable),
    }


def restore_entry(entry: EntryState, iterable: Any, random: Randomness) -> None:
    """Put their state back."""
    random.restore(entry["rng"])
    for generator, state in zip(loader_generators(iterable), entry["generators"], strict=True):
        generator.set_state(state)
