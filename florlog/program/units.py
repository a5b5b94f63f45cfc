"""Sizes, times and counts as people write them: read from text, and written as text.

A parser raises ValueError with a message that says what to write instead.  A size that is read counts K as 1024
bytes, one that is written counts kB as 1000.
"""

from __future__ import annotations

import datetime as dt
import math
import re

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size(text: str) -> int:
    """A size in bytes, such as "500M" or "2GB".  Raises ValueError."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is no size: give bytes, or a number with K, M, G or T")
    return int(float(found[1]) * _UNITS[found[2].upper()])


_SECONDS = {"ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A time in seconds, above 0, such as "30", "30s", "5min" or "1h"."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*(ms|s|min|h|)\s*", text)
    span = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if span <= 0:
        raise ValueError(f"{text!r} is no time: give seconds, or a number with ms, s, min or h")
    return span


def count(text: str, what: str) -> int:
    """A number of ``what``, 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{text!r} is no number of {what}: give 1 or more")
    return int(text)


def size_text(nbytes: float) -> str:
    """Bytes for a person: ``4.9 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def duration_text(seconds: float) -> str:
    """Seconds for a person: ``12.3 ms``, ``4.20 s``, ``1 h 12 min``."""
    if not math.isfinite(seconds):
        return f"{seconds} s"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(unix_seconds: float, zone: dt.tzinfo | None = None) -> dt.datetime | None:
    """A moment in a time zone, default the local one; None for a number that no calendar has."""
    try:
        return dt.datetime.fromtimestamp(unix_seconds, zone)
    except (OverflowError, ValueError, OSError):
        return None
