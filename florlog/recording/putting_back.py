"""What is raised while a state is put back, as one kind of error that names what could not be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from florlog.errors import ImageError
from florlog.program.terminal import reason


@contextmanager
def putting_back(what: str) -> Iterator[None]:
    """Within, whatever is raised becomes an `ImageError` that names ``what``."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{what}: {reason(error)}") from error
