"""A file whose loss costs time and never an answer: the xxh3-64 of what follows, and an encoded value.

Several processes may replace it; the last one wins.  It is not synced: after a power cut its checksum may be wrong.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Final

import xxhash
from florlog_wal import decode_value, encode_value

_CHECKSUM_BYTES: Final = 8


def read_hint(path: Path, max_bytes: int) -> Any:
    """The value in a file of at most so many bytes.  Raises `OSError`, and `ValueError` for a damaged file."""
    with path.open("rb") as file:
        data = file.read(max_bytes)
    if xxhash.xxh3_64_digest(data[_CHECKSUM_BYTES:]) != data[:_CHECKSUM_BYTES]:
        raise ValueError(f"{path} is damaged")
    return decode_value(data[_CHECKSUM_BYTES:])


def write_hint(path: Path, value: Any) -> None:
    """Replace the file's value.  Raises `OSError` and `florlog_wal.Unencodable`; then the file is as it was."""
    data = encode_value(value)
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        with new.open("xb") as file:
            file.write(xxhash.xxh3_64_digest(data) + data)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
