"""What came of executing a request, or a part of it, and the same as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from florlog.following.trust import FoundValue
from florlog.hindsight.request_data import found_data, found_value


@dataclass(frozen=True, slots=True)
class Redone:
    """What an execution found."""

    values: Sequence[FoundValue]
    differences: Sequence[str]
    passed: Mapping[int, int]  # how often each of the request's pieces was passed over
    spans: Sequence[float] = ()  # as of `Guide`; several processes have none
    measured: Mapping[str, Any] = field(default_factory=dict)  # costs, for later plans; the same


def redone_data(done: Redone) -> tuple[Any, ...]:
    """What a worker found, as plain data; not what it measured, which is of a part."""
    return [found_data(value) for value in done.values], list(done.differences), dict(done.passed)


def redone_of(values: Iterable[Any], differences: Sequence[str], passed: Mapping[int, int]) -> Redone:
    """What a worker found, of its data."""
    return Redone([found_value(fields) for fields in values], differences, passed)


def merged(parts: Iterable[Iterable[FoundValue]]) -> list[FoundValue]:
    """The values of all parts in order; an atom's are those of the first part that executed it."""
    taken: dict[tuple[object, ...], int] = {}
    merged: list[FoundValue] = []
    for number, values in enumerate(parts):
        for value in values:
            atom = (value.path, value.segment, value.file, value.line, value.name)
            if taken.setdefault(atom, number) == number:
                merged.append(value)
    return merged
