"""The kinds of program that have runs, and how each is recorded, resumed and replayed.

- A script that opens its run itself, with `florlog.run`.  ``python SCRIPT`` records it.
- A hands-free script, which does not mention florlog.  ``florlog record`` opens the run around it.
- The cells of a notebook, of which the last one was recorded: hands-free, or with a run that it opened itself.  The
  notebook records and resumes them (`florlog.programs.notebook_cells.record_cell`).

`kind_of` reads from a run's first record of which kind its program is; nothing else decides that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from florlog_wal import RunBegin

from florlog.errors import FlorlogError
from florlog.program.environment import CELLS, is_hands_free
from florlog.programs.adoption import check_adopted
from florlog.programs.hands_free import record_script, replay_script
from florlog.programs.notebook_cells import replay_cells
from florlog.programs.scripts import run_as_main
from florlog.source.edit.instrument import Instrumenter
from florlog.source.edit.recorded_reading import recorded_reading
from florlog.source.edit.rewrite import Rewrite


def kind_of(begin: RunBegin) -> RecordedKind:
    """The kind of a run's program, which can be executed again."""
    if CELLS in begin.environment:
        return NotebookCells(begin)
    return HandsFreeScript(begin) if is_hands_free(begin.environment) else OwnRunScript(begin)


def recorded_rewrite(begin: RunBegin, texts: Mapping[str, str]) -> Rewrite | None:
    """How a run's program was rewritten, None if it was not; ``texts``: its files when the run began, by path."""
    return recorded_reading(texts, hands_free=is_hands_free(begin.environment))


@dataclass(frozen=True)
class RecordedKind(ABC):
    """The program of a recorded run.  Both methods raise what the program raises."""

    begin: RunBegin

    @abstractmethod
    def resume(self, script: str, argv: Sequence[str], store: Path) -> None:
        """Run the script with ``argv``; a resume was commanded."""

    @abstractmethod
    def replay(
        self, script: str, instrumenter: Instrumenter, rewrite: Rewrite | None, text: str | None = None
    ) -> None:
        """Run the script, or a ``text`` in its place, with the recorded arguments; a replay was commanded.

        ``rewrite`` is how the program was rewritten for the recording, None if it was not.
        """


class OwnRunScript(RecordedKind):
    """A script that opens its run itself."""

    def resume(self, script: str, argv: Sequence[str], store: Path) -> None:
        check_adopted(self.begin.environment)
        run_as_main(script, argv)

    def replay(
        self, script: str, instrumenter: Instrumenter, rewrite: Rewrite | None, text: str | None = None
    ) -> None:
        run_as_main(script, self.begin.argv, instrumenter=instrumenter, text=text)


class HandsFreeScript(RecordedKind):
    """A script, or a module as ``python -m`` runs it, that does not mention florlog."""

    @staticmethod
    def record(
        script: str, argv: Sequence[str], *, module: str | None, name: str, store: Path, audit: bool
    ) -> None:
        """Run a script with a run called ``name`` around it, and say on stderr what was found.

        ``script`` is an absolute path; ``module`` is the module's name where it runs as ``python -m`` does; ``audit``
        as of `florlog.run`.
        """
        record_script(script, argv, module=module, name=name, store=store, announce=True, audit=audit)

    def resume(self, script: str, argv: Sequence[str], store: Path) -> None:
        check_adopted(self.begin.environment)
        path = str(Path(script).absolute())
        record_script(path, argv, module=self._module, name=self.begin.name, store=store, announce=False)

    def replay(
        self, script: str, instrumenter: Instrumenter, rewrite: Rewrite | None, text: str | None = None
    ) -> None:
        assert rewrite is not None
        replay_script(script, self.begin, instrumenter, rewrite, module=self._module, text=text)

    @property
    def _module(self) -> str | None:
        return str(self.begin.environment.get("module", "")) or None


class NotebookCells(RecordedKind):
    """The cells of a notebook."""

    def resume(self, script: str, argv: Sequence[str], store: Path) -> None:
        """Raise `FlorlogError`: the earlier cells left their results in the kernel alone."""
        raise FlorlogError(
            f"run {self.begin.run} was recorded in a notebook: resume it there, with %%florlog --resume, "
            'or with resume="auto" where the cell calls florlog.run'
        )

    def replay(
        self, script: str, instrumenter: Instrumenter, rewrite: Rewrite | None, text: str | None = None
    ) -> None:
        replay_cells(script, self.begin, instrumenter, rewrite, text)
