"""What this process does with the program that it runs: one object, `this_process`.

A script is the same in a recording, a resume and a replay, and it calls florlog without saying in which of them it
is.  So the process holds these few facts.  Whoever starts a program sets one of them for a ``with`` block, after
which it is as it was, also when the block raises; all other modules read them here.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from florlog.program.cells import NO_NOTEBOOK, NotebookProgram
from florlog.program.opened_runs import OpenedRuns


@dataclass(slots=True)
class Role:
    """What the process does with a run that the script opens, if it is more than to record it.

    The kinds of role are in `florlog.recording.roles`.
    """

    taken: bool = False
    """Whether the script has opened the run that is meant; others do not count from then on."""


@dataclass(frozen=True, slots=True)
class HandsFree:
    """An unmodified program that is recorded."""

    facts: Mapping[str, Any]
    """What its run's environment contains in addition."""
    files: Mapping[str, str]
    """The local files that it will import, with their modules' names."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What of a framework's module is run as a part of the program."""

    module: str
    text: str
    """Its excerpt (`florlog.source.edit.excerpt`)."""
    clock_keys: tuple[str, ...] = ()
    """How the keys end under which it keeps what it read from the clock."""


class Process:
    """The facts of one process."""

    def __init__(self) -> None:
        self.role: Role | None = None
        """None: the runs that the script opens are recorded."""
        self.notebook: NotebookProgram = NO_NOTEBOOK
        """The program that stands for the script."""
        self.hands_free: HandsFree | None = None
        self.adopted: Mapping[str, Adopted] = {}
        """By path, what of the modules of frameworks is part of the program."""
        self.opened = OpenedRuns()
        """The runs that the program has opened."""
        self.run: Any = None
        """The open `florlog.recording.run.Run`, whose room lies above this one; None while no run is open."""
        self.trusts_images = False
        """Whether images are restored that are not sealed: the user said so, of a run from somebody else."""
        self.watch: Any = None
        """The `florlog.programs.watching.Watch` of the added code that is running in a replay; None outside it."""

    @contextmanager
    def in_role(self, role: Role) -> Iterator[None]:
        """Within, a program is executed from its beginning, and ``role`` says what becomes of its runs."""
        with self._set("role", role), self._set("opened", OpenedRuns()):
            yield

    def standing_for_script(self, program: NotebookProgram) -> AbstractContextManager[None]:
        """Within, ``program`` stands for the script; `linecache` keeps its text for later tracebacks."""
        lines = program.text.splitlines(keepends=True)
        linecache.cache[program.file] = (len(program.text), None, lines, program.file)
        return self._set("notebook", program)

    def recording_hands_free(self, program: HandsFree) -> AbstractContextManager[None]:
        """Within, what is recorded is ``program``, which does not open its run itself."""
        return self._set("hands_free", program)

    def adopting(self, modules: Mapping[str, Adopted]) -> AbstractContextManager[None]:
        """Within, parts of modules of frameworks are part of the program; ``modules``: by path."""
        return self._set("adopted", modules)

    def text_of(self, file: str) -> str:
        """The text that a file of the program has in the analysis of the source; "" if there is none."""
        adopted = self.adopted.get(file)
        return "".join(linecache.getlines(file)) if adopted is None else adopted.text

    def clock_key_in(self, value: Any) -> str:
        """A key in a value, or in the text of one, under which a framework keeps the clock's time; "" for none."""
        ends = tuple(key for adopted in self.adopted.values() for key in adopted.clock_keys)
        if not ends:
            return ""
        words = re.findall(r"\w+", value) if isinstance(value, str) else _keys(value)
        return next((word for word in words if word.endswith(ends)), "")

    def running(self, run: Any) -> AbstractContextManager[None]:
        """Within, ``run`` is the open run."""
        return self._set("run", run)

    @contextmanager
    def _set(self, fact: str, value: Any) -> Iterator[None]:
        before = getattr(self, fact)
        setattr(self, fact, value)
        try:
            yield
        finally:
            setattr(self, fact, before)


def _keys(value: Any) -> Iterator[str]:
    """The keys of a mapping and of those in it, and in a list."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield str(key)
            yield from _keys(held)
    elif isinstance(value, (list, tuple)):
        for held in value:
            yield from _keys(held)


this_process = Process()
