"""Images read ahead: whoever restores one after the other waits less for the disk.

A plan says which image comes next.  It is begun to be read, as a whole, when the present one is asked for; so the disk
works while the present one is put back and the iterations after it are executed.  At most one image is read ahead.  Its
memory is what earlier images left that nobody holds any more (`florlog_wal.ReusedMemory`); a tensor that the program
adopted stays its own.

This only makes it faster: where reading ahead fails, or memory is short, the image is read when it is asked for, a name
at a time, and that says what is wrong with it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from florlog_recovery import Image
from florlog_wal import Reading, ReusedMemory, RunLog, WalError

from florlog.images.imager import SavedState
from florlog.program.spare import available_bytes

MAX_MEMORY_SHARE = 0.25
"""Of the available memory: no larger image is read as a whole."""
_FAILURES = (WalError, OSError, MemoryError)  # and no others: the user's handler of a signal may raise here


class _Begun(NamedTuple):
    """An image that is being read."""

    saved: SavedState
    reading: Reading


class ReadAhead:
    """Reads the images of one run's log for whoever restores them in the order of a plan."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._memory = ReusedMemory()
        self._ahead: _Begun | None = None

    def begin(self, image: Image | None) -> None:
        """Begin to read what will be asked for next; None: nothing will, so no memory is kept for it."""
        if image is None:
            self._memory = ReusedMemory()
        self._ahead = None if image is None else self._begun(image)

    def take(self, image: Image, following: Image | None) -> tuple[SavedState, float]:
        """An image, and for how many seconds it was read; ``following`` is begun to be read.

        Raises what `SavedState` raises.
        """
        begun = self._ahead
        if begun is None or begun.saved.digest != image.table:
            self.close()
            begun = self._begun(image)
        self.begin(following)
        if begun is None:
            return SavedState(self._log, image.table), 0.0
        with suppress(*_FAILURES):  # what is not here is read when it is asked for, which raises the same
            begun.saved.hold(dict(zip(begun.saved.table, begun.reading.result(), strict=True)))
            return begun.saved, begun.reading.seconds
        return begun.saved, 0.0

    def close(self) -> None:
        """Read nothing more ahead.  Waits for the reads that have begun."""
        begun, self._ahead = self._ahead, None
        if begun is not None:
            begun.reading.cancel()

    def _begun(self, image: Image) -> _Begun | None:
        # RuntimeError: there are no more threads.  Whoever asks for the image will see what is wrong.
        with suppress(*_FAILURES, RuntimeError):
            saved = SavedState(self._log, image.table)
            entries = list(saved.table.values())
            if sum(entry.size for entry in entries) <= MAX_MEMORY_SHARE * available_bytes():
                reading = self._log.begin_reading(entries, self._memory)
                self._memory.free()  # this image has no tensors of these sizes
                return _Begun(saved, reading)
            self._memory.free()
        return None
