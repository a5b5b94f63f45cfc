"""The arguments of `florlog.run`, as the recording takes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from florlog_wal import encode_value

from florlog.errors import FlorlogError, LogValueError
from florlog.program import units
from florlog.program.terminal import reason, warn
from florlog.state.logged_values import plain


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is recorded, as `florlog.run` says it; ``max_redo`` in seconds, ``budget`` in bytes."""

    max_redo: float
    budget: int | None
    overhead: float
    durability: Literal["group", "sync"]
    audit: bool
    strict: bool


def kept_params(params: Mapping[Any, Any], *, strict: bool) -> dict[str, Any]:
    """Parameters as the log keeps them.  Raises `LogValueError` with ``strict``."""
    held, as_text = {}, {}
    for key, value in params.items():
        try:
            held[str(key)] = plain(value)
            encode_value(held[str(key)])
        except Exception as error:
            if strict:
                raise LogValueError(f"cannot keep params: {reason(error)}") from None
            held[str(key)] = _text(value)
            as_text[str(key)] = reason(error)
    if as_text:
        warn(f"of params, {', '.join(as_text)} is kept as text: {next(iter(as_text.values()))}")
    return held


def same_params(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether parameters are equal bit for bit."""
    return encode_value(dict(then)) == encode_value(dict(now))


def _text(value: Any) -> str:
    """A value as text that is the same in another process."""
    try:
        return re.sub(r"\b0x[0-9a-f]+", "0x", repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def bytes_of(budget: int | str | None) -> int | None:
    """A number of bytes, such as 500 or "2GB"."""
    try:
        found = budget if budget is None or isinstance(budget, int) else units.size(budget)
    except (TypeError, ValueError):
        found = -1
    if found is not None and found < 0:
        raise FlorlogError(f'budget is a number of bytes such as 10_000_000 or "2GB", and got {budget!r}')
    return found


def seconds_of(span: float | str | None) -> float:
    """A span of time, such as 30 or "30s", in seconds."""
    if span is None:
        return math.inf
    try:
        return units.seconds(str(span))
    except ValueError:
        raise FlorlogError(f'max_redo is a time such as 30, "30s" or "5min", and got {span!r}') from None
