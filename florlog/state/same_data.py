"""Whether a loop runs over the data that it ran over when it was recorded, by length and by a loader's settings.

The items themselves are not compared here; fingerprints compare what the iterations made of them.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from florlog.errors import ChangedError
from florlog.state.iterables import innermost, length_of

_NO_IDENTITY = ("type",)


def identity(iterable: Any) -> dict[str, Any]:
    """What to record of an iterable so that another one in its place is noticed; plain values."""
    found: dict[str, Any] = {"type": type(iterable).__name__}
    loader = next((leaf for leaf in innermost(iterable) if isinstance(leaf, DataLoader)), None)
    if loader is not None:
        found |= {
            "batch_size": loader.batch_size,
            "drop_last": loader.drop_last,
            "dataset": type(loader.dataset).__name__,
            "items": length_of(loader.dataset),
            "sampler": type(loader.sampler).__name__,
            "batch_sampler": type(loader.batch_sampler).__name__,
            "workers": loader.num_workers,
        }
    return found


def check(name: str, iterable: Any, length: int, recorded: dict[str, Any]) -> None:
    """Raise `ChangedError` when loop ``name`` runs over other data than was recorded; a ``length`` of -1 is unknown."""
    now = length_of(iterable)
    if length >= 0 and now >= 0 and now != length:
        raise ChangedError(
            f"loop {name!r} had {length} items when recorded and has {now} now: replay and resume need the same data; "
            "if the script has gone on from a checkpoint of its own, move that away"
        )
    for key, value in identity(iterable).items():
        if key in recorded and key not in _NO_IDENTITY and recorded[key] != value:
            raise ChangedError(
                f"loop {name!r} ran over a DataLoader with {key}={recorded[key]!r} when recorded, "
                f"and {key}={value!r} now: replay and resume need the same data"
            )
