"""What a loop's order depends on when it starts: random generators, and iterables of the user's own."""

from __future__ import annotations

from typing import Any

from florlog.state.iterables import draws_order
from florlog.state.loaders import loader_generators
from florlog.state.own_iterables import entry_of, restore_entry_of
from florlog.state.random_generators import Randomness

EntryState = dict[str, Any]


def entry_state(iterable: Any, random: Randomness) -> EntryState:
    """Their state now."""
    if not draws_order(iterable):
        return {"rng": None, "generators": []}
    generators = loader_generators(iterable)
    return {
        "rng": random.capture(),
        "generators": [generator.get_state() for generator in generators],
        "iterables": entry_of(iterable),
    }


def restore_entry(entry: EntryState, iterable: Any, random: Randomness) -> None:
    """Put their state back.  Raises `ImageError` where an iterable of the user's own cannot be given it."""
    if entry["rng"] is None:
        return
    random.restore(entry["rng"])
    for generator, state in zip(loader_generators(iterable), entry["generators"], strict=True):
        generator.set_state(state)
    if entry.get("iterables") is not None:
        restore_entry_of(iterable, entry["iterables"])
