"""State through the whole path of an image, with the pages in a dict: capture, snapshot, table, restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from florlog_wal import PageEntry, PageTable, encode_table, entry_bytes, page_digest

from florlog.images.imager import SavedState, page_table
from florlog.images.snapshot import snapshot
from florlog.state.adapters import adapter
from florlog.state.inplace import bits


class Memory:
    """What an image needs of a store."""

    def __init__(self) -> None:
        self.pages: dict[bytes, bytes] = {}

    def put(self, pages: Sequence[memoryview], keys: Sequence[str]) -> list[bytes]:
        digests = [page_digest(page) for page in pages]
        self.pages.update(zip(digests, map(bytes, pages), strict=True))
        return digests

    def get_page(self, digest: bytes) -> bytes:
        return self.pages[digest]

    def read_entries(self, entries: Sequence[PageEntry]) -> list[memoryview]:
        return [memoryview(entry_bytes(self.get_page, entry)) for entry in entries]

    def image(self, trees: dict[str, Any]) -> SavedState:
        """An image of some trees, as a later process would read it."""
        table: PageTable = page_table(snapshot(trees), self.put)
        (digest,) = self.put([memoryview(encode_table(table))], [""])
        return SavedState(self, digest)


def round_trip(tree: Any) -> Any:
    """A tree, out of an image."""
    return Memory().image({"it": tree}).tree("it")


def saved(target: Any) -> Any:
    """The state of an object, out of an image."""
    return round_trip(adapter("it", target).capture())


def restore(target: Any, tree: Any) -> None:
    adapter("it", target).restore(tree)


def state_bits(target: Any) -> tuple[bytes, ...]:
    """The whole captured state of an object as bytes."""
    return bits(adapter("it", target).capture())


def clone_bits(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's elements."""
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
