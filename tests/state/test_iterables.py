"""What can be seen of an iterable from outside."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader
from tqdm import tqdm

from florlog.state.iterables import has_begun

NUMBERS = [1, 2, 3]


def numbers() -> Iterator[int]:
    yield from NUMBERS


def test_what_was_drawn_from_has_begun() -> None:
    for fresh in (
        NUMBERS,
        DataLoader(NUMBERS),
        numbers(),
        enumerate(DataLoader(NUMBERS)),
        zip(NUMBERS, (1, 2), strict=False),
    ):  # type: ignore[arg-type]
        assert not has_begun(fresh)
    assert not has_begun(enumerate(tqdm(DataLoader(NUMBERS), disable=True)))  # type: ignore[arg-type]
    begun = numbers()
    next(begun)
    workers = DataLoader(NUMBERS, num_workers=1)  # type: ignore[arg-type]
    assert not has_begun(workers)
    iterator = iter(workers)
    assert not has_begun(enumerate(iterator))  # it has read ahead, and given nothing
    next(iterator)
    for other in (begun, enumerate(begun), map(int, NUMBERS), enumerate(iterator)):
        assert has_begun(other)
